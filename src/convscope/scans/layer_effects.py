"""What switching off each unit of a layer does, one at a time: the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from convscope.errors import RequestError
from convscope.scans.intervals import Estimate, mean, paired_difference, proportion


@dataclass(frozen=True, eq=False)
class LayerEffects:
    """The effect of switching off each unit of a layer, one at a time, on the answers to the same images.

    Rows of units that were not measured, because they were not asked for or a first-order estimate left them out, hold
    zeros and NaN; `measured` tells them apart. Differences are after less before: negative where the unit is of use.

    Attributes:
        layer: whose units were switched off.
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
        chosen = slice(None) if of_class is None else slice(of_class, of_class + 1)
        return proportion(int(self.right[chosen].sum()), int(self.images_per_class[chosen].sum()))

    def change(self, unit: int, of_class: int | None = None) -> Estimate:
        """Accuracy without the unit less that with it, in [-1, 1], on the same images: see `paired_difference`.

        Raises:
            RequestError: there is no such unit, or it was not measured.
        """
        self._check(unit)
        chosen = slice(None) if of_class is None else slice(of_class, of_class + 1)
        counts = (self.right, self.images_per_class, self.lost[unit], self.gained[unit])
        right, n, lost, gained = (int(count[chosen].sum()) for count in counts)
        return paired_difference(right - lost, gained, lost, n - right - gained)

    def probability_change(self, unit: int) -> Estimate:
        """Mean change of the true class's probability without the unit, with the interval of its standard error.

        Raises:
            RequestError: there is no such unit, or it was not measured.
        """
        self._check(unit)
        value = float(self.mean_probability_after[unit]) - self.mean_probability_before
        square = float(self.deviation[unit]) ** 2 + value**2
        return mean(value * self.n_images, square * self.n_images, self.n_images)

    def lost_images(self, unit: int) -> Int64[Tensor, " L"]:
        """The images that were right and are wrong without the unit, by their index in the set.

        Raises:
            RequestError: there is no such unit, or it was not measured.
        """
        return self._flipped(unit, lost=True)

    def gained_images(self, unit: int) -> Int64[Tensor, " G"]:
        """The images that were wrong and are right without the unit, by their index in the set.

        Raises:
            RequestError: there is no such unit, or it was not measured.
        """
        return self._flipped(unit, lost=False)

    def table(self) -> pd.DataFrame:
        """A row for each unit: layer, unit, accuracy after and its change with interval, images lost and gained, mean
        probability after and its change with interval, whether it was measured, the estimate, accuracy by class."""
        rows = [self._row(unit) for unit in range(len(self.measured))]
        table = pd.DataFrame(rows, columns=_COLUMNS).astype(dict.fromkeys(_COLUMNS, "float64"))
        table.insert(0, "layer", self.layer)
        table.insert(1, "unit", range(len(rows)))
        table.insert(2, "measured", self.measured.numpy())
        if self.estimate is not None:
            table["estimate"] = self.estimate.numpy()
        by_class = zip(self.classes, self.class_accuracy_after.T.numpy(), strict=True)
        of_classes = pd.DataFrame({f"accuracy of {name}": values for name, values in by_class})
        return pd.concat([table, of_classes], axis=1)

    def _row(self, unit: int) -> list[Any]:
        if not self.measured[unit]:
            return [None] * len(_COLUMNS)
        change, moved = self.change(unit), self.probability_change(unit)
        accuracy, probability = float(self.accuracy_after[unit]), float(self.mean_probability_after[unit])
        return [
            *(accuracy, change.value, change.low, change.high),
            *(int(self.lost[unit].sum()), int(self.gained[unit].sum())),
            *(probability, moved.value, moved.low, moved.high),
        ]

    def _over_all(self, of_classes: Tensor) -> Tensor:
        return (of_classes.nan_to_num() * self.images_per_class).sum(-1) / self.n_images

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


_COLUMNS = [
    *("accuracy", "change", "change_low", "change_high", "lost", "gained"),
    *("probability", "probability_change", "probability_change_low", "probability_change_high"),
]
