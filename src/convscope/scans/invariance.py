"""How far features and answer move as an image is shifted, rotated, scaled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from numbers import Real
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from convscope.data import Change, transform
from convscope.errors import RequestError, SettingError, shortened
from convscope.graph import check_finite
from convscope.lenses import Fill, select_layers
from convscope.scans.by_image import Answers, Questions, cover_of, one_by_one
from convscope.scans.exact import ByImage
from convscope.scans.intervals import Estimate, mean_of, proportion

Shift = float | tuple[float, float]
"""Pixels down, or (down, right)."""


@dataclass(frozen=True, eq=False)
class InvarianceCurves:
    """How far the features of each layer and the answer move with each change of the image.

    Attributes:
        layers: in the network's order.
        kinds, amounts: what was done to the images, see `Change`; a shift's amount as [down, right].
        index: of each image in its set.
        target: the class asked about.
        distance: of the features f′ to those of the unchanged image f, ‖f′ − f‖ / (‖f′‖ + ‖f‖), in [0, 1]: 0 the same
            (or both all zero), 1 as far apart as features of their lengths can be, √½ for features of one length
            with nothing in common.
        probability: of the target after each change.
        unchanged: its probability before.
        kept: whether the most probable class is the same as before.
    """

    layers: list[str]
    kinds: list[str]
    amounts: list[float | list[float]]
    index: Int[Tensor, " N"]
    target: Int[Tensor, " N"]
    distance: Float[Tensor, "N T L"]
    probability: Float[Tensor, "N T"]
    unchanged: Float[Tensor, " N"]
    kept: Bool[Tensor, "N T"]

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.index)

    @property
    def changes(self) -> list[Change]:
        """What was done to the images."""
        amounts = (tuple(a) if isinstance(a, list) else a for a in self.amounts)
        return [Change(kind, amount) for kind, amount in zip(self.kinds, amounts, strict=True)]  # type: ignore[arg-type]

    def distances(self, layer: str) -> list[Estimate]:
        """For each change the mean distance over the images at a layer."""
        return [mean_of(column, 0, 1) for column in self.distance[..., self.layers.index(layer)].double().T.tolist()]

    @property
    def probabilities(self) -> list[Estimate]:
        """For each change the mean probability of the target over the images."""
        return [mean_of(column, 0, 1) for column in self.probability.double().T.tolist()]

    @property
    def shares_kept(self) -> list[Estimate]:
        """For each change the share of images whose most probable class stays."""
        return [proportion(right, self.n) for right in self.kept.sum(0).tolist()]

    def table(self) -> pd.DataFrame:
        """A row for each layer and change: layer, kind, change, mean distance with its interval."""
        rows = [
            {"layer": layer, "kind": change.kind, "change": str(change)} | one.to_json()
            for layer in self.layers
            for change, one in zip(self.changes, self.distances(layer), strict=True)
        ]
        return pd.DataFrame(rows).rename(columns={"value": "distance"})

    def rows(self) -> list[dict[str, Any]]:
        """A row a change, to print: `change`, `kind`, `amount`, `probability`, `kept`, and a distance for each layer."""
        by_layer = {layer: self.distances(layer) for layer in self.layers}
        columns = zip(self.changes, self.probabilities, self.shares_kept, strict=True)
        return [
            {"change": str(change), "kind": change.kind, "amount": change.amount, "probability": p, "kept": share}
            | {"distance": {layer: estimates[i] for layer, estimates in by_layer.items()}}
            for i, (change, p, share) in enumerate(columns)
        ]


def invariance(
    answers: Answers,
    asked: Questions,
    layers: Sequence[str],
    *,
    shift: Sequence[Shift] | float = (1, 2, 4, 8),
    rotate: Sequence[float] | float = (5, 15, 45, 90),
    scale: Sequence[float] | float = (0.8, 0.9, 1.1, 1.25),
    fill: Fill = "mean",
) -> InvarianceCurves:
    """How far features and answer move as images are shifted, rotated, scaled about their centre.

    The features f of a layer are compared as they are, position by position: ‖f′ − f‖ / (‖f′‖ + ‖f‖). So where a layer
    shows the same in another place, they have moved.

    Args:
        answers: the network's.
        asked: the images in [0, 1] and the class asked about for each: the true one, say, or the most probable.
        layers: names, patterns or kinds, see `convscope.lenses.select_layers`.
        shift: each in px down, or (down, right); those that are no whole numbers are interpolated.
        rotate: each in degrees, anticlockwise as seen.
        scale: each a factor, above 1 for a larger picture.
        fill: what comes in from beyond the border, see `convscope.lenses.fill_images`; one for all images.

    Returns:
        An `InvarianceCurves`: for each image and change the distance at each layer in [0, 1], 0 for the same; the
        probability of the class, and whether the answer stays; and from them the means with 95 % intervals.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        SettingError: an amount is out of range, or there is none.
        RequestError: the fill does not fit the images, or there is no layer.
        FailedError: the network gives NaN or infinity.

    Source: Zeiler & Fergus 2013, section 4.1 and figure 5, arXiv 1311.2901, who leave the distance as it is.

    Example:
        >>> curves = scope.invariance(images, ["conv"], rotate=range(0, 360, 15), shift=(), scale=())
        >>> curves.distances("conv1")
    """
    scan = Invariance(answers, layers, changes_of(shift, rotate, scale), fill)
    scan.update(asked)
    return scan.result()


class Invariance(ByImage):
    """A scan of invariance; each image is worked on alone, so the cut of the data does not matter.

    Args and Raises as of `invariance`, with changes as `changes_of` makes them.
    """

    def __init__(self, answers: Answers, layers: Sequence[str], changes: Sequence[Change], fill: Fill = "mean") -> None:
        if not changes:
            raise SettingError("shift, rotate and scale are all empty; give an amount of one of them")
        self.answers, self.changes, self.fill = answers, tuple(changes), fill
        self.layers = select_layers(answers.graph, layers)
        if not self.layers:
            raise RequestError("layers: there is none; give one at least, such as ['conv1']")

    def update(self, asked: Questions) -> None:
        for one in one_by_one(asked, "changing images"):
            changed = transform(one.images, cover_of(one, self.fill), self.changes)
            variants = torch.cat([one.images, changed])
            measured = self._measure(variants, one.target[0])
            self.keep(one.index, target=one.target, **{name: value[None] for name, value in measured.items()})

    def result(self) -> InvarianceCurves:
        amounts = [list(c.amount) if isinstance(c.amount, tuple) else c.amount for c in self.changes]
        return InvarianceCurves(list(self.layers), [c.kind for c in self.changes], amounts, **super().result())

    def _measure(self, variants: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The first of the variants is the unchanged image."""
        unchanged: dict[str, Tensor] = {}
        parts = []
        for results in self.answers.portions(variants, self.layers):
            unchanged = unchanged or {layer: results[layer][:1] for layer in self.layers}
            distances = torch.stack([distance(results[layer], unchanged[layer]) for layer in self.layers], 1)
            parts.append((distances, self.answers.probability(results, target), self.answers.classes(results, target)))
        moved, probability, answer = (torch.cat(values) for values in zip(*parts, strict=True))
        check_finite(moved, f"features of {', '.join(self.layers)} are NaN, infinite or too large to be compared")
        return {
            "distance": moved[1:],
            "probability": probability[1:],
            "unchanged": probability[0],
            "kept": answer[1:] == answer[0],
        }


