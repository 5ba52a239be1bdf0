"""Class imbalance: how much each class counts in the training loss."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from convscope.data import ImageSet
from convscope.errors import UnknownNameError
from convscope.nets import Task
from convscope.runs import Recipe


def class_weights(recipe: Recipe, task: Task, train: ImageSet) -> dict[str, Float[Tensor, " K"]]:
    """The weights that a recipe gives the classes of each head, by its target; nothing where it gives none.

    Args:
        recipe: see its class_weights.
        task: whose heads have the classes.
        train: the training images, whose classes are counted.
    Raises:
        UnknownNameError: a class that the task does not have.
    """
    setting = recipe.class_weights
    if setting is None:
        return {}
    if setting == "balanced":
        return {h.target: _balanced(train.targets_of(h.target), len(h.classes)) for h in task.heads}
    for name in setting:
        if name not in task.classes:
            raise UnknownNameError("recipe.class_weights: class", name, task.classes, "in this task")
    weights = torch.tensor([setting.get(name, 1.0) for name in task.classes], dtype=torch.float32)
    return dict(zip((h.target for h in task.heads), weights.split([len(h.classes) for h in task.heads]), strict=True))


def _balanced(targets: Int[Tensor, " N"], n_classes: int) -> Float[Tensor, " K"]:
    counts = targets.bincount(minlength=n_classes)
    weights = len(targets) / (counts.count_nonzero() * counts.clamp(min=1))
    return torch.where(counts > 0, weights, 1.0).float()
