"""What a lens explains: which class, or which units of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from convscope.errors import RequestError, UnknownNameError
from convscope.graph import Positions, TracedGraph, check_gradient, check_weights, positions
from convscope.lenses.units import count_units, whole_numbers
from convscope.nets import Task, no_logits, task_over

Classes = int | Sequence[int] | Int[Tensor, " N"] | None


@dataclass(frozen=True, eq=False)
class TaskTarget:
    """A target of a network whose outputs are read by a task: of several heads, or by a sigmoid.

    Attributes:
        task: what the outputs mean.
        classes: one of `task.classes` for all images, or one for each; None for the most probable of a head.
        head: the head that None asks about.
    """

    task: Task
    classes: Classes = None
    head: int = 0

    @property
    def is_default(self) -> bool:
        """Whether it asks about nothing but the most probable class of the first head."""
        return self.classes is None and self.head == 0

    @property
    def in_words(self) -> str:
        """What was asked, for messages."""
        if isinstance(self.classes, int) and 0 <= self.classes < len(self.task.classes):
            return repr(self.task.classes[self.classes])
        return repr(self.task.heads[self.head].target if self.classes is None else self.classes)


Target = Classes | TaskTarget
"""What lenses take as `target`: one class for all images, one for each, or None for the most probable of each.

A class is an index. Without a task (see `TaskTarget`) it is that of a logit; of a network with one logit, which is then
taken for a sigmoid's, 0 or 1.
"""

NamedTarget = Target | str | tuple[str, str] | Sequence[str]
"""What a scope takes as `target`: a `Target`, or a class by its name, such as "cat"; or the names of one for each image.

Of a network of several heads a class is called "angle=45°" or ("angle", "45°"), or "45°" where only one head has it;
"angle" is the most probable class of that head. None is the most probable class of the first head.
"""


def choose_targets(logits: Float[Tensor, "N U"], target: Target) -> Int[Tensor, " N"]:
    """The class to ask about for each image, on the logits' device.

    Args:
        logits: the network's outputs.
        target: see `Target`.
    Raises:
        RequestError: a target is not one of the classes, or there is another number of them than of images.

    Example:
        >>> choose_targets(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), None)
        tensor([1, 0])
    """
    task_target = with_task(target, logits.shape[1])
    task, head, classes = task_target.task, task_target.head, task_target.classes
    if classes is None:
        return task.heads[head].logits(logits).argmax(1) + task.first_class(head)
    n, k = len(logits), len(task.classes)
    indices = whole_numbers(classes)
    if indices is None:
        raise RequestError(f"target: {classes!r} is no class index; expected a whole number, or one for each image")
    if indices.ndim == 1 and len(indices) != n:
        raise RequestError(f"target: {len(indices)} targets for {n} images; give one for all, or one for each")
    outside = indices[(indices < 0) | (indices >= k)].flatten().tolist()
    if outside:
        raise RequestError(f"target: {outside[0]} is not a class of this network; it has 0 to {k - 1}")
    return indices.to(logits.device).expand(n).long()


def with_task(target: Target, n_outputs: int) -> TaskTarget:
    """The target with its task; of a network that came without one, what its number of outputs says.

    Raises:
        RequestError: the task is for another number of outputs.
    """
    task_target = target if isinstance(target, TaskTarget) else TaskTarget(task_over(n_outputs), target)
    if task_target.task.outputs != n_outputs:
        raise RequestError(f"the task is for {task_target.task.outputs} outputs, and the network has {n_outputs}")
    return task_target


def named_target(task: Task, target: NamedTarget) -> TaskTarget:
    """The target that a name or an index stands for.

    Raises:
        UnknownNameError: there is no such class; the message lists those there are.
        RequestError: several heads have a class of that name.

    Example:
        >>> named_target(make_task("softmax", {"class": ("cat", "dog")}), "dog").classes
        1
    """
    if isinstance(target, TaskTarget):
        return target
    if isinstance(target, str):
        heads = [head.target for head in task.heads]
        if target in heads and target not in task.classes:
            return TaskTarget(task, None, heads.index(target))
        return TaskTarget(task, _index_of(task, target))
    if isinstance(target, tuple) and len(target) == 2 and target[0] in [head.target for head in task.heads]:
        return TaskTarget(task, _index_of(task, "=".join(map(str, target))))
    if isinstance(target, Sequence):
        return TaskTarget(task, [_index_of(task, one) if isinstance(one, str) else one for one in target])
    return TaskTarget(task, target)


def _index_of(task: Task, name: str) -> int:
    """The class of that name among those of all heads, with its head's name or without."""
    full = [f"{head.target}={one}" for head in task.heads for one in head.classes]
    own = [one for head in task.heads for one in head.classes]
    for names in (own, full):
        if names.count(name) == 1:
            return names.index(name)
    if name in own:
        choices = ", ".join(full_name for full_name, own_name in zip(full, own, strict=True) if own_name == name)
        raise RequestError(f"target: {name!r} is a class of several heads; write one of {choices}")
    raise UnknownNameError("class", name, task.classes, "one of this network's")


Position = tuple[int, int] | Literal["max"] | None
"""What lenses take as `position`: a row and a column, or "max" for where the unit answers most; None for all."""