def changes_of(
    shift: Sequence[Shift] | float, rotate: Sequence[float] | float, scale: Sequence[float] | float
) -> list[Change]:
    """The changes that are meant, in the order given.

    Args:
        shift: each in px down, or (down, right); those that are no whole numbers are interpolated.
        rotate: each in degrees, anticlockwise.
        scale: each a factor above 0.

    Raises:
        SettingError: an amount is not finite, or a factor not above 0, or these are no numbers.

    Example:
        >>> [str(change) for change in changes_of([2, (0, 4)], [15], [1.5])]
        ['shift 2, 0 px', 'shift 0, 4 px', 'rotate 15°', 'scale ×1.5']
    """
    offsets = amounts("shift", shift)
    pairs = [tuple(s) if isinstance(s, Sequence) and not isinstance(s, str) else (s, 0.0) for s in offsets]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise SettingError(f"shift: {shortened(wrong[0])}; expected a number of pixels down, or a pair (down, right)")
    shifts = [Change("shift", (_amount("shift", down), _amount("shift", right))) for down, right in pairs]
    turns = [Change("rotate", _amount("rotate", degrees)) for degrees in amounts("rotate", rotate)]
    return shifts + turns + [Change("scale", _amount("scale", factor, above=0)) for factor in amounts("scale", scale)]


def amounts(name: str, given: Any) -> list[Any]:
    """The amounts of one kind of change, of which a single number is the only one.

    Raises:
        SettingError: these are no numbers.
    """
    if isinstance(given, Real):
        return [given]
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SettingError(f"{name}: {shortened(given)}; expected numbers, such as [1, 2]")
    return list(given)


def _amount(name: str, value: Any, above: float = -inf) -> float:
    try:
        amount = float(value)
    except (TypeError, ValueError):
        amount = nan
    if not isfinite(amount) or amount <= above:
        raise SettingError(f"{name}: {shortened(value)}; expected a finite number{' above 0' if above == 0 else ''}")
    return amount


def distance(features: Float[Tensor, "N ..."], unchanged: Float[Tensor, "1 ..."]) -> Float[Tensor, " N"]:
    """The Euclidean distance of features to those of the unchanged image, as a share of the sum of their lengths."""
    flat, start = features.flatten(1), unchanged.flatten(1)
    lengths = flat.norm(dim=1) + start.norm(dim=1)
    return torch.where(lengths > 0, (flat - start).norm(dim=1) / lengths, 0)
