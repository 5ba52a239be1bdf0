"""Guided backpropagation and the deconvolutional network: gradients with another rule at each rectifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import Operation, TracedGraph, cuts_at_zero
from convscope.lenses.attribution import Attribution
from convscope.lenses.gradients import follow_back
from convscope.lenses.targets import Position, ResolvedTarget, Target, resolve_target

RECTIFIERS = frozenset(
    {"relu", "relu6", "leaky_relu", "rrelu", "prelu", "threshold", "elu", "selu", "celu", "softplus"}
    | {"gelu", "silu", "mish", "hardswish"}
)
"""Kinds of operations whose rule is overridden; and "clamp", "clamp_min" and "hardtanh" where they cut at zero."""


def guided_backprop(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    *,
    layer: str | None = None,
    unit: int | None = None,
    position: Position = None,
    max_memory: int | None = None,
) -> Attribution:
    """The gradient of the answer, of which only what is positive passes each rectifier.

    For y = ReLU(x): ∂x = [x > 0] · max(∂y, 0). For any rectifier f: ∂x = max(f′(x), 0) · max(∂y, 0), which is the
    same for a ReLU; a leaky ReLU lets its slope through, GELU and SiLU nothing where they fall. The rest is the
    plain gradient: transposed filters, and max pools that lead back to where the maximum was (the switches).

    Rectifiers are found in the traced graph: a module, a function or a method, in place or not, used once or
    many times. One written out in other operations, such as x * (x > 0), is not recognised.

    The pictures are sharp, but hardly depend on the weights (Adebayo et al. 2018, arXiv 1810.03292): they show
    what the network could see more than why it decided.

    Args as of `saliency`: what the gradient starts from.

    Returns:
        An `Attribution` of values (N, C, H, W); its note says how many rectifiers were overridden. The gradient
        starts from one at each number asked about, whatever its value. Zero: no path of positive gradients
        leads to the pixel.

    Raises as `saliency`, and:
        RequestError: there is no rectifier on the way.

    Source: Springenberg et al. 2014, section 3.4, arXiv 1412.6806.

    Example:
        >>> attribution = guided_backprop(graph, images, layer="conv3", unit=5, position="max")
        >>> attribution.note
        '2 rectifiers overridden: 2 relu'
    """
    resolved = resolve_target(graph, images, target, layer, unit, position)
    return _follow_back(graph, images, resolved, "guided_backprop", _guided, max_memory)


def deconvnet(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    *,
    layer: str | None = None,
    unit: int | None = None,
    position: Position = None,
    max_memory: int | None = None,
) -> Attribution:
    """What a deconvolutional network shows: at each rectifier the positive part of what comes back, and all of it.

    For any rectifier: ∂x = max(∂y, 0), whatever x was; so the image enters only through the switches of the max
    pools, and without those the result is the same for every image. The rest is as in `guided_backprop`: filters
    transposed, unpooling with the switches, rectifiers found in the traced graph however they are written.

    Zeiler & Fergus start from the activation itself; here it starts from one, as gradients do, so that for one
    neuron theirs is this times the neuron's activation.

    Args and Raises as of `guided_backprop`.

    Returns:
        An `Attribution` of values (N, C, H, W); its note says how many rectifiers were overridden.

    Source: Zeiler & Fergus 2013, section 2.1, arXiv 1311.2901.

    Example:
        >>> deconvnet(graph, images, layer="conv3", unit=5, position=(4, 7)).values.shape
        torch.Size([8, 3, 32, 32])
    """
    resolved = resolve_target(graph, images, target, layer, unit, position)
    return _follow_back(graph, images, resolved, "deconvnet", passing_back, max_memory)


class PassBack(torch.autograd.Function):
    """`value` on the way there; on the way back its gradient, or only the positive part, given to `source`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, positive_only: bool) -> Tensor:
        ctx.positive_only = positive_only
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        [gradient] = gradients
        return gradient.clamp(min=0) if ctx.positive_only else gradient, None, None


def _guided(operator: Callable[..., Tensor], x: Tensor, *settings: Any, **more: Any) -> Tensor:
    y = operator(PassBack.apply(x, x.detach(), True), *settings, **more)
    return PassBack.apply(y, y.detach(), True)


def passing_back(
    operator: Callable[..., Tensor], x: Tensor, *settings: Any, positive_only: bool = True, **more: Any
) -> Tensor:
    """What the operation gives, to be called in its place; its input gets the gradient of its result, as it comes back."""
    return PassBack.apply(x, operator(x, *settings, **more).detach(), positive_only)


def _follow_back(
    graph: TracedGraph,
    images: Tensor,
    resolved: ResolvedTarget,
    method: str,
    rule: Callable[..., Tensor],
    max_memory: int | None,
) -> Attribution:
    rectifiers = [op for op in graph.needed_for(resolved.operation) if is_rectifier(op)]
    if not rectifiers:
        raise RequestError(
            f"no rectifier lies between the image and {resolved.operation!r}, so {method} would be the plain gradient; "
            "use saliency"
        )
    instead = {op.name: rule for op in rectifiers}
    kinds = Counter(_known_as(op) for op in rectifiers)
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
    plural = "s" if len(rectifiers) > 1 else ""
    attribution = follow_back(graph, images, resolved, method, max_memory, instead)
    return replace(attribution, note=None).noting(
        f"{len(rectifiers)} rectifier{plural} overridden: {counts}", attribution.note
    )


def is_rectifier(op: Operation) -> bool:
    """Whether the operation passes what is positive and holds back what is negative, wholly or in part."""
    return cuts_at_zero(op) or op.kind in RECTIFIERS


def _known_as(op: Operation) -> str:
    """Its kind, but "relu6" for a hardtanh from 0 to 6: as such torch exports the module of that name."""
    return "relu6" if op.kind == "hardtanh" and tuple(op.node.args[1:3]) == (0, 6) else op.kind