@dataclass(frozen=True, eq=False)
class ResolvedTarget:
    """What a lens explains: for each image one number of the result of `operation`, a class's logit or what units answer.

    Of a class that a sigmoid tells from another it is the sigmoid's logit, and for the first of the two its negative.
    """

    operation: str
    target: TaskTarget | None = None
    layer: str | None = None
    unit: int | None = None
    position: Position = None
    map: Positions | None = None
    note: str | None = None

    def of(self, part: slice) -> ResolvedTarget:
        """The same, for some of the images."""
        if self.target is None or not isinstance(self.target.classes, Tensor):
            return self
        return replace(self, target=replace(self.target, classes=self.target.classes[part]))

    def read(self, result: Tensor) -> tuple[Float[Tensor, " N"], dict[str, Any]]:
        """The numbers, through which gradients flow, and what an `Attribution` says of them."""
        return self._of_class(result) if self.layer is None else self._of_units(result)

    def _of_class(self, logits: Tensor) -> tuple[Tensor, dict[str, Any]]:
        assert self.target is not None  # without a layer there is one
        target, task = choose_targets(logits, self.target), self.target.task
        both = (task.scores(logits), task.probabilities(logits))
        score, probability = (values.gather(1, target[:, None])[:, 0] for values in both)
        return score, {"target": target, "probability": probability.detach(), "note": self.note}

    def _of_units(self, result: Tensor) -> tuple[Tensor, dict[str, Any]]:
        fields: dict[str, Any] = {"layer": self.layer, "unit": self.unit, "note": self.note}
        if self.unit is None:
            return result.flatten(1).sum(1), fields
        answers = (self.map.as_map(result) if self.map else result)[:, self.unit]
        if self.position is None:
            return answers.reshape(len(answers), -1).sum(1), fields
        width = answers.shape[-1]
        where = answers.flatten(1).argmax(1) if self.position == "max" else self.position[0] * width + self.position[1]
        index = torch.as_tensor(where, device=answers.device).expand(len(answers))
        fields["position"] = torch.stack([index // width, index % width], dim=1)
        return answers.flatten(1).gather(1, index[:, None])[:, 0], fields


def resolve_target(
    graph: TracedGraph,
    images: Tensor,
    target: Target = None,
    layer: str | None = None,
    unit: int | None = None,
    position: Position = None,
) -> ResolvedTarget:
    """The target, checked before anything is run.

    Args:
        graph: the traced network.
        images: those to be explained.
        target: see `Target`; only without a layer.
        layer: an operation whose result is explained in place of a class.
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
        resolved = _of_a_class(graph, images, target, unit, position)
    else:
        resolved = _of_a_layer(graph, layer, target, unit, position)
    check_gradient(graph, images)
    return replace(resolved, note=graph.note)


def _of_a_layer(graph: TracedGraph, layer: str, target: Target, unit: int | None, position: Position) -> ResolvedTarget:
    if target is not None and not (isinstance(target, TaskTarget) and target.is_default):
        words = target.in_words if isinstance(target, TaskTarget) else repr(target)
        raise RequestError(f"both target {words} and layer {layer!r} are given; ask about a class or about a layer")
    if position is not None and unit is None:
        raise RequestError(f"position {position!r} is given without a unit; give unit= as well")
    where = positions(graph).get(graph.operation(layer).name)
    if unit is not None:
        n_units = count_units(graph.operation(layer), where)
        if not isinstance(unit, Integral) or not 0 <= unit < n_units:
            raise RequestError(f"unit {unit!r} is not in layer {layer!r}; it has units 0 to {n_units - 1}")
    if position is not None and (position != "max" or where is None):
        check_position(layer, position, where)
    return ResolvedTarget(layer, None, layer, unit, position, where)


def _of_a_class(
    graph: TracedGraph, images: Tensor, target: Target, unit: int | None, position: Position
) -> ResolvedTarget:
    if unit is not None or position is not None:
        raise RequestError("a unit or a position is given without its layer; give layer= as well")
    output = graph.outputs[0]
    shape = graph.operation(output).output_shape
    if len(shape) != 1:
        raise no_logits(shape)
    task_target = with_task(target, shape[0])
    if task_target.classes is None:
        return ResolvedTarget(output, task_target)
    with torch.inference_mode(False):  # a gradient passes no tensor of inference mode
        chosen = choose_targets(torch.zeros((), device=images.device).expand(len(images), *shape), task_target).clone()
    return ResolvedTarget(output, replace(task_target, classes=chosen))


def check_position(layer: str, position: Any, where: Positions | None) -> None:
    """Refuses what is no row and column of a layer's map."""
    if where is None:
        raise RequestError(f"position {position!r} is given, and layer {layer!r} has no positions; leave it out")
    rows, columns = where.size
    is_pair = isinstance(position, tuple | list) and len(position) == 2
    is_place = is_pair and all(isinstance(n, Integral) for n in position)
    if not is_place or not (0 <= position[0] < rows and 0 <= position[1] < columns):
        raise RequestError(
            f"position {position!r} is not on the map of {layer!r}; it has {rows} rows and {columns} columns"
        )
