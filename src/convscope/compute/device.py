"""The device where the arithmetic happens, and its random state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from convscope.errors import SettingError


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
        names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise SettingError(f"device: {name!r} is not in this machine; it has {', '.join(names)}") from None
    return device


def evaluation_batch(shape: Sequence[int], device: torch.device, least: int = 32) -> int:
    """Images at once where no gradients are kept: up to 512 small ones.

    On a CPU the maps of many large images are new memory at each layer, whose clearing takes as long as the convolutions; so
    there are no more of them than have 2²¹ values together.

    Args:
        shape: of what the network, or the part of it that runs, takes: of one image.
        device: where it runs.
        least: of large images on a GPU, which is slower with a few at a time.
    """
    return min(512, max(1 if device.type == "cpu" else least, 2**21 // math.prod(shape)))


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Leaves the global random states as they were found, whatever is seeded inside.

    `torch.manual_seed` seeds every GPU, whichever is used; so all are put back, also after work on the CPU. GPUs that this
    process has not used yet are not started for it.
    """
    started = device.type == "cuda" or torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if started else []):
        yield
