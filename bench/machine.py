"""What the benches share: time taken in turns, the rate of matrix products, hardware and versions in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

CPU = torch.device("cpu")


def wait(device: torch.device) -> None:
    """Waits until the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(
    work: Callable[[], Any], device: torch.device = CPU, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, Any]:
    """The time of a piece of work, and what it gives."""
    wait(device)
    start = clock()
    found = work()
    wait(device)
    return clock() - start, found


def in_turns(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device = CPU,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: int = 0,
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each way in each round, and what it gave last.

    The ways take turns, so that whatever else the machine does falls on all. `warm_up` rounds before are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for number in range(-warm_up, rounds):
        for name, work in ways.items():
            took, found[name] = seconds_of(work, device, clock)
            if number >= 0:
                times[name].append(took)
    return times, found


def matrix_product_rate(device: torch.device, dtype: torch.dtype, side: int = 2048) -> float:
    """Floating-point operations per second of a square matrix product."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times, _ = in_turns({"product": lambda: a @ b}, 5, device, warm_up=2)
    return 2 * side**3 / median(times["product"])


def flags() -> str:
    """The vector instructions that PyTorch knows of the processor."""
    return " ".join(name for name, there in torch.cpu.get_capabilities().items() if there is True)


def describe(device: torch.device = CPU) -> str:
    """Hardware and versions, for the head of a table of figures."""
    from convscope.runs import describe_environment

    found = describe_environment()
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{found['processor']}, {found['threads']} threads"
    )
    return f"{name}; Python {found['python']}, PyTorch {found['packages']['torch']}, {found['date'][:10]}"
