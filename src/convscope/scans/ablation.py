"""What switching off a chosen set of units, together, does to a network's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import pandas as pd
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from convscope.scans.answered import Answering, head_of
from convscope.scans.cached import cached_scan
from convscope.scans.intervals import Estimate, mean_of, paired_difference, proportion
from convscope.scans.scan import Images, PassSettings, Subject, scan, sizes

ALL = "all"
"""In tables: the row of all classes together."""


@dataclass(frozen=True, eq=False)
class Ablation:
    """What a network answers to some images, and what it answers with some units switched off.

    Attributes:
        units: layer → those that were switched off.
        how: see `convscope.lenses.ablate`.
        classes: their names.
        index: of each image in its set, (N,).
        target: its true class, (N,).
        before, after: the class that is predicted, (N,).
        probability_before, probability_after: of the true class, (N,), in [0, 1].
    """

    units: dict[str, list[int]]
    how: str
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
        return self.index[self._lost]

    @property
    def gained(self) -> Int64[Tensor, " G"]:
        """The images that were wrong and are right now, by their index."""
        return self.index[self._gained]

    @property
    def confusion_before(self) -> Int64[Tensor, "K K"]:
        """Images by true class (rows) and predicted class (columns)."""
        return self._confusion(self.before)

    @property
    def confusion_after(self) -> Int64[Tensor, "K K"]:
        """The same with the units switched off."""
        return self._confusion(self.after)

    @property
    def confusion_change(self) -> Int64[Tensor, "K K"]:
        """After less before: negative on the diagonal where a class loses."""
        return self.confusion_after - self.confusion_before

    def accuracy_before(self, of_class: int | None = None) -> Estimate:
        """Share of the images (of one class) that are right, with Wilson's interval; undefined without images."""
        return self._accuracy(self.before, of_class)

    def accuracy_after(self, of_class: int | None = None) -> Estimate:
        """The same with the units switched off."""
        return self._accuracy(self.after, of_class)

    def change(self, of_class: int | None = None) -> Estimate:
        """Accuracy after less before, in [-1, 1], on the same images: see `paired_difference`."""
        among = self._among(of_class)
        before, after = self._right(self.before), self._right(self.after)
        ways = (after & before, self._gained, self._lost, ~after & ~before)
        return paired_difference(*(int((way & among).sum()) for way in ways))

    def probability_change(self, of_class: int | None = None) -> Estimate:
        """Mean change of the true class's probability, with Student's interval over the images."""
        changes = (self.probability_after - self.probability_before)[self._among(of_class)]
        return mean_of(changes.tolist(), -1, 1)

    def table(self) -> pd.DataFrame:
        """A row for each class and one for all: class, images, accuracy before, after, difference with its interval,
        images lost and gained, mean change of probability with its interval."""
        rows = []
        for name, k in [*((name, k) for k, name in enumerate(self.classes)), (ALL, None)]:
            among = self._among(k)
            row: dict[str, Any] = {"class": name, "images": int(among.sum())}
            row |= {"before": self.accuracy_before(k).value, "after": self.accuracy_after(k).value}
            row |= _columns("difference", self.change(k))
            row |= {"lost": int((self._lost & among).sum()), "gained": int((self._gained & among).sum())}
            rows.append(row | _columns("probability_change", self.probability_change(k)))
        return pd.DataFrame(rows).astype(dict.fromkeys(_FIGURES, "float64"))

    def _right(self, predicted: Tensor) -> Bool[Tensor, " N"]:
        return predicted == self.target

    def _among(self, of_class: int | None) -> Bool[Tensor, " N"]:
        return torch.ones_like(self.target, dtype=torch.bool) if of_class is None else self.target == of_class

    @property
    def _lost(self) -> Bool[Tensor, " N"]:
        return self._right(self.before) & ~self._right(self.after)

    @property
    def _gained(self) -> Bool[Tensor, " N"]:
        return ~self._right(self.before) & self._right(self.after)

    def _confusion(self, predicted: Tensor) -> Tensor:
        n = len(self.classes)
        return torch.bincount(self.target * n + predicted, minlength=n * n).view(n, n)

    def _accuracy(self, predicted: Tensor, of_class: int | None) -> Estimate:
        among = self._among(of_class)
        return proportion(int((self._right(predicted) & among).sum()), int(among.sum()))


_FIGURES = [f"{name}{end}" for name in ("difference", "probability_change") for end in ("", "_low", "_high")]
_FIGURES += ["before", "after"]


def _columns(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def ablation(
    scope: Subject,
    edited: Subject,
    images: Images,
    units: Mapping[str, list[int]],
    how: str,
    **settings: Unpack[PassSettings],
) -> Ablation:
    """What a network answers to images, beside what an edited copy of it answers.

    Two passes over the same batches. In the folder of a run the result is kept, and found again.

    Args:
        scope: the network, a `Scope`.
        edited: the copy; see `convscope.lenses.ablate`.
        images: a set with the classes that the network tells apart. For a network of several heads the first counts.
        units: layer → the units that are switched off in the copy, and `how`: said in the result.
        settings: batch_size, max_memory, workers, progress; see `scan`.

    Returns:
        An `Ablation`: each image's answers, and from them accuracies, differences with paired intervals, confusion
        matrices, and the images that flip.

    Raises:
        RequestError: there are no images, or they came without classes or with others.
        FailedError: a network gives NaN or infinity.

    Source: Morcos et al. 2018, arXiv 1803.06959; the interval: Newcombe 1998, see `paired_difference`.

    Example:
        >>> found = scope.ablation({"conv1": [3, 5]}, data.test)
        >>> found.change(), found.change(of_class=0), found.lost, found.confusion_change
    """

    def make() -> dict[str, Ablation]:
        head = head_of(scope, images)
        [first] = scan(scope, images, [Answering(head)], **settings)
        [second] = scan(edited, images, [Answering(head)], **settings)
        found = Ablation(
            {layer: list(chosen) for layer, chosen in units.items()},
            how,
            list(head.classes),
            first["index"],
            first["target"],
            before=first["predicted"],
            after=second["predicted"],
            probability_before=first["probability"],
            probability_after=second["probability"],
        )
        return {"ablation": found}

    asked = {"units": [[layer, list(chosen)] for layer, chosen in units.items()], "how": how}
    return cached_scan(scope, "ablation", images, asked | sizes(settings), Ablation, make)["ablation"]
