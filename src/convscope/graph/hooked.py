"""Shapes and counts of a network that cannot be exported, from one run with forward hooks."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.errors import NetworkError
from convscope.graph.untouched import evaluate, left_as_found
from convscope.graph.wrapped import opened

_KINDS: dict[type[nn.Module], str] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), "conv"),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), "conv_transpose"),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), "batch_norm"),
    nn.Linear: "dense",
    nn.ReLU: "relu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.LSTM: "lstm",
    nn.GRU: "gru",
    nn.RNN: "rnn",
}


def hooked_layers(net: nn.Module, example: Float[Tensor, "N C H W"]) -> list[dict[str, Any]]:
    """The modules that have no children, or parameters of their own, in the order in which they finish.

    Of each call its name, kind, output_shape, parameters and multiply_adds, as in `Layer`. Multiply-adds are known for
    convolutions and dense layers. The network is left as it was found.

    Raises:
        NetworkError: the network does not run on the example.
    """
    layers: list[dict[str, Any]] = []
    counted: set[int] = set()
    net = opened(net, example)
    with left_as_found(net), torch.no_grad():
        evaluate(net)
        for path, module in net.named_modules():
            if not any(module.children()) or list(module.parameters(recurse=False)):
                module.register_forward_hook(_hook(path, layers, counted))
        try:
            net(example[:1].detach().clone())
        except Exception as error:  # whatever a network's own code may raise
            shape = "×".join(map(str, example.shape[1:]))
            reason = " ".join(str(error).split())[:200]
            raise NetworkError(
                f"network {type(net).__name__} does not run on {shape} images "
                f"({type(error).__name__}: {reason}); give an example of the size it was made for"
            ) from error
    return layers


def _hook(path: str, layers: list[dict[str, Any]], counted: set[int]) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        result = output if isinstance(output, Tensor) else next((o for o in output if isinstance(o, Tensor)), None)
        if result is None:
            return
        new = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted.update(id(p) for p in new)
        kind = _kind(module)
        cost = _multiply_adds(kind, module, inputs, result)
        name = _numbered(path or kind, [layer["name"] for layer in layers])
        numbers = {"parameters": sum(p.numel() for p in new), "multiply_adds": cost}
        layers.append({"name": name, "kind": kind, "output_shape": tuple(result.shape[1:]), **numbers})

    return note


def _kind(module: nn.Module) -> str:
    """The field's word for the module, or its class's name in small letters."""
    known = next((kind for layer, kind in _KINDS.items() if isinstance(module, layer)), None)
    return known or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(module).__name__).lower()


def _multiply_adds(kind: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> int:
    """Every weight is used once at every position."""
    if kind == "conv":
        return module.weight.numel() * prod(output.shape[2:])  # type: ignore[operator]
    if kind == "conv_transpose":
        return module.weight.numel() * prod(inputs[0].shape[2:])  # type: ignore[operator]
    if kind == "dense":
        return module.weight.numel() * prod(output.shape[1:-1])  # type: ignore[operator]
    return 0


def _numbered(name: str, taken: list[str]) -> str:
    number = 1 + sum(t == name or (t.rpartition("_")[0] == name and t.rpartition("_")[2].isdigit()) for t in taken)
    return name if number == 1 else f"{name}_{number}"
