"""Scans look at a data set: reducers that one pass over the images feeds, and that merge exactly."""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.scans.ablation import IntervenedNet, ablation
    from convscope.scans.answered import Answering, head_of
    from convscope.scans.by_image import Answers, Questions, TiedLens, one_by_one
    from convscope.scans.cached import cached_scan, digest_of_scope, digest_of_weights
    from convscope.scans.edit_effect import edit_effect
    from convscope.scans.effects import Ablation, EditEffect, LayerEffects, PairedAnswers
    from convscope.scans.evaluate import evaluate, kept_epoch
    from convscope.scans.exact import ExactSum
    from convscope.scans.faithfulness import Faithfulness, FaithfulnessCurves, faithfulness
    from convscope.scans.filter_effects import FilterEffects, filter_effects, interventions_over
    from convscope.scans.first_order import FirstOrder
    from convscope.scans.histogram import EDGES
    from convscope.scans.imbalance import imbalance_in_words, validation_in_words
    from convscope.scans.intervals import (
        Estimate,
        bootstrap,
        difference,
        f_score,
        mean,
        mean_of,
        mean_over_classes,
        paired_difference,
        proportion,
    )
    from convscope.scans.invariance import Change, Invariance, InvarianceCurves, Shift, changes_of, invariance
    from convscope.scans.layers import LayerMap, layer_maps
    from convscope.scans.metrics import AllRight, Calibration, Confusion, Loss, Predictions, Reliability, TopK
    from convscope.scans.neighbours import Embeddings, Nearest, embeddings, nearest
    from convscope.scans.projection import Projection, project, write_embeddings
    from convscope.scans.randomization import Randomization, RandomizationCheck, randomization_check
    from convscope.scans.reviewed import ReviewedAccuracy, reviewed_accuracy
    from convscope.scans.room import MAX_MEMORY, batch_that_fits
    from convscope.scans.scan import BatchOutputs, Images, PassSettings, Scan, checked, feed, feed_stored, scan
    from convscope.scans.similarity import layer_similarity, linear_cka
    from convscope.scans.statistics import LayerStatistics, Statistics, statistics
    from convscope.scans.together import patches_and_statistics
    from convscope.scans.top_patches import LayerPatches, Score, TopPatches, top_patches
else:
    load_when_used(__name__)

__all__ = [
    "EDGES",
    "MAX_MEMORY",
    "Ablation",
    "AllRight",
    "Answering",
    "Answers",
    "BatchOutputs",
    "Calibration",
    "Change",
    "Confusion",
    "EditEffect",
    "Embeddings",
    "Estimate",
    "ExactSum",
    "Faithfulness",
    "FaithfulnessCurves",
    "FilterEffects",
    "FirstOrder",
    "Images",
    "IntervenedNet",
    "Invariance",
    "InvarianceCurves",
    "LayerEffects",
    "LayerMap",
    "LayerPatches",
    "LayerStatistics",
    "Loss",
    "Nearest",
    "PairedAnswers",
    "PassSettings",
    "Predictions",
    "Projection",
    "Questions",
    "Randomization",
    "RandomizationCheck",
    "Reliability",
    "ReviewedAccuracy",
    "Scan",
    "Score",
    "Shift",
    "Statistics",
    "TiedLens",
    "TopK",
    "TopPatches",
    "ablation",
    "batch_that_fits",
    "bootstrap",
    "cached_scan",
    "changes_of",
    "checked",
    "difference",
    "digest_of_scope",
    "digest_of_weights",
    "edit_effect",
    "embeddings",
    "evaluate",
    "f_score",
    "faithfulness",
    "feed",
    "feed_stored",
    "filter_effects",
    "head_of",
    "imbalance_in_words",
    "interventions_over",
    "invariance",
    "kept_epoch",
    "layer_maps",
    "layer_similarity",
    "linear_cka",
    "mean",
    "mean_of",
    "mean_over_classes",
    "nearest",
    "one_by_one",
    "paired_difference",
    "patches_and_statistics",
    "project",
    "proportion",
    "randomization_check",
    "reviewed_accuracy",
    "scan",
    "statistics",
    "top_patches",
    "validation_in_words",
    "write_embeddings",
]
