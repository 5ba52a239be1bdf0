"""Scans look at a data set: reducers that one pass over the images feeds, and that merge exactly."""

from convscope.scans.by_image import Answers, Asked, Look, one_by_one
from convscope.scans.evaluate import evaluate
from convscope.scans.faithfulness import Faithfulness, FaithfulnessCurves, faithfulness
from convscope.scans.intervals import (
    Estimate,
    bootstrap,
    difference,
    f_score,
    mean,
    mean_of,
    mean_over_classes,
    proportion,
)
from convscope.scans.invariance import Change, Invariance, InvarianceCurves, Shift, changes_of, invariance
from convscope.scans.metrics import AllRight, Calibration, Confusion, Loss, Predictions, Reliability, TopK
from convscope.scans.randomization import Randomization, RandomizationCheck, randomization_check
from convscope.scans.scan import ExactSum, Scan, Seen, checked, feed, feed_stored

__all__ = [
    "AllRight",
    "Answers",
    "Asked",
    "Calibration",
    "Change",
    "Confusion",
    "Estimate",
    "ExactSum",
    "Faithfulness",
    "FaithfulnessCurves",
    "Invariance",
    "InvarianceCurves",
    "Look",
    "Loss",
    "Predictions",
    "Randomization",
    "RandomizationCheck",
    "Reliability",
    "Scan",
    "Seen",
    "Shift",
    "TopK",
    "bootstrap",
    "changes_of",
    "checked",
    "difference",
    "evaluate",
    "f_score",
    "faithfulness",
    "feed",
    "feed_stored",
    "invariance",
    "mean",
    "mean_of",
    "mean_over_classes",
    "one_by_one",
    "proportion",
    "randomization_check",
]
