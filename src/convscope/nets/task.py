"""What a network's outputs mean: the task.

A task is a row of heads. Each head reads its own slice of the logits and its own target of the data: a softmax over K
classes, or one sigmoid for two classes. An ordinary classifier has one softmax head; report D's network has four heads.
The network itself always gives one tensor of logits (N, outputs), so that every lens and scan works on every task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import SettingError, UnknownNameError

HeadKind = Literal["softmax", "sigmoid"]
TaskSpec = HeadKind | dict[str, HeadKind]


@dataclass(frozen=True)
class Head:
    """One question that the network answers.

    Attributes:
        target: the data's target that holds the answers ("class" for an ordinary classifier).
        kind: "softmax" (one output a class) or "sigmoid" (one output, the logit of the second class).
        classes: names of the answers.
        start: first of the head's outputs.
        weight: of this head's loss in the sum.
    """

    target: str
    kind: HeadKind
    classes: tuple[str, ...]
    start: int = 0
    weight: float = 1.0

    @property
    def width(self) -> int:
        """Number of the head's outputs."""
        return len(self.classes) if self.kind == "softmax" else 1

    def logits(self, outputs: Float[Tensor, "N U"]) -> Float[Tensor, "N K"]:
        """The head's logits, one a class; a sigmoid's first class has logit 0."""
        own = outputs[:, self.start : self.start + self.width]
        return own if self.kind == "softmax" else torch.cat([torch.zeros_like(own), own], 1)

    def losses(
        self, outputs: Float[Tensor, "N U"], targets: Int[Tensor, " N"], label_smoothing: float = 0.0
    ) -> Float[Tensor, " N"]:
        """Cross-entropy of each image in nats (for a sigmoid the binary one, which is the same thing)."""
        return F.cross_entropy(self.logits(outputs), targets, reduction="none", label_smoothing=label_smoothing)


@dataclass(frozen=True)
class Task:
    """A row of heads over one tensor of logits."""

    heads: tuple[Head, ...]

    @property
    def outputs(self) -> int:
        """Number of outputs that the network needs."""
        return sum(head.width for head in self.heads)

    def loss(
        self, outputs: Float[Tensor, "N U"], targets: Mapping[str, Tensor], label_smoothing: float = 0.0
    ) -> Float[Tensor, ""]:
        """The training loss: the heads' mean cross-entropies, summed by weight."""
        return sum(
            (h.weight * h.losses(outputs, targets[h.target], label_smoothing).mean() for h in self.heads),
            start=outputs.new_zeros(()),
        )

    def correct(self, outputs: Float[Tensor, "N U"], targets: Mapping[str, Tensor]) -> Bool[Tensor, " N"]:
        """Which images every head gets right."""
        right = [head.logits(outputs).argmax(1) == targets[head.target] for head in self.heads]
        return torch.stack(right).all(0)


def make_task(spec: TaskSpec, classes: Mapping[str, tuple[str, ...]]) -> Task:
    """The task that a spec names, over a data set's targets.

    Args:
        spec: "softmax" or "sigmoid" for the target "class"; or a mapping from targets to kinds, in order.
        classes: the names of each target's classes.
    Raises:
        UnknownNameError: a target that the data does not have.
        SettingError: a sigmoid over more or fewer than two classes.

    Example:
        >>> classes = {"colour": ("red", "blue"), "angle": ("0°", "45°", "90°")}
        >>> make_task({"colour": "sigmoid", "angle": "softmax"}, classes).outputs
        4
    """
    kinds = spec if isinstance(spec, Mapping) else {"class": spec}
    heads: list[Head] = []
    for target, kind in kinds.items():
        if target not in classes:
            raise UnknownNameError("target", target, classes, "one of the data's")
        if len(classes[target]) < 2:
            raise SettingError(
                f"task: {target!r} has the one class {classes[target][0]!r}; a classifier needs two or more"
            )
        if kind == "sigmoid" and len(classes[target]) != 2:
            raise SettingError(
                f"task: a sigmoid tells 2 classes apart; {target!r} has {len(classes[target])}: use softmax"
            )
        start = heads[-1].start + heads[-1].width if heads else 0
        heads.append(Head(target, kind, classes[target], start))
    return Task(tuple(heads))
