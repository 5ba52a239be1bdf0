"""What each filter does for the answers: the effect of switching off one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from jaxtyping import Int64
from torch import Tensor

from convscope.errors import SettingError
from convscope.graph import Silenced
from convscope.lenses import HOW
from convscope.nets import Head
from convscope.scans.answered import Answered, answered, head_of
from convscope.scans.cached import cached_scan
from convscope.scans.exact import ExactSum
from convscope.scans.first_order import FirstOrder
from convscope.scans.layer_effects import LayerEffects
from convscope.scans.room import rows_that_fit
from convscope.scans.scan import Images, PassSettings, Seen, Subject, scan, sizes
from convscope.scans.silenced_layers import SilencedLayer, UnitsOf, silenced_layers, with_means


def filter_effects(
    scope: Subject,
    images: Images,
    layers: UnitsOf = "conv",
    how: str = "zero_weights",
    screen: int | None = None,
    **settings: Unpack[PassSettings],
) -> dict[str, LayerEffects]:
    """The effect of switching off each filter of some layers, one at a time, on the answers to a set of images.

    Nothing is run that a filter has no part in. For a batch the network runs once. What becomes of a unit up to the next
    convolution or dense layer is worked out for all units at once; that layer is linear, so what it gave changes by what
    it makes of the one unit's difference; only what lies behind is run anew, for many images and units in a batch. Images
    to which a unit makes no difference (it is silent there, off or on) are not run at all. Figures are those of whole
    passes of an edited network, to rounding: an image whose two best classes are equal to rounding may be counted either
    way. In the folder of a run the result is kept, and found again.

    Args:
        scope: the network, a `Scope`.
        images: a set with the classes that the network tells apart. For a network of several heads the first counts.
        layers: names, patterns or kinds, see `convscope.lenses.select_layers`; all convolutions by default. A layer that
            is used again counts once, under its first name. With `{"conv1": [0, 3]}` these units alone.
        how: what becomes of a unit's output, see `convscope.lenses.ablate`: "zero_weights" (filter and bias are 0),
            "zero_activation", or "mean_activation" (its mean over these images, from a pass of its own). Behind a batch
            norm zero weights are no silence: the unit then says one constant everywhere, which can harm more than its
            loss. To silence a convolution take "zero_activation" in `convscope.graph.where_read`, the ReLU behind it.
        screen: measure only so many units of each layer, those that matter most to first order, see `FirstOrder`; the
            result says which were measured. Costs one pass forward and back. None measures all.
        settings: batch_size, max_memory, workers, progress; see `scan`.

    Returns:
        Layer → `LayerEffects`, in the network's order: accuracy and mean probability of the true class without each unit,
        overall and by class, differences with paired intervals, the images that flip.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        RequestError: a layer has no filters or no such unit, or its units are not known; there are no images, or they
            came without classes; an operation behind a layer mixes the images of a batch.
        SettingError: `how` or `screen` is out of range.
        FailedError: the network gives NaN or infinity.

    Source: Morcos et al. 2018, arXiv 1803.06959; the screen: Molchanov et al. 2017, arXiv 1611.06440.

    Example:
        >>> found = filter_effects(scope, data.test)["conv3"]
        >>> found.accuracy_after.argmin(), found.change(7), found.lost_images(7)
    """
    if how not in HOW:
        raise SettingError(f"how: {how!r}; expected one of {', '.join(HOW)}")
    if screen is not None and screen < 1:
        raise SettingError(f"screen: {screen} is out of range; give 1 or more, or None to measure all")

    def make() -> dict[str, LayerEffects]:
        head = head_of(scope, images)
        silenced = silenced_layers(scope.graph, layers, how)
        if how == "mean_activation":
            silenced = with_means(scope, images, silenced, **settings)
        estimates: dict[str, Tensor] = {}
        if screen is not None:
            first_order = FirstOrder(scope, silenced, head, settings.get("max_memory"))
            [estimates] = scan(scope, images, [first_order], **settings)
            silenced = {name: each.screened(estimates[name], screen) for name, each in silenced.items()}
        effects = FilterEffects(scope, silenced, head, how, estimates, settings.get("max_memory"))
        [measured] = scan(scope, images, [effects], **settings)
        return measured

    named = dict(layers) if isinstance(layers, Mapping) else layers
    asked = {"layers": named, "how": how, "screen": screen}
    return cached_scan(scope, "filter-effects", images, asked | sizes(settings), LayerEffects, make)


class FilterEffects:
    """A scan of the effects of switching off units, one at a time; see `filter_effects`.

    Args:
        scope: the network that is scanned.
        layers: those whose units are switched off, by name.
        head: whose answers count.
        how: said in the result.
        estimates: of each layer's units, said in the result; none where nothing was screened.
        max_memory: bytes for the images and units that are run at once.
    """

    needs_outputs = True

    def __init__(
        self,
        scope: Subject,
        layers: Mapping[str, SilencedLayer],
        head: Head,
        how: str = "zero_weights",
        estimates: Mapping[str, Tensor] | None = None,
        max_memory: int | None = None,
    ) -> None:
        self.scope, self.silenced, self.head, self.how, self.max_memory = scope, dict(layers), head, how, max_memory
        self.estimates = dict(estimates or {})
        self._runs = self._plan()
        self.layers = tuple(dict.fromkeys(name for run in self._runs.values() for name in run.needs))
        n_classes = len(head.classes)
        self.before = _Before(n_classes)
        self.parts = {name: _Sums(len(each.units), n_classes) for name, each in layers.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Another process plans anew, over the graph that it traces itself."""
        return vars(self) | {"_runs": None}

    def update(self, seen: Seen) -> None:
        self._runs = self._runs or self._plan()
        labels = seen.targets[self.head.target]
        before = answered(self.head, seen.outputs, labels)
        self.before.update(before, labels)
        on_cpu = all(p.device.type == "cpu" for p in self.scope.net.parameters())
        for name, run in self._runs.items():
            layer = self.silenced[name]
            n_rows = rows_that_fit(run.values_each, on_cpu, self.max_memory)
            after = _as_before(before, len(layer.units))
            place = torch.zeros(len(layer.values), dtype=torch.int64)
            place[list(layer.units)] = torch.arange(len(layer.units))
            for rows in run.run(seen.activations, layer.values, layer.units, n_rows):
                found = answered(self.head, rows.outputs, labels[rows.image])
                for all_rows, some in zip(after, found, strict=True):
                    all_rows[rows.image, place[rows.unit]] = some
            self.parts[name].update(before, after, seen.index, labels)

    def merge(self, other: FilterEffects) -> None:
        self.before.merge(other.before)
        for name, sums in self.parts.items():
            sums.merge(other.parts[name])

    def result(self) -> dict[str, LayerEffects]:
        """By the layer's name, in the network's order."""
        return {name: self._of_layer(name, sums) for name, sums in self.parts.items()}

    def _plan(self) -> dict[str, Silenced]:
        return {name: each.in_graph(self.scope.graph) for name, each in self.silenced.items()}

    def _of_layer(self, name: str, sums: _Sums) -> LayerEffects:
        layer, n_images = self.silenced[name], self.before.images
        units = torch.tensor(layer.units)
        shape = (len(layer.values), len(self.head.classes))

        def spread(rows: Tensor, filled: float = 0) -> Tensor:
            """Rows of the units that were measured, among those of all."""
            found = torch.full((len(layer.values), *rows.shape[1:]), filled, dtype=rows.dtype)
            found[units] = rows
            return found

        flips = torch.cat([torch.zeros(0, 5, dtype=torch.int64), *sums.flips])
        flips = flips[flips[:, 1].argsort(stable=True)]
        flips = flips[flips[:, 0].argsort(stable=True)]
        flips[:, 0] = units[flips[:, 0]]
        return LayerEffects(
            layer=name,
            how=self.how,
            classes=list(self.head.classes),
            images_per_class=n_images.clone(),
            right=self.before.right.clone(),
            probability=self.before.probability.value / n_images,
            lost=spread(sums.lost).view(shape),
            gained=spread(sums.gained).view(shape),
            probability_after=spread(sums.probability.value.T / n_images, torch.nan),
            deviation=spread(sums.deviation(int(n_images.sum())), torch.nan),
            flips=flips,
            measured=spread(torch.ones(len(units), dtype=torch.bool)),
            estimate=self.estimates.get(name),
        )


