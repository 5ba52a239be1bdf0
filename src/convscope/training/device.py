"""How the arithmetic is done on a device: its number format, and the layout of feature maps in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from convscope.graph import left_as_found
from convscope.runs import Recipe


def number_format(recipe: Recipe, device: torch.device) -> torch.dtype:
    """fp32 or bf16: what the recipe says; "auto" is bf16 where a GPU has it."""
    if recipe.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[recipe.precision]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which a forward pass computes in `dtype`, where that is safe; weights stay fp32."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def place(net: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """The network on its device, in the recipe's memory layout."""
    net = net.to(device)
    if recipe.channels_last:  # not by Module.to, which refuses tensors of five axes
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return net


@contextmanager
def undone(net: nn.Module) -> Iterator[None]:
    """Puts back what a training inside changes of a network: weights, buffers, modes, its own attributes, random state."""
    # all are copied, for batch norm writes its statistics past PyTorch's count of changes
    before = [(tensor, tensor.detach().clone()) for tensor in (*net.parameters(), *net.buffers())]
    try:
        with left_as_found(net):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
