"""The weights that a layer looks with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convscope.errors import UnknownNameError
from convscope.graph import evaluate, left_as_found


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
        return layers[layer].weight.detach().clone()


def _has_filters(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2 and not isinstance(module, nn.Embedding)
