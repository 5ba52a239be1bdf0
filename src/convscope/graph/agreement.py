"""Whether a network's graph gives the gradient that the network itself gives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.errors import NetworkError
from convscope.graph.traced import MIXED, TracedGraph
from convscope.graph.untouched import evaluate, left_as_found
from convscope.graph.wrapped import tensors_of

TOLERANCE = 1e-3
"""Of the largest value: both run the same operations in the same order, so rounding alone differs by far less."""


def check_gradient(graph: TracedGraph, images: Float[Tensor, "N C H W"]) -> None:
    """Compares the gradient of the network's results for one image with that of its graph, once for each graph.

    What a module does beside its operations is not in the graph: hooks that change gradients, a `torch.no_grad()` around a
    part of it. A network that cannot be compared, since it answers at random or runs without gradients only, is let through.
    Where the image beside it takes part in an image's results, the graph's notes say so.

    Args:
        graph: the traced network.
        images: normalised; the first is looked at.
    Raises:
        NetworkError: the gradients differ.
    """
    if graph.gradient_checked:
        return
    pair = torch.cat([images[:1], images[:1].flip(-1) * 0.5])  # two that differ
    gradients = _gradients(graph, pair)
    if gradients is not None:
        own, of_graph = gradients
        if not _alike(own, of_graph):
            raise NetworkError(
                f"the gradient of network {type(graph.net).__name__} is not that of its operations: they differ by "
                f"{_difference(own, of_graph):.2g} of the largest value. Take out hooks that change gradients and "
                "torch.no_grad() within the network, or use lenses that need no gradient: occlusion, activations"
            )
        mixed = float(own[1].abs().max()) > TOLERANCE * float(own[0].abs().max())
        if mixed and not graph.mixes_images:
            graph.notes += (MIXED,)
    graph.gradient_checked = True


def _gradients(graph: TracedGraph, pair: Tensor) -> tuple[Tensor, Tensor] | None:
    """By the network and by its graph; None where they cannot be compared."""

    def of_network(pixels: Tensor) -> list[Tensor]:
        results = tensors_of(graph.net(pixels * 1))  # it may write on its input
        return [results[key] for key in graph.results]

    def of_graph(pixels: Tensor) -> list[Tensor]:
        results = graph.run(pixels, tuple(graph.results.values()))
        return [results[operation] for operation in graph.results.values()]

    with torch.inference_mode(False), torch.enable_grad(), left_as_found(graph.net):
        evaluate(graph.net)
        try:
            first, second, traced = (_gradient(results, pair) for results in (of_network, of_network, of_graph))
        except Exception:  # a network may run without gradients only
            return None
        if not _alike(first, second):
            if bool(first.isfinite().all()):
                graph.notes += ("the network answers at random: the same image gets another answer each time",)
            return None
        return first, traced


def _gradient(results: Callable[[Tensor], list[Tensor]], images: Tensor) -> Tensor:
    """That of a random sum of all results of the first image."""
    pixels = images.clone().detach().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    total = pixels.sum() * 0
    for result in results(pixels):
        weights = torch.randn(result[:1].shape, generator=generator, dtype=torch.float64)
        total = total + (result[:1] * weights.to(pixels)).sum()
    return torch.autograd.grad(total, pixels)[0]


def _alike(own: Tensor, other: Tensor) -> bool:
    return _difference(own, other) <= max(TOLERANCE, 3 * torch.finfo(own.dtype).eps ** 0.5)


def _difference(own: Tensor, other: Tensor) -> float:
    """The largest, as a share of the largest value; NaN where there is one."""
    largest = max(float(own.abs().max()), float(other.abs().max()), torch.finfo(own.dtype).tiny)
    return float((own - other).abs().max()) / largest
