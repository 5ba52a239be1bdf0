"""What each unit of a layer gives over a whole data set: its range, its silence, its doubles, its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from torch import Tensor

from convscope.data import ImageSet
from convscope.errors import RequestError
from convscope.graph import check_finite, relu_after
from convscope.scans.cached import ScanRequest, cached_scans
from convscope.scans.exact import ByLayer, ExactSum, Summed
from convscope.scans.layers import LayerMap, layer_maps
from convscope.scans.moments import Moments
from convscope.scans.scan import AnyImages, BatchOutputs, Images, PassSettings, Subject, shown
from convscope.scans.top_patches import LayerPatches, Score, patches_request

ALIKE = 0.8
"""Correlation from which pairs of units are recorded. Those of all pairs took 102 MB of a network of 14 MB; pages show 0.95."""


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """Figures of every unit of a layer, over all images and positions.

    Mean, deviation, range, histogram and correlation are those of the layer's own output, before any ReLU. What speaks of
    firing (`zeros`, `peak`, `class_means`, and what follows from them) is about the ReLU that follows, by whatever batch
    norm lies between; where none follows, about the layer's own output cut at zero.

    Attributes:
        layer: the layer that was asked for.
        rectified: the ReLU that follows, see `relu_after`; None where none does.
        mean, deviation, low, high: of the layer's output, (U,); the deviation divides by n.
        histogram: how many numbers lie in each bin of `EDGES`, (U, B).
        zeros: share of what follows the ReLU that is 0, (U,), in [0, 1].
        peak: the largest number that follows the ReLU, (U,); 0 for a unit that never fires.
        class_means: mean of what follows the ReLU over positions and the images of each class, (U, K), NaN for a class
            without images; None where the images came without.
        images_per_class: (K,), or None.
        pairs: units whose outputs correlate at least by `ALIKE`, a row (unit, later unit) each, (P, 2); None if not asked for.
        correlation: of each of the pairs, (P,); None if not asked for.
        n_images: how many were seen.
    """

    layer: str
    rectified: str | None
    mean: Float64[Tensor, " U"]
    deviation: Float64[Tensor, " U"]
    low: Float[Tensor, " U"]
    high: Float[Tensor, " U"]
    histogram: Int64[Tensor, "U B"]
    zeros: Float64[Tensor, " U"]
    peak: Float[Tensor, " U"]
    class_means: Float64[Tensor, "U K"] | None
    images_per_class: Int64[Tensor, " K"] | None
    pairs: Int32[Tensor, "P 2"] | None
    correlation: Float32[Tensor, " P"] | None
    n_images: int

    @property
    def dead(self) -> Bool[Tensor, " U"]:
        """Units that never fire: the ReLU that follows cuts all that they give. None where no ReLU follows: there a negative
        number is read as well."""
        return (self.peak <= 0) & (self.rectified is not None)

    @property
    def saturated(self) -> Bool[Tensor, " U"]:
        """Units that are always on: the ReLU never cuts them, so they are linear on this data. None where no ReLU follows."""
        return (self.zeros == 0) & (self.rectified is not None)

    @property
    def selectivity(self) -> Float64[Tensor, " U"] | None:
        """How much more a unit answers to its best class than to the others: (µ - µ′) / (µ + µ′), from 0 to 1.

        µ is the largest of the class means, µ′ the mean of the others. 0 for a dead unit; None without classes, or with one.

        Source: Morcos et al. 2018, arXiv 1803.06959, section A.1; they add a small constant below, which is not needed here.
        """
        if self.class_means is None or self.images_per_class is None or (self.images_per_class > 0).sum() < 2:
            return None
        means = self.class_means[:, self.images_per_class > 0]
        best = means.amax(1)
        others = (means.sum(1) - best) / (means.shape[1] - 1)
        return ((best - others) / (best + others)).where(best > 0, 0.0)

    @property
    def best_class(self) -> Int64[Tensor, " U"] | None:
        """The class with the largest mean; -1 for a unit that is never positive."""
        if self.class_means is None:
            return None
        return self.class_means.nan_to_num(-torch.inf).argmax(1).where(self.peak > 0, -1)

    def duplicates(self, least: float = 0.95) -> list[tuple[int, int, float]]:
        """Pairs of units whose outputs correlate at least so much: (unit, later unit, correlation), strongest first.

        Raises:
            RequestError: correlations were not asked for, or `least` is not in [ALIKE, 1].
        """
        if not ALIKE <= least <= 1:
            raise RequestError(f"least: {least} is no correlation that is recorded; give a number from {ALIKE} to 1")
        if self.pairs is None or self.correlation is None:
            raise RequestError("correlations were not asked for; scan again with correlations=True")
        pairs = zip(*self.pairs.T.tolist(), self.correlation.tolist(), strict=True)
        return sorted((pair for pair in pairs if pair[2] >= least), key=lambda pair: (-pair[2], pair[:2]))

    @property
    def whole(self) -> dict[str, float]:
        """The same of the layer as a whole: mean, deviation, low, high, zeros."""
        mean = float(self.mean.mean())
        square = float((self.deviation**2 + self.mean**2).mean())
        deviation = max(0.0, square - mean**2) ** 0.5
        low, high, zeros = float(self.low.min()), float(self.high.max()), float(self.zeros.mean())
        return {"mean": mean, "deviation": deviation, "low": low, "high": high, "zeros": zeros}

    def table(self) -> pd.DataFrame:
        """A row for each unit: layer, unit, and the figures that are one number a unit."""
        names = ("mean", "deviation", "low", "high", "zeros", "peak", "dead", "saturated", "selectivity", "best_class")
        columns = {name: getattr(self, name) for name in names}
        table = pd.DataFrame({name: values.numpy() for name, values in columns.items() if values is not None})
        table.insert(0, "unit", range(len(table)))
        table.insert(0, "layer", self.layer)
        return table


def statistics(
    scope: Subject,
    images: AnyImages,
    layers: Sequence[str] | str,
    correlations: bool = True,
    **how: Unpack[PassSettings],
) -> dict[str, LayerStatistics]:
    """What every unit of some layers gives over a set of images, in one pass.

    In the folder of a run the result is kept, and found again.

    Args:
        scope: the network, a `Scope`.
        images: a set, or a tensor (N, C, H, W) in [0, 1]; the latter has no classes.
        layers: names, patterns or kinds; see `convscope.lenses.select_layers`.
        correlations: find units of a layer that are alike. While it scans, this takes about 40 bytes for each pair of units,
            and most of the time.
        how: batch_size, max_memory, workers, progress; see `scan`.

    Returns:
        Layer → `LayerStatistics`, in the network's order.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        RequestError: the units of a layer are not known, or there are no images.
        FailedError: the network gives NaN or infinity.

    Example:
        >>> result = statistics(scope, data.test, ["conv"])["conv3"]
        >>> result.dead.nonzero(), result.duplicates(0.95)
    """
    [records] = cached_scans(scope, shown(scope, images), [_request(layers, correlations)], how)
    return records


def _request(layers: Sequence[str] | str, correlations: bool = True) -> ScanRequest:
    settings = {"layers": layers, "correlations": correlations}
    return ScanRequest("statistics", LayerStatistics, Statistics.of, settings)


def patches_and_statistics(
    scope: Subject,
    images: Images,
    layers: Sequence[str] | str,
    top: int = 20,
    score: Score = "sum",
    **how: Unpack[PassSettings],
) -> tuple[dict[str, LayerPatches], dict[str, LayerStatistics]]:
    """What `top_patches` and `statistics` give, from one pass, which is most of the work of either; each is cached by itself.

    Args:
        scope, images, layers, top, score, how: see `top_patches`.

    Raises:
        ConvscopeError: those of `top_patches` and `statistics`.

    Example:
        >>> patches, statistics = patches_and_statistics(scope, data.test, ["conv"])
        >>> patches["conv3"].mean, statistics["conv3"].dead
    """
    of_patches = patches_request(images, layers, top, score)
    patches, figures = cached_scans(scope, images, [of_patches, _request(layers)], how)
    return patches, figures


class Statistics(ByLayer):
    """Sums up what every unit gives; see `LayerStatistics`.

    Args:
        maps: how to read each layer, by the layer's name.
        rectified: how to read the ReLU that follows, by the layer's name; none where none does.
        n_classes: of the target `class`; None where the images have none.
        correlations: of all pairs of units. They take 40 bytes a pair, and most of the time.
    """

    def __init__(
        self,
        maps: dict[str, LayerMap],
        rectified: dict[str, LayerMap],
        n_classes: int | None = None,
        correlations: bool = True,
    ) -> None:
        self.layers = tuple(dict.fromkeys(each.name for each in (*maps.values(), *rectified.values())))
        self.parts = {layer: _Sums(each, rectified.get(layer), n_classes, correlations) for layer, each in maps.items()}

    @classmethod
    def of(cls, scope: Subject, images: Images, layers: Sequence[str] | str, correlations: bool = True) -> Statistics:
        """Those of a network and a set, for a pass that feeds others too; arguments as of `statistics`."""
        maps = {each.name: each for each in layer_maps(scope.graph, layers)}
        behind = {layer: name for layer in maps if (name := relu_after(scope.graph, layer)) is not None}
        rectified = {layer: layer_maps(scope.graph, [name])[0] for layer, name in behind.items()}
        n_classes = len(images.classes["class"]) if isinstance(images, ImageSet) else None
        return cls(maps, rectified, n_classes, correlations)

    def update(self, seen: BatchOutputs) -> None:
        for sums in self.parts.values():
            sums.update(seen)


class _Sums(Summed):
    """All that is summed up of one layer; on the CPU."""

    adds = ("n", "moments", "histogram", "positive", "images_per_class", "by_class")

    def __init__(self, layer: LayerMap, rectified: LayerMap | None, n_classes: int | None, correlations: bool) -> None:
        self.layer, self.rectified, self.n_classes = layer, rectified, n_classes
        n_units = layer.n_units
        self.n, self.n_positions = 0, layer.size[0] * layer.size[1]
        self.moments = Moments(n_units, correlations)
        self.low = torch.full((n_units,), torch.inf, dtype=torch.float64)
        self.high, self.peak = -self.low, torch.zeros(n_units, dtype=torch.float64)
        self.histogram = torch.zeros(n_units, len(EDGES) - 1, dtype=torch.int64)
        self.positive = torch.zeros(n_units, dtype=torch.int64)
        self.images_per_class = torch.zeros(n_classes or 0, dtype=torch.int64)
        self.by_class = ExactSum((n_classes or 0, n_units))

    def update(self, seen: BatchOutputs) -> None:
        layer = self.layer.name
        maps = self.layer.read(seen.activations[layer])  # N, U, P
        behind = None if self.rectified and self.rectified.name == layer else self.rectified
        rectified = behind.read(seen.activations[behind.name]) if behind else maps.clamp(min=0)
        low, high = (edge.double().cpu() + 0.0 for edge in (maps.amin(2).amin(0), maps.amax(2).amax(0)))
        peak = rectified.amax(2).amax(0).double().cpu()
        broken = f"layer {layer!r} or its ReLU gives NaN or infinity; the network's weights are broken"
        check_finite(torch.cat([low, high, peak]), broken)
        self._widen(low, high, peak)
        self.n += len(maps)
        self.moments.update(maps)
        self.histogram += histogram(maps.float())
        # a float counts to 2^24 exactly: positions are fewer
        self.positive += rectified.sign().sum(2).long().sum(0).cpu()
        if self.n_classes is not None:
            labels, sums = seen.targets["class"], rectified.sum(2).double().cpu()
            by_class = torch.zeros(1, *self.by_class.shape, dtype=torch.float64)
            self.by_class.add(by_class.index_add_(1, labels, sums[None]))
            self.images_per_class += torch.bincount(labels, minlength=self.n_classes)

    def merge(self, other: _Sums) -> None:
        super().merge(other)
        self._widen(other.low, other.high, other.peak)

    def _widen(self, low: Tensor, high: Tensor, peak: Tensor) -> None:
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.peak = torch.maximum(self.peak, peak)

    def result(self) -> LayerStatistics:
        images = None if self.n_classes is None else self.images_per_class.clone()
        means = None if images is None else (self.by_class.value / (images[:, None] * self.n_positions)).T
        correlation = self.moments.correlation(constant=self.low >= self.high)
        pairs = None if correlation is None else (correlation.triu(1) >= ALIKE).nonzero()
        return LayerStatistics(
            layer=self.layer.name,
            rectified=self.rectified.name if self.rectified else None,
            mean=self.moments.mean,
            deviation=self.moments.deviation.where(self.low < self.high, 0.0),
            low=self.low,
            high=self.high,
            histogram=self.histogram.clone(),
            zeros=1 - self.positive.double() / (self.n * self.n_positions),
            peak=self.peak,
            class_means=means,
            images_per_class=images,
            pairs=None if pairs is None else pairs.int(),
            correlation=None if correlation is None or pairs is None else correlation[pairs[:, 0], pairs[:, 1]],
            n_images=self.n,
        )


_SHIFT = 21
"""A float's bits above these: its sign, its exponent, and two bits of its mantissa."""
_LOW, _HIGH = (127 - 12) << 2, (127 + 12) << 2  # what stands there for 2^-12 and 2^12
_KEYS = 1 << 10  # of one sign


