"""What ablations do to the answers to the same images: the records, for each unit of a layer and for a chosen set of units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from convscope.errors import RequestError
from convscope.scans.intervals import Estimate, mean, mean_of, paired_difference, proportion

ALL = "all"
"""In tables: the row of all classes together."""


@dataclass(frozen=True, eq=False)
class LayerEffects:
    """The effect of ablating each unit of a layer, one at a time, on the answers to the same images.

    Rows of units that were not measured, because they were not asked for or a first-order estimate left them out, hold
    zeros and NaN; `measured` tells them apart. Differences are after less before: negative where the unit is of use.
    Methods raise RequestError for a unit that is not there, or was not measured.

    Attributes:
        layer: whose units were ablated.
        how: what became of a unit's output; see `convscope.lenses.ablate`.
        classes: their names.
        images_per_class: how many images there are of each, (K,).
        right: how many of them are predicted right by the network as it is, (K,).
        probability: mean of the true class's probability over the images of each class, (K,); NaN without images.
        lost: images of each class that were right and are wrong without the unit, (U, K).
        gained: images of each class that were wrong and are right without it, (U, K).
        probability_after: as `probability`, without the unit, (U, K).
        deviation: of the images' changes of probability, (U,), dividing by n.
        flips: (unit, image's index in the set, true class, class predicted before, after) of each image that is lost
            or gained, (F, 5), ordered by unit and image.
        measured: whether the unit's effect was measured, (U,).
        estimate: to first order, the mean size of the change of the images' cross-entropy, (U,), in nats; see
            `FirstOrder`. None where nothing was screened.
    """

    layer: str
    how: str
    classes: list[str]
    images_per_class: Int64[Tensor, " K"]
    right: Int64[Tensor, " K"]
    probability: Float64[Tensor, " K"]
    lost: Int64[Tensor, "U K"]
    gained: Int64[Tensor, "U K"]
    probability_after: Float64[Tensor, "U K"]
    deviation: Float64[Tensor, " U"]
    flips: Int64[Tensor, "F 5"]
    measured: Bool[Tensor, " U"]
    estimate: Float64[Tensor, " U"] | None

    @property
    def n_images(self) -> int:
        """How many were looked at."""
        return int(self.images_per_class.sum())

    @property
    def accuracy_before(self) -> float:
        """Share of all images that the network gets right as it is."""
        return int(self.right.sum()) / self.n_images

    @property
    def accuracy_after(self) -> Float64[Tensor, " U"]:
        """Share of all images that are right without the unit; NaN where it was not measured."""
        return self._measured((self.right + self.gained - self.lost).sum(1).double() / self.n_images)

    @property
    def class_accuracy_before(self) -> Float64[Tensor, " K"]:
        """Share of each class's images that the network gets right as it is; NaN without images."""
        return self.right.double() / self.images_per_class

    @property
    def class_accuracy_after(self) -> Float64[Tensor, "U K"]:
        """The same without the unit; NaN where it was not measured."""
        return self._measured((self.right + self.gained - self.lost).double() / self.images_per_class)

    @property
    def mean_probability_before(self) -> float:
        """Mean of the true class's probability over all images."""
        return float(self._over_all(self.probability))

    @property
    def mean_probability_after(self) -> Float64[Tensor, " U"]:
        """The same without the unit; NaN where it was not measured."""
        return self._measured(self._over_all(self.probability_after))

    def accuracy(self, of_class: int | None = None) -> Estimate:
        """Accuracy as the network is, with Wilson's interval; of one class, where one is named."""
        return proportion(_of(of_class, self.right), _of(of_class, self.images_per_class))

    def change(self, unit: int, of_class: int | None = None, level: float = 0.95) -> Estimate:
        """Accuracy without the unit less that with it, in [-1, 1], on the same images: see `paired_difference`."""
        self._check(unit)
        counts = (self.right, self.images_per_class, self.lost[unit], self.gained[unit])
        right, n, lost, gained = (_of(of_class, count) for count in counts)
        return paired_difference(right - lost, gained, lost, n - right - gained, level)

    def probability_change(self, unit: int) -> Estimate:
        """Mean change of the true class's probability without the unit, with the interval of its standard error."""
        self._check(unit)
        value = float(self.mean_probability_after[unit]) - self.mean_probability_before
        square = float(self.deviation[unit]) ** 2 + value**2
        return mean(value * self.n_images, square * self.n_images, self.n_images, -1, 1)

    def lost_images(self, unit: int) -> Int64[Tensor, " L"]:
        """The images that were right and are wrong without the unit, by their index in the set."""
        return self._flipped(unit, lost=True)

    def gained_images(self, unit: int) -> Int64[Tensor, " G"]:
        """The images that were wrong and are right without the unit, by their index in the set."""
        return self._flipped(unit, lost=False)

    def table(self) -> pd.DataFrame:
        """A row for each unit: layer, unit, whether it was measured, accuracy after and its change with interval, images
        lost and gained, mean probability after and its change with interval, the estimate, accuracy by class."""
        lost, gained = self.lost.sum(1).tolist(), self.gained.sum(1).tolist()
        after = zip(self.accuracy_after.tolist(), self.mean_probability_after.tolist(), strict=True)
        rows = [
            {"accuracy": accuracy, **_columns("change", self.change(unit)), "lost": lost[unit], "gained": gained[unit]}
            | {"probability": probability, **_columns("probability_change", self.probability_change(unit))}
            for unit, (accuracy, probability) in enumerate(after)
            if self.measured[unit]
        ]
        units = pd.RangeIndex(len(self.measured))
        names = {"layer": self.layer, "unit": units, "measured": self.measured.numpy()}
        figures = pd.DataFrame(rows, units[self.measured.numpy()], dtype="float64").reindex(units)
        rest = {} if self.estimate is None else {"estimate": self.estimate.numpy()}
        by_class = zip(self.classes, self.class_accuracy_after.T.numpy(), strict=True)
        rest |= {f"accuracy of {name}": values for name, values in by_class}
        return pd.concat([pd.DataFrame(names), figures, pd.DataFrame(rest)], axis=1)

    def _over_all(self, class_means: Tensor) -> Tensor:
        return (class_means.nan_to_num() * self.images_per_class).sum(-1) / self.n_images

    def _measured(self, values: Tensor) -> Tensor:
        return values.double().where(self.measured.view(-1, *[1] * (values.ndim - 1)), torch.nan)

    def _flipped(self, unit: int, lost: bool) -> Tensor:
        self._check(unit)
        _, image, target, before, _ = self.flips[self.flips[:, 0] == unit].unbind(1)
        return image[(before == target) == lost]

    def _check(self, unit: int) -> None:
        if not 0 <= unit < len(self.measured):
            raise RequestError(f"unit {unit} is not in layer {self.layer!r}; it has 0 to {len(self.measured) - 1}")
        if not self.measured[unit]:
            raise RequestError(
                f"unit {unit} of layer {self.layer!r} was not measured; ask for it, or with a larger screen"
            )


@dataclass(frozen=True, eq=False)
class PairedAnswers:
    """What a network answers to some images before and after a change, of itself or of the images.

    Attributes:
        classes: their names.
        index: of each image in its set, (N,).
        target: its true class, (N,).
        before, after: the class that is predicted, (N,).
        probability_before, probability_after: of the true class, (N,), in [0, 1].
    """

    classes: list[str]
    index: Int64[Tensor, " N"]
    target: Int64[Tensor, " N"]
    before: Int64[Tensor, " N"]
    after: Int64[Tensor, " N"]
    probability_before: Float64[Tensor, " N"]
    probability_after: Float64[Tensor, " N"]

    @property
    def lost(self) -> Int64[Tensor, " L"]:
        """The images that were right and are wrong now, by their index."""
        return self.index[self._ways()[2]]

    @property
    def gained(self) -> Int64[Tensor, " G"]:
        """The images that were wrong and are right now, by their index."""
        return self.index[self._ways()[1]]

    @property
    def confusion_before(self) -> Int64[Tensor, "K K"]:
        """Images by true class (rows) and predicted class (columns)."""
        return self._confusion(self.before)

    @property
    def confusion_after(self) -> Int64[Tensor, "K K"]:
        """The same after the change."""
        return self._confusion(self.after)

    @property
    def confusion_change(self) -> Int64[Tensor, "K K"]:
        """After less before: negative on the diagonal where a class loses."""
        return self.confusion_after - self.confusion_before

    def accuracy_before(self, of_class: int | None = None) -> Estimate:
        """Share of the images (of one class) that are right, with Wilson's interval; undefined without images."""
        both, _, lost, _ = counts = self._counts(of_class)
        return proportion(both + lost, sum(counts))

    def accuracy_after(self, of_class: int | None = None) -> Estimate:
        """The same after the change."""
        both, gained, *_ = counts = self._counts(of_class)
        return proportion(both + gained, sum(counts))

    def change(self, of_class: int | None = None) -> Estimate:
        """Accuracy after less before, in [-1, 1], on the same images: see `paired_difference`."""
        return paired_difference(*self._counts(of_class))

    def probability_change(self, of_class: int | None = None) -> Estimate:
        """Mean change of the true class's probability, with Student's interval over the images."""
        changes = self.probability_after - self.probability_before
        return mean_of((changes if of_class is None else changes[self.target == of_class]).tolist(), -1, 1)

    def table(self) -> pd.DataFrame:
        """A row for each class and one for all: class, images, accuracy before, after, difference with its interval,
        images lost and gained, mean change of probability with its interval."""
        rows = []
        for name, k in [*((name, k) for k, name in enumerate(self.classes)), (ALL, None)]:
            _, gained, lost, _ = counts = self._counts(k)
            row: dict[str, Any] = {"class": name, "images": sum(counts)}
            row |= {"before": self.accuracy_before(k).value, "after": self.accuracy_after(k).value}
            row |= {**_columns("difference", self.change(k)), "lost": lost, "gained": gained}
            rows.append(row | _columns("probability_change", self.probability_change(k)))
        table = pd.DataFrame(rows)
        return table.astype({name: "float64" for name in table if name not in ("class", "images", "lost", "gained")})

    def _ways(self) -> tuple[Bool[Tensor, " N"], ...]:
        """Which images are right before and after, only after, only before, never."""
        was, now = self.before == self.target, self.after == self.target
        return was & now, now & ~was, was & ~now, ~(was | now)

    def _counts(self, of_class: int | None) -> tuple[int, ...]:
        """How many they are."""
        return tuple(
            int(way[slice(None) if of_class is None else self.target == of_class].sum()) for way in self._ways()
        )

    def _confusion(self, predicted: Tensor) -> Tensor:
        n = len(self.classes)
        return torch.bincount(self.target * n + predicted, minlength=n * n).view(n, n)


@dataclass(frozen=True, eq=False)
class Ablation(PairedAnswers):
    """What a network answers to some images, and what it answers with a chosen set of units ablated.

    Attributes:
        units: layer → those that were ablated.
        how: see `convscope.lenses.ablate`.
    """

    units: dict[str, list[int]]
    how: str


@dataclass(frozen=True, eq=False)
class EditEffect(PairedAnswers):
    """What a network answers to some images, and what it answers to them after edits.

    Attributes:
        edits: see `convscope.edits`.
    """

    edits: list[Any]

    @property
    def flipped(self) -> Int64[Tensor, " F"]:
        """The images whose predicted class is another one now, by their index."""
        return self.index[self.before != self.after]

    def most_changed(self, n: int) -> Int64[Tensor, " n"]:
        """The rows of the n images that change most: first those whose predicted class is another one, each by the size of
        the change of the true class's probability."""
        change = (self.probability_after - self.probability_before).abs()  # at most 1
        return (change + 2 * (self.before != self.after)).argsort(descending=True, stable=True)[:n]


def _of(of_class: int | None, counts: Int64[Tensor, " K"]) -> int:
    """Of one class, or of all together."""
    return int(counts[slice(None) if of_class is None else slice(of_class, of_class + 1)].sum())


def _columns(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
