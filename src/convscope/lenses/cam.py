"""Class-activation maps: where in a layer the evidence for a class lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import INPUT, Positions, TracedGraph, moves_values, positions, without_positions
from convscope.lenses.attribution import Attribution, join, remark
from convscope.lenses.gradients import gradient, portions_of_pass
from convscope.lenses.targets import Target, resolve_target

Weighing = Callable[[Tensor, Tensor], Tensor]
"""From the activations and their gradients, both N U H W, to the map N H W."""


def grad_cam(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    layer: str | None = None,
    *,
    relu: bool = False,
    max_memory: int | None = None,
) -> Attribution:
    """Grad-CAM: the units of a layer, weighted by how much the class gains from each.

    With A the activations, s the class's logit, means over positions: map = Σᵤ mean(∂s/∂Aᵤ) · Aᵤ. The paper
    keeps the positive part of it, `relu=True`; here the sign is kept, so that evidence against the class shows.

    Args:
        graph: the traced network, in evaluation mode whatever mode the network is in.
        images: normalised, of the size that the graph was traced with.
        target: see `Target`; the class to explain, the most probable of each image by default.
        layer: the name of an operation with positions; by default that of `last_map`. Of tokens, those that stand
            for no place in the image (a class token) are left out.
        relu: keep the positive part only.
        max_memory: bytes to work in; by default a share of what is free.

    Returns:
        An `Attribution` of values (N, 1, H, W) at the layer's own resolution, in logits; `.on_image` enlarges
        them. Its note says where no value is positive. Zero: the units that matter are silent there.

    Raises:
        UnknownNameError: there is no such layer; the message lists those there are.
        RequestError: the layer has no positions, or images or target do not fit the network, or no gradient
            comes back to the layer.

    Source: Selvaraju et al. 2016, section 3, arXiv 1610.02391.

    Example:
        >>> attribution = grad_cam(graph, images, layer="relu4")
        >>> heatmap = attribution.on_image(32, 32)
    """
    return class_activation_map(graph, images, target, layer, "grad_cam", _grad_cam, relu, max_memory)


def grad_cam_plus_plus(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    layer: str | None = None,
    *,
    relu: bool = False,
    max_memory: int | None = None,
) -> Attribution:
    """Grad-CAM++: as Grad-CAM, with the positive gradients summed so that each of several objects counts.

    With g = ∂s/∂A: αᵤ = gᵤ² / (2 gᵤ² + (Σ Aᵤ) · gᵤ³) at each position, the sum over all of them (equation 19); map =
    Σᵤ (Σ αᵤ · max(gᵤ, 0)) · Aᵤ. Where the denominator is zero α is. The paper differentiates exp(s), which would
    multiply a whole map by exp(s); that factor is left out.

    Args, Returns and Raises as of `grad_cam`.

    Source: Chattopadhyay et al. 2017, section 3.2, arXiv 1710.11063.

    Example:
        >>> grad_cam_plus_plus(graph, images, target=3).values.shape
        torch.Size([8, 1, 4, 4])
    """
    return class_activation_map(
        graph, images, target, layer, "grad_cam_plus_plus", _grad_cam_plus_plus, relu, max_memory
    )


def hires_cam(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    layer: str | None = None,
    *,
    relu: bool = False,
    max_memory: int | None = None,
) -> Attribution:
    """HiResCAM: activation times gradient at each position, summed over the units.

    map = Σᵤ ∂s/∂Aᵤ · Aᵤ. Where the network is linear from the layer on, the map sums to the logit less what the
    biases add: it shows just the places that were used. Before a global average pool and one dense layer it
    equals Grad-CAM.

    Args, Returns and Raises as of `grad_cam`.

    Source: Draelos & Carin 2020, section 3, arXiv 2011.08891.

    Example:
        >>> hires_cam(graph, images, target=3).values.sum((1, 2, 3))
    """
    return class_activation_map(graph, images, target, layer, "hires_cam", _hires_cam, relu, max_memory)


def xgrad_cam(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    layer: str | None = None,
    *,
    relu: bool = False,
    max_memory: int | None = None,
) -> Attribution:
    """XGrad-CAM: Grad-CAM whose gradients count where a unit is active.

    map = Σᵤ αᵤ Aᵤ with αᵤ = Σ (∂s/∂Aᵤ · Aᵤ) / Σ Aᵤ, sums over positions; 0 for a unit whose activations sum to 0.

    Args, Returns and Raises as of `grad_cam`.

    Source: Fu et al. 2020, section 3.2, arXiv 2008.02312.

    Example:
        >>> xgrad_cam(graph, images, target=3).values.shape
    """
    return class_activation_map(graph, images, target, layer, "xgrad_cam", _xgrad_cam, relu, max_memory)


def layer_cam(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    target: Target = None,
    layer: str | None = None,
    *,
    relu: bool = False,
    max_memory: int | None = None,
) -> Attribution:
    """LayerCAM: activation times positive gradient at each position; fit for early, fine layers as well.

    map = Σᵤ max(∂s/∂Aᵤ, 0) · Aᵤ. After a rectifier it is never negative.

    Args, Returns and Raises as of `grad_cam`.

    Source: Jiang et al. 2021, section III-B, doi 10.1109/TIP.2021.3089943.

    Example:
        >>> layer_cam(graph, images, layer="relu1").values.shape
        torch.Size([8, 1, 32, 32])
    """
    return class_activation_map(graph, images, target, layer, "layer_cam", _layer_cam, relu, max_memory)


def last_map(graph: TracedGraph, images: Float[Tensor, "N C H W"]) -> str:
    """The last operation with several positions that still reach the network's answer.

    That is the one just before they are pooled or flattened away. In a transformer that answers from its class
    token it is the last whose other tokens are read: those of the final layer are not. What an attention makes of
    its tokens for itself (queries, keys and values) is passed over, for the norm or sum that it reads. Found by
    putting NaN at the positions of an operation's result and looking whether the logits become NaN, so it depends
    on the network alone. The image itself, in another order of its axes, is no such operation: before it stand no
    weights. Where the network loses the positions on its way, the last layers are not among those looked at; a map
    of this layer says so in its note.

    Args:
        graph: the traced network.
        images: of which only size, type and device matter.

    Raises:
        RequestError: there is none.

    Example:
        >>> last_map(graph, images)
        'pool3'
    """
    key = "last map", graph.outputs[0]
    if key not in graph.findings:
        graph.findings[key] = _find_last_map(graph, images)
    return graph.findings[key]


def _find_last_map(graph: TracedGraph, images: Float[Tensor, "N C H W"]) -> str:
    output, where = graph.outputs[0], positions(graph)
    passed_over = _within_attention(graph, where)
    image = images.new_zeros((1, *images.shape[1:]))
    with torch.no_grad():
        for op in reversed(graph.needed_for(output)):
            if op.name == output or op.name not in where or prod(where[op.name].size) == 1 or op.name in passed_over:
                continue
            if not any(before.n_parameters for before in graph.needed_for(op.name)):
                continue
            result = graph.run(image, [op.name])[op.name].clone(memory_format=torch.contiguous_format)
            if not result.is_floating_point():  # a mask, the indices of a max pool
                continue
            index = where[op.name].as_map(torch.arange(result.numel(), device=result.device).view(result.shape))
            result.view(-1)[index.flatten()] = torch.nan
            if graph.run(image, given={op.name: result})[output].isnan().any():
                return op.name
    raise RequestError("no layer of this network has maps that its answer depends on; ask for saliency instead")


def _within_attention(graph: TracedGraph, where: Mapping[str, Positions]) -> set[str]:
    """Queries, keys and values: what leads, by dense layers and moving values, to products of two results and no further."""
    pending = [
        name
        for op in graph.operations
        if op.kind in ("attention", "matmul") and len(op.inputs) > 1
        for name in op.inputs
    ]
    names: set[str] = set()
    while pending:
        name = pending.pop()
        if name in names or name == INPUT:
            continue
        op = graph.operation(name)
        if name not in where or op.kind == "dense" or moves_values(op):
            names.add(name)
            pending += op.inputs
    return names


def class_activation_map(
    graph: TracedGraph,
    images: Tensor,
    target: Target,
    layer: str | None,
    method: str,
    weigh: Weighing,
    relu: bool = False,
    max_memory: int | None = None,
    known: Tensor | None = None,
) -> Attribution:
    """A class-activation map by a rule of its own; the lenses of this file are some.

    Args, Returns and Raises as of `grad_cam`, and:
        method: its name in the result.
        weigh: from the activations and their gradients, (N, U, H, W) each, to the maps (N, H, W).
        known: the layer's result for these images, from which the network is run on.
    """
    resolved = resolve_target(graph, images, target)
    note = None
    if layer is None:
        layer = last_map(graph, images)
        unplaced = without_positions(graph) & graph.depending_on([layer]) - {layer}
        if any(op.name in unplaced for op in graph.needed_for(graph.outputs[0])):
            note = f"the map is taken at {layer}: positions are lost after it"
    places = positions(graph)
    if graph.operation(layer).name not in places:
        listed = ", ".join(list(places)[-20:]) or "none"
        raise RequestError(f"layer {layer!r} has no rows and columns, and a map needs them; there is {listed}")
    where = places[layer]
    parts = []
    for part in portions_of_pass(graph, resolved.operation, len(images), images, max_memory):
        with torch.inference_mode(False), torch.enable_grad():
            pixels = images[part].clone().detach()
            given = None if known is None else {layer: known[part].detach().requires_grad_()}
            instead = {layer: _start_gradients} if known is None else None
            results = graph.run(pixels, [layer, resolved.operation], given, instead)
            answer, fields = resolved.of(part).read(results[resolved.operation])
            gradients = gradient(answer, results[layer])
        values = weigh(where.as_map(results[layer].detach()), where.as_map(gradients))
        parts.append(Attribution(values[:, None], method, layer=layer, **fields))
    attribution = join(parts).noting(note)
    silent = (attribution.values == 0).flatten(1).all(1)
    against = (attribution.values <= 0).flatten(1).all(1) & ~silent
    values = attribution.values.clamp(min=0) if relu else attribution.values
    return replace(attribution, values=values).noting(
        remark(silent, "all values are zero: the class does not depend on this layer here"),
        remark(against, "all values are negative: nothing in this image speaks for the class"),
    )


def _start_gradients(operator: Callable[..., Tensor], *arguments: Any, **more: Any) -> Tensor:
    """The operation's result as a start of its own, so that nothing before it takes part."""
    return operator(*arguments, **more).detach().requires_grad_()


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1)


def _grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    denominator = 2 + activations.sum((2, 3), keepdim=True) * gradients  # both sides of α's fraction divided by g²
    alphas = torch.where(denominator == 0, 0, 1 / denominator)
    return ((alphas * gradients.clamp(min=0)).sum((2, 3), keepdim=True) * activations).sum(1)


def _hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients * activations).sum(1)


def _xgrad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    total = activations.sum((2, 3), keepdim=True)
    weights = (activations * gradients).sum((2, 3), keepdim=True) / total
    return (weights.masked_fill(total == 0, 0) * activations).sum(1)


def _layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.clamp(min=0) * activations).sum(1)


WEIGHINGS: dict[str, Weighing] = {
    "grad_cam": _grad_cam, "grad_cam_plus_plus": _grad_cam_plus_plus, "hires_cam": _hires_cam, "xgrad_cam": _xgrad_cam,
    "layer_cam": _layer_cam,
}  # fmt: skip
"""The rules of the lenses of this file, by their names."""