def _edges() -> Float32[Tensor, " B1"]:
    keys = torch.arange(_LOW, _HIGH + 1, dtype=torch.int32)
    sizes = (keys << _SHIFT).view(torch.float32)
    infinity = torch.tensor([torch.inf])
    return torch.cat([-infinity, -sizes.flip(0), sizes, infinity])


EDGES = _edges()
"""The edges of the bins (B + 1 = 196), in rising order.

Four bins to each power of two: 1, 1.25, 1.5, 1.75, 2, 2.5, … from 2^-12 to 2^12, the same below zero, one bin for what is
smaller than 2^-12, and the two ends to infinity. A number on an edge belongs to the bin farther from zero.
"""


def histogram(maps: Float32[Tensor, "N U P"]) -> Int64[Tensor, "U B"]:
    """How many numbers of each unit lie in each bin; they must be finite.

    The bin is read off the number's own bits, so it takes one pass, and no comparison.
    """
    n_units = maps.shape[1]
    keys = maps.view(torch.int32) >> _SHIFT  # of negative numbers from -1024 on, by rising size
    offsets = torch.arange(n_units, dtype=torch.int32, device=maps.device) * (2 * _KEYS) + _KEYS
    counts = torch.bincount(keys.add_(offsets[:, None]).flatten(), minlength=2 * _KEYS * n_units)
    negative, positive = counts.view(n_units, 2, _KEYS).unbind(1)
    small = positive[:, :_LOW].sum(1, keepdim=True) + negative[:, :_LOW].sum(1, keepdim=True)
    above, below = (side[:, _HIGH:].sum(1, keepdim=True) for side in (positive, negative))
    parts = (below, negative[:, _LOW:_HIGH].flip(1), small, positive[:, _LOW:_HIGH], above)
    return torch.cat(parts, 1).cpu()
