"""From a recipe to a trained network: the loop, optimizers, schedules and checkpoints."""

from convscope.training.device import autocast, number_format
from convscope.training.live import Lines, LiveTable, Silent
from convscope.training.loop import Trainer, Watcher
from convscope.training.measure import StepCost, measure_step
from convscope.training.optimizers import make_optimizer, rate_at
from convscope.training.ranks import together
from convscope.training.rates import find_rate
from convscope.training.tracker_clients import flat_settings
from convscope.training.trackers import LEFT, check_trackers, flat_metrics, track_results
from convscope.training.train import check_free, make_card, train, train_spec

__all__ = [
    "LEFT",
    "Lines",
    "LiveTable",
    "Silent",
    "StepCost",
    "Trainer",
    "Watcher",
    "autocast",
    "check_free",
    "check_trackers",
    "find_rate",
    "flat_metrics",
    "flat_settings",
    "make_card",
    "make_optimizer",
    "measure_step",
    "number_format",
    "rate_at",
    "together",
    "track_results",
    "train",
    "train_spec",
]
