"""The optimizer of a recipe, and the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import unwrap

import torch
from torch import nn

from convscope.runs import Recipe


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters that train.

    Weight decay goes on parameters with more than one axis (filters, dense weights), not on biases and norms.
    """
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = recipe.peak_rate
    assert recipe.momentum is not None, "a recipe fills it in"
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return _light(torch.optim.SGD)(groups, lr=rate, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    if recipe.optimizer == "rmsprop":
        return _light(torch.optim.RMSprop)(groups, lr=rate, momentum=recipe.momentum)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return _light(kind)(groups, lr=rate, fused=True)


def _light(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The optimizer with its methods as they are beneath PyTorch's wrappers for torch.compile.

    The wrappers do nothing in a step that is not itself compiled, and to do it they import torch._dynamo, which takes 2 s.
    """
    wrapped = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: unwrap(getattr(kind, name)) for name in wrapped}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(unwrap(kind.step))})


def rate_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, a pure function, so that a resumed training needs no state for it.

    Args:
        recipe: its schedule is described in Recipe.
        step: counted from 0 over the whole training.
        steps_per_epoch: length of an epoch.
    """
    return recipe.peak_rate * _factor(recipe, step, steps_per_epoch)


def _factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    total = recipe.epochs * steps_per_epoch
    if recipe.schedule == "step":
        return recipe.step_factor ** (step // steps_per_epoch // recipe.step_epochs)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / total))
    if recipe.schedule == "inverse":
        return 1 / (1 + recipe.decay * step)
    if recipe.schedule == "one-cycle":
        peak = recipe.warmup * total
        return (step + 1) / (peak + 1) if step < peak else (total - step) / (total - peak + 1)
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
