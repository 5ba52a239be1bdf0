"""What a network's layers answer to images, and the weights that they look with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from convscope.errors import RequestError, UnknownNameError
from convscope.graph import TracedGraph, evaluate, left_as_found


def activations(graph: TracedGraph, images: Float[Tensor, "N C H W"], layers: Sequence[str]) -> dict[str, Tensor]:
    """The activations of some layers for each image, in one pass that ends after the last of them.

    A layer's activations are its own output: those of a convolution lie before the ReLU that follows it.

    Args:
        graph: the traced network, in evaluation mode whatever mode the network is in.
        images: normalised, of the size that the graph was traced with.
        layers: see `select_layers`.

    Returns:
        Name → tensor of that layer, (N, U, H, W) for a map and (N, U) for a dense layer, in the network's
        order.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        RequestError: the images have another shape than those traced.

    Example:
        >>> maps = activations(graph, images, ["conv*"])
        >>> maps["conv1"].shape
        torch.Size([8, 64, 32, 32])
    """
    names = select_layers(graph, layers)
    with torch.no_grad():
        return graph.run(images, names)


def select_layers(graph: TracedGraph, layers: Sequence[str]) -> list[str]:
    """The names of the operations that are meant, in the network's order, each once.

    Args:
        graph: the traced network.
        layers: each a name ("layer1.0.conv2"), a pattern ("layer1.*"; * for any letters, ? for one), or a
            kind ("conv"). A name comes before a kind of the same word.

    Raises:
        UnknownNameError: one of them means no layer; the message lists those there are.
    """
    selected: set[str] = set()
    if not isinstance(layers, Iterable) or not all(isinstance(layer, str) for layer in layers):
        raise RequestError(f"layers: {layers!r}; expected names of layers, such as ['conv1']")
    for layer in [layers] if isinstance(layers, str) else layers:
        matches = {layer} & graph.by_name.keys()
        matches = matches or {op.name for op in graph.operations if op.kind == layer or fnmatchcase(op.name, layer)}
        if not matches:
            raise UnknownNameError("layer", layer, graph.by_name, "in this network")
        selected |= matches
    return [op.name for op in graph.operations if op.name in selected]


def filters(net: nn.Module, layer: str) -> Tensor:
    """A copy of the weights of one convolution or dense layer.

    Args:
        net: the network.
        layer: the path of its module, such as "conv1" or "layer1.0.conv2".

    Returns:
        (out, in, kh, kw) for a convolution, with `in` the units of one group; (in, out, kh, kw) for a
        transposed one, as torch keeps them; (out, in) for a dense layer.

    Raises:
        UnknownNameError: no module of that path has a weight of two axes or more; the message lists those
            that have.

    Example:
        >>> filters(net, "conv1").shape
        torch.Size([64, 3, 3, 3])
    """
    # A parametrized weight is worked out anew, and a spectral norm in training mode takes a step each time.
    with torch.no_grad(), left_as_found(net):
        evaluate(net)
        layers = {path: module for path, module in net.named_modules() if _has_filters(module)}
        if not isinstance(layer, str) or layer not in layers:
            raise UnknownNameError("layer with filters", layer, layers, "in this network")
        for hook in layers[layer]._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod):
                hook(layers[layer], None)  # else the weight is that of the last pass
        return layers[layer].weight.detach().clone()


def _has_filters(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2 and not isinstance(module, nn.Embedding)
