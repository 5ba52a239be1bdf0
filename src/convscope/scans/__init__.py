"""Scans look at a data set: reducers that one pass over the images feeds, and that merge exactly."""

from convscope.scans.evaluate import evaluate
from convscope.scans.exact import ExactSum
from convscope.scans.histogram import EDGES
from convscope.scans.intervals import Estimate, bootstrap, difference, f_score, mean, mean_over_classes, proportion
from convscope.scans.layers import LayerMap, layer_maps, relu_after
from convscope.scans.metrics import AllRight, Calibration, Confusion, Loss, Predictions, Reliability, TopK
from convscope.scans.room import MAX_MEMORY, batch_that_fits
from convscope.scans.scan import Images, Scan, Seen, checked, feed, feed_stored, scan
from convscope.scans.statistics import LayerStatistics, Statistics, statistics
from convscope.scans.top_patches import LayerPatches, Score, TopPatches, top_patches

__all__ = [
    "EDGES",
    "MAX_MEMORY",
    "AllRight",
    "Calibration",
    "Confusion",
    "Estimate",
    "ExactSum",
    "Images",
    "LayerMap",
    "LayerPatches",
    "LayerStatistics",
    "Loss",
    "Predictions",
    "Reliability",
    "Scan",
    "Score",
    "Seen",
    "Statistics",
    "TopK",
    "TopPatches",
    "batch_that_fits",
    "bootstrap",
    "checked",
    "difference",
    "evaluate",
    "f_score",
    "feed",
    "feed_stored",
    "layer_maps",
    "mean",
    "mean_over_classes",
    "proportion",
    "relu_after",
    "scan",
    "statistics",
    "top_patches",
]
