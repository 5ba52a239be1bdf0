"""The optimizer Muon: each filter bank's or dense layer's step is made orthogonal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of aσ + bσ³ + cσ⁵, which brings each singular value σ in (0, 1] near 1 in five rounds."""


class Muon(torch.optim.Optimizer):
    """Muon for weight matrices, AdamW for all else (Jordan 2024, https://kellerjordan.github.io/posts/muon).

    The update of a matrix is its momentum, made nearly orthogonal; a filter bank (O, I, K, K) counts as a matrix
    (O, I·K·K). Its step is rate · √max(1, rows / columns) · update.

    Args:
        groups: of parameters, with `matrices` (Muon or AdamW), `weight_decay` (decoupled), and `lr`.
        lr: of the groups.
        momentum, nesterov: of the matrices.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            step = _step_matrix if group["matrices"] else _step_adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    step(parameter, parameter.grad, self.state[parameter], group)
        return loss


def _step_matrix(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    momentum = group["momentum"]
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    state["momentum"].lerp_(gradient, 1 - momentum)
    update = gradient.lerp(state["momentum"], momentum) if group["nesterov"] else state["momentum"]
    matrix = orthogonal(update.flatten(1))
    rows, columns = matrix.shape
    parameter.add_(matrix.view_as(parameter), alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def _step_adam(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    if not state:
        state |= {"step": torch.zeros(()), "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
    state["step"] += 1
    step = int(state["step"])
    state["mean"].lerp_(gradient, 1 - 0.9)
    state["square"].lerp_(gradient.square(), 1 - 0.999)
    deviation = (state["square"] / (1 - 0.999**step)).sqrt_().add_(1e-8)
    parameter.addcdiv_(state["mean"], deviation, value=-group["lr"] / (1 - 0.9**step))


def orthogonal(matrix: Float[Tensor, "R C"], rounds: int = 5) -> Float[Tensor, "R C"]:
    """U·p(S)·Vᵀ for a matrix U·S·Vᵀ, with p(S) between 0.7 and 1.2 for singular values not far below the largest.

    Rounds of X ← aX + (bA + cA²)X with A = XXᵀ, from X of Frobenius norm 1: the same polynomial of each singular value.
    In bf16 on a GPU, which is exact enough; in fp32 elsewhere.
    """
    a, b, c = _QUINTIC
    x = matrix.to(torch.bfloat16 if matrix.device.type == "cuda" else torch.float32)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(rounds):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)
