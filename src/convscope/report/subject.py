"""What a report is about: a run with its data and predictions, gathered once for all parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from convscope.compute import Entry, cached
from convscope.data import DataBundle, ImageSet
from convscope.draw import Picture, enlarge_to, picture, shrink_to
from convscope.graph import Anatomy
from convscope.nets import Head
from convscope.report.budget import MINUTES, PER_VALUE
from convscope.report.page import Photo
from convscope.runs import ANATOMY, Run
from convscope.scans import digest_of_scope
from convscope.scope import Scope


@dataclass(frozen=True)
class HeadPredictions:
    """What the network answered to one head's question about every test image."""

    head: Head
    true: Int[Tensor, " N"]
    predicted: Int[Tensor, " N"]
    confidence: Float[Tensor, " N"]

    @property
    def wrong(self) -> Bool[Tensor, " N"]:
        return self.true != self.predicted


class ReportedRun:
    """A trained and evaluated run, and what its report needs of it."""

    def __init__(self, run: Run, data: DataBundle, minutes: float = MINUTES) -> None:
        self.run, self.data, self.minutes = run, data, minutes
        self.metrics: dict[str, Any] = run.metrics
        self.scope = Scope(run)

    @cached_property
    def answers(self) -> list[HeadPredictions]:
        """One for each head."""
        stored, answers = self.run.predictions, []
        for head in self.run.task.heads:
            confidence, predicted = head.logits(stored["logits"]).softmax(1).max(1)
            answers.append(HeadPredictions(head, stored[f"target.{head.target}"], predicted, confidence))
        return answers

    @cached_property
    def anatomy(self) -> Anatomy:
        """The network's table, cached in the run folder because tracing takes seconds."""
        return cached(
            self.run.path / ANATOMY,
            {"version": 1, "layout": digest_of_scope(self.scope)},
            self.scope.anatomy,
            lambda table: Entry(table.to_json()),
            lambda entry: Anatomy.from_json(dict(entry.values)),
        )

    @cached_property
    def work(self) -> float:
        """What a pass of the network over an image takes, in multiply-adds; see `Fit`."""
        return sum(self._work_by_layer.values())

    def work_up_to(self, layer: str | None) -> float:
        """The same, of the operations that a layer needs; None stands for the network's first output."""
        graph = self.scope.graph
        return sum(self._work_by_layer[op.name] for op in graph.needed_for(layer or graph.outputs[0]))

    @cached_property
    def _work_by_layer(self) -> dict[str, float]:
        layers = self.anatomy.layers
        return {layer.name: layer.multiply_adds + PER_VALUE * prod(layer.output_shape) for layer in layers}

    def class_names(self, head: int) -> tuple[str, ...]:
        """Names of a head's classes, as "angle=45°" where there are several heads."""
        task = self.run.task
        first = task.first_class(head)
        return task.classes[first : first + len(task.heads[head].classes)]

    def thumbnail(self, row: int) -> Picture | Photo:
        """A test image; see `thumbnail`."""
        return thumbnail(self.data.test, row)

    def chosen_images(self, n: int = 3, head: int = 0) -> list[int]:
        """Test images to look inside with: right ones of different classes, the first of each, spread over a head's classes."""
        answers = self.answers[head]
        classes = spread(len(answers.head.classes), n)
        rows = [torch.nonzero((answers.true == k) & ~answers.wrong).flatten()[:1].tolist() for k in classes]
        return [row for of_class in rows for row in of_class] or [0]


def spread(n: int, most: int) -> list[int]:
    """At most `most` of range(n), evenly, with the first and the last."""
    return torch.linspace(0, n - 1, min(n, most)).round().long().unique().tolist() if n else []


LARGE_PX = 160
"""Twice the side at which a page shows an image beside others: what is larger is made smaller, and a JPEG."""


def thumbnail(images: ImageSet, row: int) -> Picture | Photo:
    """An image, enlarged by repetition to at least 64 px, or made smaller to `LARGE_PX`."""
    whole = picture(images[row][0])
    return enlarge_to(whole, 64) if max(whole.shape[:2]) <= LARGE_PX else Photo(shrink_to(whole, LARGE_PX))
