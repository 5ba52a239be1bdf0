"""From a recipe to a trained network: the loop, optimizers, schedules and checkpoints."""

from convscope.training.device import autocast, choose_device, number_format, own_random_state
from convscope.training.live import Lines, LiveTable, Silent
from convscope.training.loop import Normalizer, Trainer, Watcher, evaluation_batch
from convscope.training.optimizers import make_optimizer, rate_at
from convscope.training.trackers import check_trackers, flat_metrics, flat_settings, track_results
from convscope.training.train import train, train_spec

__all__ = [
    "Lines",
    "LiveTable",
    "Normalizer",
    "Silent",
    "Trainer",
    "Watcher",
    "autocast",
    "check_trackers",
    "choose_device",
    "evaluation_batch",
    "flat_metrics",
    "flat_settings",
    "make_optimizer",
    "number_format",
    "own_random_state",
    "rate_at",
    "track_results",
    "train",
    "train_spec",
]
