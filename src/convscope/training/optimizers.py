"""The optimizer of a recipe, the learning rate at each step, and means of the weights over the steps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import unwrap
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.runs import Recipe

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
                    step(_real(parameter), _real(parameter.grad), self.state[parameter], group)
        return loss


def _real(tensor: Tensor) -> Tensor:
    """The same memory as real numbers."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


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

    Rounds of X ← PX with P = aI + bA + cA² and A = XXᵀ, from X of Frobenius norm 1: the same polynomial of each singular value.
    All P are polynomials of the first A and so commute: the rounds need the small A ← PAP alone, and X is multiplied once. For
    256×2304 that is a third of the arithmetic, exact to 3·10⁻⁴ in fp32. On a GPU X itself goes through the rounds in bf16.
    """
    a, b, c = _QUINTIC
    on_gpu = matrix.device.type == "cuda"
    x = matrix.to(torch.bfloat16 if on_gpu else torch.float32)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    if on_gpu:
        for _ in range(rounds):
            square = x @ x.T
            x = a * x + (b * square + c * square @ square) @ x
    else:
        square, product = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
        for _ in range(rounds):
            factor = torch.addmm(square, square, square, beta=b, alpha=c)
            factor.diagonal().add_(a)
            square, product = factor @ square @ factor, factor @ product
        x = product @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)


def make_optimizer(
    net: nn.Module, recipe: Recipe, factors: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters that train.

    Weight decay goes on parameters with more than one axis (filters, dense weights), not on biases and norms. Of muon these
    are its matrices, but for the last one in the order of the network's parameters, the output layer.

    Args:
        net: its parameters with `requires_grad`.
        recipe: names the optimizer.
        factors: of the rate, by parameter; 1 for all others.
    """
    rate = recipe.peak_rate
    assert recipe.momentum is not None, "a recipe fills it in"
    muon = recipe.optimizer == "muon"
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    output = next((one for one in reversed(list(net.parameters())) if one.ndim > 1), None)
    members = defaultdict(list)
    for parameter in sorted(trained, key=lambda one: one.ndim <= 1):  # weights first
        matrices = muon and parameter.ndim > 1 and parameter is not output and not parameter.is_complex()
        share = recipe.adam_rate / rate if muon and not matrices else 1.0
        members[parameter.ndim > 1, matrices, share * (factors or {}).get(parameter, 1.0)].append(parameter)
    groups = [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "share": share,
            **({"matrices": matrices} if muon else {}),
        }
        for (decays, matrices, share), parameters in members.items()
    ]
    nesterov = recipe.nesterov and recipe.momentum > 0
    fused = not any(parameter.is_complex() for parameter in trained)
    match recipe.optimizer:
        case "muon":
            return _light(Muon)(groups, rate, recipe.momentum, nesterov)
        case "sgd":
            return _light(torch.optim.SGD)(groups, lr=rate, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
        case "rmsprop":
            return _light(torch.optim.RMSprop)(groups, lr=rate, momentum=recipe.momentum)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return _light(kind)(groups, lr=rate, fused=fused)


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
    total, factor = recipe.epochs * steps_per_epoch, 1.0
    match recipe.schedule:
        case "step":
            factor = recipe.step_factor ** (step // steps_per_epoch // recipe.step_epochs)
        case "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * step / total))
        case "inverse":
            factor = 1 / (1 + recipe.decay * step)
        case "one-cycle":
            peak = recipe.warmup * total
            factor = (step + 1) / (peak + 1) if step < peak else (total - step) / (total - peak + 1)
    return recipe.peak_rate * factor


_LOOKAHEAD_STEPS = 5
_LOOKAHEAD_SHARE = 0.5


class Averaging:
    """What a recipe's `averaging` keeps beside the weights, and what it does with it; see Recipe.

    Args:
        net: whose weights are trained.
        recipe: says how.
        kept: the mean so far, by name in the network's state; filled from the weights where it is empty.
    """

    @torch.no_grad()
    def __init__(self, net: nn.Module, recipe: Recipe, kept: dict[str, Tensor]) -> None:
        self.net, self.recipe, self.kept = net, recipe, kept
        if recipe.averaging != "none":  # what a checkpoint kept moves to the weights' device and memory layout
            kept |= {name: live.clone().copy_(kept.get(name, live)) for name, live in self._averaged().items()}

    def _averaged(self) -> dict[str, Tensor]:
        """Weights and, of ema, the statistics of batch norm."""
        if self.recipe.averaging == "lookahead":
            return dict(self.net.named_parameters())
        return {
            name: tensor
            for name, tensor in self.net.state_dict().items()
            if tensor.is_floating_point() or tensor.is_complex()
        }

    @torch.no_grad()
    def step(self, number: int, last: bool) -> None:
        """After an optimizer step.

        Args:
            number: of the step, from 0 over the stage.
            last: of its epoch.
        """
        if self.recipe.averaging == "ema":
            live = self._averaged()
            decay = min(self.recipe.ema_decay, (1 + number) / (10 + number))
            torch._foreach_lerp_(list(self.kept.values()), [live[name] for name in self.kept], 1 - decay)
        elif self.recipe.averaging == "lookahead" and ((number + 1) % _LOOKAHEAD_STEPS == 0 or last):
            live = self._averaged()
            for name, slow in self.kept.items():
                live[name].copy_(slow.lerp_(live[name], _LOOKAHEAD_SHARE))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the mean weights inside."""
        if self.recipe.averaging != "ema":
            yield
            return
        live = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
        self.finish()
        try:
            yield
        finally:
            self.net.load_state_dict(live)

    def finish(self) -> None:
        """Gives the network the mean weights for good."""
        if self.recipe.averaging == "ema":
            self.net.load_state_dict(self.kept, strict=False)
