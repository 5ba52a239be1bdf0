"""Where the arithmetic happens: the device, its number format, and the layout of feature maps in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from convscope.errors import SettingError
from convscope.runs import Recipe


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes a CUDA GPU, else Apple's, else the CPU.

    Raises:
        SettingError: there is no such device in this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise SettingError(f"device: {name!r} is not in this machine; it has {', '.join(found)}") from None
    return device


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


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Leaves the global random states as they were found, whatever is seeded inside.

    `torch.manual_seed` seeds every GPU, whichever is used; so all are put back, also after work on the CPU. GPUs that this
    process has not used yet are not started for it.
    """
    started = device.type == "cuda" or torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if started else []):
        yield
