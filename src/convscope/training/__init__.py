"""From a recipe to a trained network: the loop, optimizers, schedules and checkpoints."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.training.device import autocast as autocast, number_format as number_format
    from convscope.training.live import (
        Lines as Lines,
        LiveTable as LiveTable,
        Silent as Silent,
        Watcher as Watcher,
    )
    from convscope.training.loop import Trainer as Trainer
    from convscope.training.optimizers import make_optimizer as make_optimizer, rate_at as rate_at
    from convscope.training.ranks import together as together
    from convscope.training.rates import (
        StepCost as StepCost,
        find_rate as find_rate,
        measure_step as measure_step,
    )
    from convscope.training.tracker_clients import flat_settings as flat_settings
    from convscope.training.trackers import (
        LEFT as LEFT,
        check_trackers as check_trackers,
        flat_metrics as flat_metrics,
        track_results as track_results,
    )
    from convscope.training.train import (
        check_free as check_free,
        make_card as make_card,
        train as train,
        train_spec as train_spec,
    )
else:
    load_when_used(__name__)
