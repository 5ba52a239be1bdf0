"""Figures of one network that a report makes a claim about."""

from __future__ import annotations

from convscope.data import ImageSet
from convscope.scans import Estimate, mean_of
from convscope.scope import Scope
from convscope.study import compare_seeds


def _filters_off(scope: Scope, test: ImageSet) -> tuple[Estimate, str]:
    """Accuracy before less after, with the weights of two filters of each of the first five convolutions set to 0."""
    layers = [op.name for op in scope.graph.operations if op.kind == "conv"][:5]
    ablation = scope.ablation({layer: [0, 1] for layer in layers}, test)
    change, low, high = ablation.change().figures
    return Estimate(-change, -high, -low), f"{len(ablation.index):,} test images"


def _occlusion_by_size(scope: Scope, test: ImageSet) -> tuple[Estimate, str]:
    """The true class's probability, mean over all places of a grey square, with 3×3 less with 11×11 pixels, over images.

    The report's sum has fewer places the larger the square is, so that it falls in any case; the mean does not.
    """
    n = min(50, len(test))  # of net4 an image takes seconds
    subset = test.subset([k * len(test) // n for k in range(n)])
    small, large = scope.occlusion(subset.images(), [3, 11], target=subset.targets_of())
    drop = small.probabilities.mean((1, 2)) - large.probabilities.mean((1, 2))
    return mean_of(drop.tolist()), f"{n:,} test images"


def _sparser(scope: Scope, test: ImageSet) -> tuple[Estimate, str]:
    """Share of zeros behind the ReLU, mean over the units of the last convolution less that of the first."""
    layers = [op.name for op in scope.graph.operations if op.kind == "conv"]
    by_layer = scope.statistics(test, [layers[0], layers[-1]], correlations=False)
    first, last = (dict(enumerate(by_layer[layer].zeros.tolist())) for layer in (layers[0], layers[-1]))
    shift = max(len(first), len(last))  # other units are no pairs
    compared = compare_seeds({k + shift: value for k, value in last.items()}, first, largest=1.0)
    return compared.difference, f"{len(last)} and {len(first)} units, {len(test):,} test images"


MEASUREMENTS = {"filters_off": _filters_off, "occlusion_by_size": _occlusion_by_size, "sparser_with_depth": _sparser}
"""Figures of one network that a claim may be about."""
