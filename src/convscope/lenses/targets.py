"""Which class a lens asks about, for each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from convscope.errors import RequestError, UnknownNameError
from convscope.nets import Task, task_over

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


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


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
    asked = with_task(target, logits.shape[1])
    if asked.classes is None:
        return asked.task.heads[asked.head].logits(logits).argmax(1) + asked.task.first_class(asked.head)
    n, k, classes = len(logits), len(asked.task.classes), asked.classes
    try:
        given = torch.as_tensor(classes, device=logits.device)
    except (TypeError, ValueError, RuntimeError):  # None among numbers, a mapping, lists of several lengths
        raise RequestError(
            f"target: {classes!r} is no class index; expected a whole number, or one for each image"
        ) from None
    if given.dtype not in _WHOLE or given.ndim > 1:
        raise RequestError(f"target: {classes!r} is no class index; expected a whole number, or one for each image")
    if given.ndim == 1 and len(given) != n:
        raise RequestError(f"target: {len(given)} targets for {n} images; give one for all, or one for each")
    outside = given[(given < 0) | (given >= k)].flatten().tolist()
    if outside:
        raise RequestError(f"target: {outside[0]} is not a class of this network; it has 0 to {k - 1}")
    return given.expand(n).long()


def with_task(target: Target, n_outputs: int) -> TaskTarget:
    """The target with its task; of a network that came without one, what its number of outputs says.

    Raises:
        RequestError: the task is for another number of outputs.
    """
    asked = target if isinstance(target, TaskTarget) else TaskTarget(task_over(n_outputs), target)
    if asked.task.outputs != n_outputs:
        raise RequestError(f"the task is for {asked.task.outputs} outputs, and the network has {n_outputs}")
    return asked


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
        among = ", ".join(found for found, one in zip(full, own, strict=True) if one == name)
        raise RequestError(f"target: {name!r} is a class of several heads; write one of {among}")
    raise UnknownNameError("class", name, task.classes, "one of this network's")
