"""The device where the arithmetic happens, and its random state."""

from __future__ import annotations

from collections.abc import Iterator
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
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise SettingError(f"device: {name!r} is not in this machine; it has {', '.join(found)}") from None
    return device


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Leaves the global random states as they were found, whatever is seeded inside.

    `torch.manual_seed` seeds every GPU, whichever is used; so all are put back, also after work on the CPU. GPUs that this
    process has not used yet are not started for it.
    """
    started = device.type == "cuda" or torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if started else []):
        yield
