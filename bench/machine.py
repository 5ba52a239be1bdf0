"""The machine's own limit: its measured rate of matrix products, to hold other figures against."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def wait(device: torch.device) -> None:
    """Waits until the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 5, warm_up: int = 2) -> float:
    """The median time of a piece of work."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def matrix_product_rate(device: torch.device, dtype: torch.dtype, side: int = 2048) -> float:
    """Floating-point operations per second of a square matrix product."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device)


def describe(device: torch.device) -> str:
    """Hardware and versions, for the head of a table of figures."""
    from convscope.runs import describe_environment

    found = describe_environment()
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{found['processor']}, {found['threads']} threads"
    )
    return f"{name}; Python {found['python']}, PyTorch {found['packages']['torch']}, {found['date'][:10]}"
