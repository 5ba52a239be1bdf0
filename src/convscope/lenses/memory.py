"""Work in portions that fit a memory budget, in place of a batch argument for each lens."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral

import torch

from convscope.data import available_memory
from convscope.errors import RequestError, shortened

SHARE = 0.25
"""Share of the free memory that a lens takes where `max_memory` is not given."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; on the CPU `available_memory`."""
    if device.type == "cuda":  # what PyTorch holds for later use counts as taken there, and is free for it
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    return available_memory()


def portions(n: int, bytes_each: int, device: torch.device, max_memory: int | None = None) -> Iterator[slice]:
    """Slices that cover range(n) in order, each of as many items as fit the budget, but at least one.

    Args:
        n: number of items.
        bytes_each: what one item takes while it is worked on.
        device: whose memory counts.
        max_memory: the budget in bytes; `SHARE` of the free memory by default.
    Raises:
        RequestError: the budget is no whole number above 0.
    """
    budget = max(1, int(SHARE * free_memory(device))) if max_memory is None else max_memory
    if isinstance(budget, bool) or not isinstance(budget, Integral) or budget <= 0:
        raise RequestError(f"max_memory: {shortened(max_memory)} bytes; expected a whole number above 0")
    size = max(1, budget // max(1, bytes_each))
    for start in range(0, n, size):
        yield slice(start, min(n, start + size))
