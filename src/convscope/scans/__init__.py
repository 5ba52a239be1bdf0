"""Scans look at a data set: reducers that one pass over the images feeds, and that merge exactly."""

from convscope.scans.evaluate import evaluate
from convscope.scans.intervals import Estimate, bootstrap, difference, f_score, mean, mean_over_classes, proportion
from convscope.scans.metrics import AllRight, Calibration, Confusion, Loss, Predictions, Reliability, TopK
from convscope.scans.scan import ExactSum, Scan, Seen, checked, feed, feed_stored

__all__ = [
    "AllRight",
    "Calibration",
    "Confusion",
    "Estimate",
    "ExactSum",
    "Loss",
    "Predictions",
    "Reliability",
    "Scan",
    "Seen",
    "TopK",
    "bootstrap",
    "checked",
    "difference",
    "evaluate",
    "f_score",
    "feed",
    "feed_stored",
    "mean",
    "mean_over_classes",
    "proportion",
]
