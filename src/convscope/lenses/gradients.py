"""How much the answer moves with each pixel: the gradient, and the gradient times the image."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import TracedGraph
from convscope.lenses.attribution import Attribution, join, remark
from convscope.lenses.memory import portions
from convscope.lenses.targets import Position, ResolvedTarget, Target, resolve_target


def saliency(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    *,
    layer: str | None = None,
    unit: int | None = None,
    position: Position = None,
    max_memory: int | None = None,
) -> Attribution:
    """The gradient of the answer with respect to each pixel of the image.

    The answer is the logit, not the probability: its gradient does not fade where the network is sure. The
    sign is kept: positive where a larger value of the (normalised) pixel raises the answer. The paper's map, as
    Captum's `Saliency(abs=True)`, is the absolute value: `.saliency()` of the result.

    Args:
        graph: the traced network, in evaluation mode whatever mode the network is in.
        images: normalised, of the size that the graph was traced with.
        target: see `Target`; the class to ask about, the most probable of each image by default.
        layer: ask about this layer's answers in place of a class; only what lies before it is run.
        unit: one of its units; by default the sum of all.
        position: see `Position`; by default the sum over all of the unit's.
        max_memory: bytes to work in; by default a share of what is free.

    Returns:
        An `Attribution` of values (N, C, H, W), in logits (or the layer's units) per unit of the normalised
        pixel. Zero: a small change of the pixel changes nothing.

    Raises:
        UnknownNameError: there is no such layer; the message lists those there are.
        RequestError: images, target, unit or position do not fit the network, or the network cuts the gradient.

    Source: Simonyan, Vedaldi & Zisserman 2013, section 3, arXiv 1312.6034.

    Example:
        >>> attribution = saliency(graph, images)
        >>> attribution.values.shape, attribution.saliency().shape
        (torch.Size([8, 3, 32, 32]), torch.Size([8, 1, 32, 32]))
    """
    resolved = resolve_target(graph, images, target, layer, unit, position)
    return follow_back(graph, images, resolved, "saliency", max_memory)


def gradient_times_input(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    *,
    layer: str | None = None,
    unit: int | None = None,
    position: Position = None,
    max_memory: int | None = None,
) -> Attribution:
    """The gradient of the answer times the normalised image: what each pixel adds to it, to first order.

    Where the network is linear the values sum to the answer less that for an all-zero input, which is the
    mean colour, not black. A pixel of just that colour gets zero, whatever its gradient.

    Args and Raises as of `saliency`.

    Returns:
        An `Attribution` of values (N, C, H, W), in logits (or the layer's units).

    Source: Shrikumar et al. 2016, arXiv 1605.01713.

    Example:
        >>> gradient_times_input(graph, images, target=3).values.sum((1, 2, 3))
    """
    resolved = resolve_target(graph, images, target, layer, unit, position)
    attribution = follow_back(graph, images, resolved, "gradient_times_input", max_memory)
    return replace(attribution, values=attribution.values * images)


def follow_back(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    resolved: ResolvedTarget,
    method: str,
    max_memory: int | None = None,
    instead: Mapping[str, Callable[..., Any]] | None = None,
) -> Attribution:
    """The gradient of what is asked with respect to the image, through `instead` in place of some operations."""
    parts = []
    for part in portions_of_pass(graph, resolved.operation, len(images), images, max_memory):
        with torch.inference_mode(False), torch.enable_grad():
            pixels = images[part].clone().detach().requires_grad_()
            result = graph.run(pixels, [resolved.operation], instead=instead)[resolved.operation]
            answer, fields = resolved.of(part).read(result)
            parts.append(Attribution(gradient(answer, pixels), method, **fields))
    attribution = join(parts)
    silent = (attribution.values == 0).flatten(1).all(1)
    return attribution.noting(remark(silent, "all values are zero: no small change of a pixel changes the answer"))


def gradient(answer: Float[Tensor, " N"], source: Tensor) -> Tensor:
    """The gradient of each image's answer with respect to `source`; no `.grad` is written.

    Raises:
        RequestError: nothing differentiable lies between the two.
    """
    gradients = torch.autograd.grad(answer.sum(), source, allow_unused=True) if answer.requires_grad else (None,)
    if gradients[0] is None:
        raise RequestError("no gradient comes back: the network detaches its result on the way; ask at another layer")
    return gradients[0]


def portions_of_pass(
    graph: TracedGraph, output: str, n: int, like: Tensor, max_memory: int | None = None
) -> Iterator[slice]:
    """Slices of `n` images like these that fit the memory, see `portions`, on the way to an operation and back.

    An image takes about each result on the way, and its gradient. Where images act on each other, each is looked at alone.
    """
    numbers = sum(prod(op.output_shape) for op in graph.needed_for(output))
    bytes_each = sys.maxsize if graph.mixes_images else 2 * numbers * like.element_size()
    return portions(n, bytes_each, like.device, max_memory)
