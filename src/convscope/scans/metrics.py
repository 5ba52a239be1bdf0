"""Scans of a network's answers: predictions, loss, confusion matrix, top-k accuracy and calibration of one head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from convscope.nets import Head, Task
from convscope.scans.exact import ByImage, ExactSum, Summed
from convscope.scans.intervals import UNDEFINED, Estimate, bootstrap, mean, proportion
from convscope.scans.scan import BatchOutputs


class Predictions(ByImage):
    """Keeps every output and target: `index` (N,), `logits` (N, U), and `target.NAME` (N,) for every head, in the order of the
    images."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def update(self, seen: BatchOutputs) -> None:
        targets = {f"target.{head.target}": seen.targets[head.target] for head in self.task.heads}
        self.keep(seen.index, logits=seen.outputs, **targets)


class Loss(Summed):
    """Mean cross-entropy in nats with its interval; of one head, or of the weighted sum of all."""

    adds = ("n", "sum", "squares")

    def __init__(self, heads: tuple[Head, ...]) -> None:
        self.heads = heads
        self.n, self.sum, self.squares = 0, ExactSum(), ExactSum()

    def update(self, seen: BatchOutputs) -> None:
        losses = torch.stack([h.weight * h.losses(seen.outputs, seen.targets[h.target]) for h in self.heads]).sum(0)
        self.n += len(losses)
        self.sum.add(losses)
        self.squares.add(losses.double().square())

    def result(self) -> Estimate:
        return mean(float(self.sum.value), float(self.squares.value), self.n, lowest=0)


class _Share(Summed):
    """A share of images, in some sense right."""

    adds = ("right", "n")
    right, n = 0, 0

    def _add(self, right: Bool[Tensor, "*images"], n: int) -> None:
        self.right, self.n = self.right + int(right.sum()), self.n + n

    def result(self) -> Estimate:
        return proportion(self.right, self.n)


class AllRight(_Share):
    """Share of images that every head gets right."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def update(self, seen: BatchOutputs) -> None:
        self._add(self.task.correct(seen.outputs, seen.targets), len(seen.index))


class Confusion(Summed):
    """The confusion matrix of a head: rows are true classes, columns predicted ones."""

    adds = ("counts",)

    def __init__(self, head: Head) -> None:
        self.head, self.counts = head, torch.zeros(len(head.classes), len(head.classes), dtype=torch.int64)

    def update(self, seen: BatchOutputs) -> None:
        n_classes = len(self.counts)
        cells = seen.targets[self.head.target] * n_classes + self.head.logits(seen.outputs).argmax(1)
        self.counts += torch.bincount(cells, minlength=n_classes**2).view(n_classes, n_classes)

    def result(self) -> Int[Tensor, "K K"]:
        return self.counts.clone()


class TopK(_Share):
    """Share of images whose true class is among the k most probable."""

    def __init__(self, head: Head, k: int = 5) -> None:
        self.head, self.k = head, k

    def update(self, seen: BatchOutputs) -> None:
        most_probable = self.head.logits(seen.outputs).topk(self.k).indices  # N k
        self._add(most_probable == seen.targets[self.head.target][:, None], len(most_probable))


@dataclass(frozen=True)
class Reliability:
    """How well confidence matches accuracy.

    Attributes:
        error: expected calibration error, the mean gap between confidence and accuracy over bins, weighted by images.
        count, accuracy, confidence: of each bin (B,); NaN where it is empty.
    """

    error: Estimate
    count: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    confidence: NDArray[np.float64]


class Calibration(Summed):
    """Expected calibration error over equal bins of the highest probability.

    It keeps three numbers a bin, and merges exactly.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2.
    """

    adds = ("counts", "confidence")

    def __init__(self, head: Head, bins: int = 15) -> None:
        self.head, self.bins = head, bins
        self.counts = torch.zeros(bins, 2, dtype=torch.int64)  # wrong, right
        self.confidence = ExactSum((bins, 2))

    def update(self, seen: BatchOutputs) -> None:
        confidence, predicted = self.head.logits(seen.outputs).softmax(1).max(1)
        right = (predicted == seen.targets[self.head.target]).long()
        place = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1  # bins are (a, b], as in the source
        cells = torch.nn.functional.one_hot(place * 2 + right, 2 * self.bins).view(-1, self.bins, 2)
        self.counts += cells.sum(0)
        self.confidence.add(cells * confidence.view(-1, 1, 1))

    def result(self) -> Reliability:
        counts = self.counts.numpy()
        sums = self.confidence.value.numpy()
        n = counts.sum(1)
        with np.errstate(invalid="ignore"):
            mean_confidence = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
            accuracy, confidence = counts[:, 1] / n, sums.sum(1) / n

        def error(tables: NDArray[np.float64]) -> NDArray[np.float64]:
            gaps = np.abs(tables[..., 1] - (tables * mean_confidence).sum(-1))
            return gaps.sum(-1) / tables.sum((-1, -2))

        return Reliability(bootstrap(counts, error) if n.sum() else UNDEFINED, n, accuracy, confidence)