class _Before:
    """What the network answers as it is, by class."""

    def __init__(self, n_classes: int) -> None:
        self.images, self.right = torch.zeros(2, n_classes, dtype=torch.int64)
        self.probability = ExactSum((n_classes,))

    def update(self, before: Answered, labels: Int64[Tensor, " N"]) -> None:
        n = len(self.images)
        self.images = self.images + torch.bincount(labels, minlength=n)
        self.right = self.right + torch.bincount(labels[before.predicted == labels], minlength=n)
        self.probability.add(_by_class(before.probability[:, None], labels, n)[..., 0])

    def merge(self, other: _Before) -> None:
        self.images, self.right = self.images + other.images, self.right + other.right
        self.probability.merge(other.probability)


class _Sums:
    """What it answers without each of the units of a layer, by class."""

    def __init__(self, n_units: int, n_classes: int) -> None:
        self.lost, self.gained = torch.zeros(2, n_units, n_classes, dtype=torch.int64)
        self.probability, self.change = ExactSum((n_classes, n_units)), ExactSum((n_units,))
        self.squares = ExactSum((n_units,))
        self.flips: list[Tensor] = []

    def update(
        self, before: Answered, after: Answered, index: Int64[Tensor, " N"], labels: Int64[Tensor, " N"]
    ) -> None:
        """Takes in answers without the units, (N, U)."""
        n = self.lost.shape[1]
        right, was_right = after.predicted == labels[:, None], (before.predicted == labels)[:, None]
        self.lost = self.lost + _by_class((was_right & ~right).long(), labels, n)[0].T
        self.gained = self.gained + _by_class((right & ~was_right).long(), labels, n)[0].T
        self.probability.add(_by_class(after.probability, labels, n))
        change = after.probability - before.probability[:, None]
        self.change.add(change)
        self.squares.add(change.square())
        image, unit = (right != was_right).nonzero().unbind(1)
        columns = (unit, index[image], labels[image], before.predicted[image], after.predicted[image, unit])
        self.flips.append(torch.stack(columns, 1))

    def merge(self, other: _Sums) -> None:
        self.lost, self.gained = self.lost + other.lost, self.gained + other.gained
        for name in ("probability", "change", "squares"):
            getattr(self, name).merge(getattr(other, name))
        self.flips += other.flips

    def deviation(self, n: int) -> Tensor:
        return (self.squares.value / n - (self.change.value / n).square()).clamp(min=0).sqrt()


def _by_class(values: Tensor, labels: Int64[Tensor, " N"], n_classes: int) -> Tensor:
    """The sums of (N, U) over the images of each class, (1, K, U)."""
    return torch.zeros(1, n_classes, values.shape[1], dtype=values.dtype).index_add_(1, labels, values[None])


def _as_before(before: Answered, n_units: int) -> Answered:
    """The answers as they are, for each of the units, (N, U), to be overwritten where a unit makes a difference."""
    return Answered(*(each[:, None].repeat(1, n_units) for each in before))
