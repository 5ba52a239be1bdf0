"""Scans look at a data set: reducers that one pass over the images feeds, and that merge exactly."""

from convscope.scans.by_image import Answers, Questions, TiedLens, one_by_one
from convscope.scans.evaluate import evaluate
from convscope.scans.exact import ExactSum
from convscope.scans.faithfulness import Faithfulness, FaithfulnessCurves, faithfulness
from convscope.scans.histogram import EDGES
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
from convscope.scans.kept import kept_or_made
from convscope.scans.layers import LayerMap, layer_maps
from convscope.scans.metrics import AllRight, Calibration, Confusion, Loss, Predictions, Reliability, TopK
from convscope.scans.randomization import Randomization, RandomizationCheck, randomization_check
from convscope.scans.room import MAX_MEMORY, batch_that_fits
from convscope.scans.scan import Images, Scan, Seen, checked, feed, feed_stored, scan
from convscope.scans.statistics import LayerStatistics, Statistics, statistics
from convscope.scans.top_patches import LayerPatches, Score, TopPatches, top_patches

__all__ = [
    "EDGES",
    "MAX_MEMORY",
    "AllRight",
    "Answers",
    "Calibration",
    "Change",
    "Confusion",
    "Estimate",
    "ExactSum",
    "Faithfulness",
    "FaithfulnessCurves",
    "Images",
    "Invariance",
    "InvarianceCurves",
    "LayerMap",
    "LayerPatches",
    "LayerStatistics",
    "Loss",
    "Predictions",
    "Questions",
    "Randomization",
    "RandomizationCheck",
    "Reliability",
    "Scan",
    "Score",
    "Seen",
    "Shift",
    "Statistics",
    "TiedLens",
    "TopK",
    "TopPatches",
    "batch_that_fits",
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
    "kept_or_made",
    "layer_maps",
    "mean",
    "mean_of",
    "mean_over_classes",
    "one_by_one",
    "proportion",
    "randomization_check",
    "scan",
    "statistics",
    "top_patches",
]
