"""What a network's outputs mean: the task.

A task is a row of heads. Each head reads its own slice of the logits and its own target of the data: a softmax over K
classes, or one sigmoid for two classes. An ordinary classifier has one softmax head; report D's network has four heads.
The network itself always gives one tensor of logits (N, outputs), so that every lens and scan works on every task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)
from torch import Tensor
from torch.nn import functional as F

from convscope.base.settings import Settings
from convscope.errors import RequestError, SettingError, UnknownNameError

HeadKind = Literal["softmax", "sigmoid"]


class HeadSpec(Settings):
    """How one head answers, and what it counts. The bare word "softmax" or "sigmoid" is short for a kind of weight 1.

    Attributes:
        kind: "softmax" (one output a class) or "sigmoid" (one output for two classes).
        weight: of its loss in the sum over the heads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: HeadKind = "softmax"
    weight: float = Field(1.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        if not isinstance(value, str | Mapping | HeadSpec):
            raise ValueError("expected softmax or sigmoid, or both settings, such as {kind: softmax, weight: 2}")
        return {"kind": value} if isinstance(value, str) else value

    @model_serializer
    def plain(self) -> str | dict[str, Any]:
        """As short as it can be written."""
        return self.kind if self.weight == 1 else {"kind": self.kind, "weight": self.weight}


TaskSpec = Annotated[
    Annotated[HeadKind, Tag("literal[kind]")] | Annotated[dict[str, HeadSpec], Tag("dict[heads]")],
    Discriminator(lambda value: "dict[heads]" if isinstance(value, Mapping) else "literal[kind]"),
]
"""One head over the target "class"; or target → head, in the order of their outputs."""


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

    def logits(self, outputs: Float[Tensor, "*N U"]) -> Float[Tensor, "*N K"]:
        """The head's logits, one a class; a sigmoid's first class has logit 0."""
        own = outputs[..., self.start : self.start + self.width]
        return own if self.kind == "softmax" else torch.cat([torch.zeros_like(own), own], -1)

    def scores(self, outputs: Float[Tensor, "*N U"]) -> Float[Tensor, "*N K"]:
        """What speaks for each class: a softmax's logits; of a sigmoid its logit, and for the first class the negative."""
        own = outputs[..., self.start : self.start + self.width]
        return own if self.kind == "softmax" else torch.cat([-own, own], -1)

    def probabilities(self, outputs: Float[Tensor, "*N U"]) -> Float[Tensor, "*N K"]:
        """Of each class; they sum to 1."""
        return self.logits(outputs).softmax(-1) if self.kind == "softmax" else self.scores(outputs).sigmoid()

    def losses(
        self, outputs: Float[Tensor, "N U"], targets: Int[Tensor, " N"], label_smoothing: float = 0.0
    ) -> Float[Tensor, " N"]:
        """Cross-entropy of each image in nats (for a sigmoid the binary one, which is the same thing)."""
        return F.cross_entropy(self.logits(outputs), targets, reduction="none", label_smoothing=label_smoothing)

    def mean_loss(
        self,
        outputs: Float[Tensor, "N U"],
        targets: Int[Tensor, " N"],
        label_smoothing: float = 0.0,
        class_weights: Float[Tensor, " K"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean of `losses`; with a weight w of each class that of all images by the w of their class, Σ w·loss / Σ w."""
        if class_weights is None:
            return self.losses(outputs, targets, label_smoothing).mean()
        return F.cross_entropy(self.logits(outputs), targets, class_weights, label_smoothing=label_smoothing)


@dataclass(frozen=True)
class Task:
    """A row of heads over one tensor of logits."""

    heads: tuple[Head, ...]

    @property
    def outputs(self) -> int:
        """Number of outputs that the network needs."""
        return sum(head.width for head in self.heads)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes of all heads, one after the other; of several heads as "colour=red"."""
        if len(self.heads) == 1:
            return self.heads[0].classes
        return tuple(f"{head.target}={name}" for head in self.heads for name in head.classes)

    def first_class(self, head: int) -> int:
        """Where a head's classes begin among `classes`."""
        return sum(len(before.classes) for before in self.heads[:head])

    def head_of(self, k: int) -> int:
        """The head that has a class."""
        return max(n for n in range(len(self.heads)) if self.first_class(n) <= k)

    @cached_property
    def _spoken_by(self) -> list[tuple[int, int]]:
        """For each class the output that speaks for it, and its sign."""
        outputs: list[tuple[int, int]] = []
        for head in self.heads:
            if head.kind == "sigmoid":
                outputs += [(head.start, -1), (head.start, 1)]
            else:
                outputs += [(head.start + k, 1) for k in range(head.width)]
        return outputs

    def output_of(self, k: int) -> tuple[int, int]:
        """The output that speaks for a class, and its sign: −1 for the first class of a sigmoid."""
        return self._spoken_by[k]

    def output_name(self, output: int) -> str:
        """The class that an output speaks for."""
        return self.classes[self._spoken_by.index((output, 1))]

    def scores(self, outputs: Float[Tensor, "*N U"]) -> Float[Tensor, "*N K"]:
        """What speaks for each of `classes`, see Head.scores."""
        return torch.cat([head.scores(outputs) for head in self.heads], -1)

    def probabilities(self, outputs: Float[Tensor, "*N U"]) -> Float[Tensor, "*N K"]:
        """Of each of `classes`; those of each head sum to 1."""
        return torch.cat([head.probabilities(outputs) for head in self.heads], -1)

    def loss(
        self,
        outputs: Float[Tensor, "N U"],
        targets: Mapping[str, Tensor],
        label_smoothing: float = 0.0,
        class_weights: Mapping[str, Tensor] | None = None,
        batch: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, ""]:
        """The training loss: the heads' mean cross-entropies, summed by weight.

        Args:
            outputs: of the network.
            targets: of each image, by name.
            label_smoothing: share of the target spread over all classes.
            class_weights: target → weight of each class (K,), see Head.mean_loss.
            batch: targets of the whole batch, of which these images are a part: the losses of all its parts add up to its own.
        """
        total = outputs.new_zeros(())
        for head in self.heads:
            own, weights = targets[head.target], (class_weights or {}).get(head.target)
            loss = head.mean_loss(outputs, own, label_smoothing, weights)
            if batch is not None:
                counts = outputs.new_ones(len(head.classes)) if weights is None else weights
                loss = loss * (counts[own].sum() / counts[batch[head.target]].sum())
            total = total + head.weight * loss
        return total

    def correct(self, outputs: Float[Tensor, "N U"], targets: Mapping[str, Tensor]) -> Bool[Tensor, " N"]:
        """Which images every head gets right."""
        right = [head.logits(outputs).argmax(1) == targets[head.target] for head in self.heads]
        return torch.stack(right).all(0)


def no_logits(shape: Sequence[int]) -> RequestError:
    """Why a network whose answer to an image has this shape is no classifier, and what makes it one.

    Example:
        >>> str(no_logits((5, 1, 1)))
        'this network answers 5×1×1 numbers an image, not a row of logits: flatten its answer'
    """
    if not shape:
        return RequestError("this network answers one number an image, without an axis of classes: return shape (N, 1)")
    advice = "flatten its answer" if prod(shape) == shape[0] else "use a classifier, or ask about a layer"
    return RequestError(
        f"this network answers {'×'.join(map(str, shape))} numbers an image, not a row of logits: {advice}"
    )


def task_over(n_outputs: int, classes: Sequence[str] = ()) -> Task:
    """The task of a classifier of which nothing is known but its outputs: one softmax, or of a single output a sigmoid.

    Args:
        n_outputs: of the network.
        classes: their names as far as they are known; the others are called "class 3".

    Example:
        >>> task_over(1, ["cat", "dog"]).heads[0].kind
        'sigmoid'
    """
    n = max(2, n_outputs)
    names = tuple(classes[k] if k < len(classes) else f"class {k}" for k in range(n))
    return Task((Head("class", "sigmoid" if n_outputs == 1 else "softmax", names),))


def make_task(spec: TaskSpec | Mapping[str, Any], classes: Mapping[str, tuple[str, ...]]) -> Task:
    """The task that a spec names, over a data set's targets.

    Args:
        spec: "softmax" or "sigmoid" for the target "class"; or a mapping from targets to heads, in order: to a kind,
            or {"kind": "softmax", "weight": 2}.
        classes: the names of each target's classes.
    Raises:
        UnknownNameError: a target that the data does not have.
        SettingError: a sigmoid over more or fewer than two classes.

    Example:
        >>> classes = {"colour": ("red", "blue"), "angle": ("0°", "45°", "90°")}
        >>> make_task({"colour": "sigmoid", "angle": "softmax"}, classes).outputs
        4
    """
    specs = spec if isinstance(spec, Mapping) else {"class": spec}
    if not specs:
        raise SettingError("task: there is no head; write for example 'task: softmax', or a target with its kind")
    heads: list[Head] = []
    for target, value in specs.items():
        head_spec = _head_spec(target, value)
        kind = head_spec.kind
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
        heads.append(Head(target, kind, classes[target], start, head_spec.weight))
    return Task(tuple(heads))


def _head_spec(target: str, value: Any) -> HeadSpec:
    try:
        return HeadSpec.model_validate(value)
    except ValidationError:
        raise SettingError(
            f"task.{target}: {value!r}; expected softmax or sigmoid, or both settings, such as "
            "{kind: softmax, weight: 2}, the weight above 0"
        ) from None
