"""How the arithmetic is done on a device: its number format, and the layout of feature maps in memory."""

from __future__ import annotations

import torch
from torch import nn

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
    layout = torch.channels_last if recipe.channels_last else torch.preserve_format
    return net.to(device=device, memory_format=layout)  # type: ignore[call-overload]
