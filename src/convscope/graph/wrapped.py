"""The network within what people wrap around it, and the tensors within what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convscope.errors import NetworkError


def unwrapped(net: nn.Module) -> nn.Module:
    """The network within `DataParallel`, `DistributedDataParallel` or `torch.compile`, whose layers have their own names."""
    while True:
        if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            net = net.module
        elif isinstance(inner := getattr(net, "_orig_mod", None), nn.Module):
            net = inner
        else:
            return net


def initialized(net: nn.Module, example: Tensor) -> nn.Module:
    """The network itself, or where it has lazy modules a copy whose weights are drawn for such images.

    The network and the random state stay as they were.
    """
    if not any(map(is_lazy, (*net.parameters(), *net.buffers()))):
        return net
    copy = deepcopy(net).eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            copy(example[:1])
        except Exception as error:
            raise NetworkError(
                f"network {type(net).__name__} has lazy modules, and does not run on such images to initialise them "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); run it once yourself"
            ) from error
    return copy.train(net.training)


def opened(net: nn.Module, example: Tensor) -> nn.Module:
    """The network within, initialised; NetworkError for one that neither tracing nor hooks can open."""
    net = initialized(unwrapped(net), example)
    name = type(net).__name__
    if any(isinstance(module, torch.jit.ScriptModule) for module in net.modules()):
        raise NetworkError(
            f"network {name} is compiled TorchScript, which cannot be looked into; open the Python module that it was made from"
        )
    if any(tensor.is_inference() for tensor in (*net.parameters(), *net.buffers())):
        raise NetworkError(
            f"network {name} was made under torch.inference_mode(), and no gradient passes such weights; "
            "build and load it outside"
        )
    return net


def tensors_of(result: Any, name: str = "") -> dict[str, Tensor]:
    """The tensors of what a network returns, by name: keys, fields and indices, joined by dots; "" for a single tensor.

    Example:
        >>> list(tensors_of({"aux": tensor, "out": (tensor, tensor)}))
        ['aux', 'out.0', 'out.1']
    """
    if isinstance(result, Tensor):
        return {name: result}
    tensors: dict[str, Tensor] = {}
    for key, part in _parts(result):
        tensors |= tensors_of(part, f"{name}.{key}" if name else str(key))
    return tensors


def _parts(result: Any) -> list[tuple[Any, Any]]:
    if isinstance(result, Mapping):
        return list(result.items())
    if is_dataclass(result):
        return [(field.name, getattr(result, field.name)) for field in fields(result)]
    if hasattr(result, "_fields"):  # a named tuple
        return list(zip(result._fields, result, strict=True))
    return list(enumerate(result)) if isinstance(result, list | tuple) else []
