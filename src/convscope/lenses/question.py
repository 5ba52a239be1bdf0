"""What a lens explains: for each image one number, a class's logit or what units of a layer answer.

Of a class that a sigmoid tells from another it is the sigmoid's logit, and for the first of the two its negative.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import Positions, TracedGraph, check_gradient, check_weights, positions
from convscope.lenses.targets import Target, TaskTarget, choose_targets, with_task

Position = tuple[int, int] | Literal["max"] | None
"""What lenses take as `position`: a row and a column, or "max" for where the unit answers most; None for all."""


@dataclass(frozen=True, eq=False)
class Question:
    """One number for each image, read off the result of the operation `asked`."""

    asked: str
    target: TaskTarget | None = None
    layer: str | None = None
    unit: int | None = None
    position: Position = None
    map: Positions | None = None
    note: str | None = None

    def of(self, part: slice) -> Question:
        """The same question, for some of the images."""
        if self.target is None or not isinstance(self.target.classes, Tensor):
            return self
        return replace(self, target=replace(self.target, classes=self.target.classes[part]))

    def answer(self, result: Tensor) -> tuple[Float[Tensor, " N"], dict[str, Any]]:
        """The numbers, through which gradients flow, and what an `Attribution` says of them."""
        return self._of_class(result) if self.layer is None else self._of_units(result)

    def _of_class(self, logits: Tensor) -> tuple[Tensor, dict[str, Any]]:
        assert self.target is not None  # a question without a layer has one
        target, task = choose_targets(logits, self.target), self.target.task
        both = (task.scores(logits), task.probabilities(logits))
        score, probability = (values.gather(1, target[:, None])[:, 0] for values in both)
        return score, {"target": target, "probability": probability.detach(), "note": self.note}

    def _of_units(self, result: Tensor) -> tuple[Tensor, dict[str, Any]]:
        said: dict[str, Any] = {"layer": self.layer, "unit": self.unit, "note": self.note}
        if self.unit is None:
            return result.flatten(1).sum(1), said
        answers = (self.map.as_map(result) if self.map else result)[:, self.unit]
        if self.position is None:
            return answers.reshape(len(answers), -1).sum(1), said
        width = answers.shape[-1]
        where = answers.flatten(1).argmax(1) if self.position == "max" else self.position[0] * width + self.position[1]
        index = torch.as_tensor(where, device=answers.device).expand(len(answers))
        said["position"] = torch.stack([index // width, index % width], dim=1)
        return answers.flatten(1).gather(1, index[:, None])[:, 0], said


def ask(
    graph: TracedGraph,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    unit: int | None = None,
    position: Position = None,
) -> Question:
    """The question, checked before anything is run.

    Args:
        graph: the traced network.
        images: those that will be asked about.
        target: see `Target`; only without a layer.
        layer: an operation whose result is asked about in place of a class.
        unit: one of the layer's units; None for all of them together, by their sum.
        position: see `Position`; only with a unit of a map. None for all positions together, by their sum.

    Raises:
        UnknownNameError: there is no such layer; the message lists those there are.
        RequestError: there are no images, or of another shape than those traced; a target, unit or position is
            out of range, or does not go with the rest; the network's output is no row of logits.
        NetworkError: the graph's gradients are not the network's own; see `convscope.graph.check_gradient`.
        FailedError: weights of the network are NaN or infinite.
    """
    graph.check(images)
    if not len(images):
        raise RequestError("there are no images to look at; give one at least")
    check_weights(graph.net)
    if layer is None:
        question = _ask_class(graph, images, target, unit, position)
    else:
        question = _ask_units(graph, layer, target, unit, position)
    check_gradient(graph, images)
    return replace(question, note=graph.note)


def _ask_units(graph: TracedGraph, layer: str, target: Target, unit: int | None, position: Position) -> Question:
    if target is not None and not (isinstance(target, TaskTarget) and target.is_default):
        given = target.in_words if isinstance(target, TaskTarget) else repr(target)
        raise RequestError(f"both target {given} and layer {layer!r} are given; ask about a class or about a layer")
    if position is not None and unit is None:
        raise RequestError(f"position {position!r} is given without a unit; give unit= as well")
    where = positions(graph).get(graph.operation(layer).name)
    if unit is not None:
        _check_unit(graph, layer, unit, where)
    if position is not None:
        _check_position(layer, position, where)
    return Question(layer, None, layer, unit, position, where)


def _ask_class(graph: TracedGraph, images: Tensor, target: Target, unit: int | None, position: Position) -> Question:
    if unit is not None or position is not None:
        raise RequestError("a unit or a position is given without its layer; give layer= as well")
    output = graph.outputs[0]
    shape = graph.operation(output).output_shape
    if len(shape) != 1:
        given = "×".join(map(str, shape))
        raise RequestError(f"this network answers {given} numbers an image, not a row of logits; ask about a layer")
    asked = with_task(target, shape[0])
    if asked.classes is None:
        return Question(output, asked)
    chosen = choose_targets(images.new_zeros(()).expand(len(images), *shape), asked)
    return Question(output, replace(asked, classes=chosen))


def _check_unit(graph: TracedGraph, layer: str, unit: int, where: Positions | None) -> None:
    shape = graph.operation(layer).output_shape
    if where is None and len(shape) != 1:
        given = "×".join(map(str, shape))
        raise RequestError(f"layer {layer!r} gives {given} numbers an image, and which are a unit's is not known")
    n_units = where.n_units(shape) if where else shape[0]
    if not isinstance(unit, Integral) or not 0 <= unit < n_units:
        raise RequestError(f"unit {unit!r} is not in layer {layer!r}; it has units 0 to {n_units - 1}")


def is_place(position: object) -> TypeGuard[tuple[int, int]]:
    """Whether it is a row and a column."""
    return (
        isinstance(position, tuple | list) and len(position) == 2 and all(isinstance(one, Integral) for one in position)
    )


def _check_position(layer: str, position: tuple[int, int] | str, where: Positions | None) -> None:
    if where is None:
        raise RequestError(f"position {position!r} is given, and layer {layer!r} has no positions; leave it out")
    if position == "max":
        return
    rows, columns = where.size
    if not is_place(position) or not (0 <= position[0] < rows and 0 <= position[1] < columns):
        raise RequestError(
            f"position {position!r} is not on the map of {layer!r}; it has {rows} rows and {columns} columns"
        )
