"""Rectifiers through which gradient ascent finds a way out of silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convscope.graph import TracedGraph, cuts_at_zero


def redirected_relus(graph: TracedGraph) -> dict[str, Callable[..., Tensor]]:
    """Stand-ins for a network's rectifiers, for `TracedGraph.run(…, instead=…)`.

    Values are the rectifier's own, and so is the gradient, but for an image of which nothing comes through one
    of them. There the gradient of the loss passes to the silent units that it would wake (those where it is
    negative), as if they were open.

    ReLU6 is one of them, and so is any clamp from 0 up; what lets some of the negative through needs no waking.

    Source: Olah et al., Lucid, `redirected_relu_grad`, https://github.com/tensorflow/lucid.
    """
    return {op.name: _wake for op in graph.operations if cuts_at_zero(op)}


def _wake(operator: Callable[..., Tensor], x: Tensor, *settings: Any, **more: Any) -> Tensor:
    return _Waking.apply(lambda values: operator(values, *settings, **more), x)


class _Waking(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y = operator(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        x, y = ctx.saved_tensors
        through = torch.where((x > 0) & (x == y), gradient, 0)
        silent = ~through.flatten(1).any(1)  # (N,)
        if not silent.any():
            return None, through
        waking = torch.where(x <= 0, gradient.clamp(max=0), 0)
        return None, torch.where(silent.view(-1, *[1] * (x.ndim - 1)), waking, through)
