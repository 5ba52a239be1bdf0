"""How many images at once a scan works on."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from convscope.data import ImageSet
from convscope.graph import TracedGraph

MAX_MEMORY = 512 * 2**20
"""Bytes that a pass takes above the network where `max_memory` is not given; fixed, so that batches are the same everywhere."""

_MAP = 16 * 2**20
"""Bytes of a batch's largest map on the CPU. The allocator fetches pieces above 32 MiB anew from the system each time."""
_FEWEST = 8
"""Images that share the cost of a batch, such as the exact sums of all pairs of units, where the memory has room for them."""
_COPIES = 6
"""The largest map so many times: input and output of the operation that runs, and what a scan makes of it."""
_MOST = 512
_MOST_ROWS = 4096


def batch_that_fits(
    graph: TracedGraph | None, layers: Sequence[str], images: ImageSet | Tensor, max_memory: int | None = None
) -> int:
    """How many images at once: as many as fit the memory, a power of two, at most 512.

    It depends on the network, the layers, the device and the budget, not on what happens to be free.

    Args:
        graph: the traced network; None where no layer is looked at.
        layers: those whose results are held until the batch is done.
        images: those that are shown, which tell the size without a graph.
        max_memory: the budget in bytes; `MAX_MEMORY` by default.
    """
    budget = max_memory or MAX_MEMORY
    if graph is None:
        image = images.pixels[0] if isinstance(images, ImageSet) else images[0]
        return _power_of_two(budget // (256 * 4 * image.numel()))  # maps of 64 units, read and written, and to spare
    on_cpu = all(p.device.type == "cpu" for p in graph.net.parameters())
    sizes = {op.name: 4 * prod(op.output_shape) for op in graph.operations}
    largest = max(sizes.values())
    fits = budget // (sum(sizes[name] for name in layers) + _COPIES * largest)
    return _power_of_two(min(fits, max(_FEWEST, _MAP // largest)) if on_cpu else fits)


def rows_that_fit(values_each: int, on_cpu: bool, max_memory: int | None = None) -> int:
    """How many rows at once a pass through part of the network takes, by the same rule.

    Args:
        values_each: those of the largest result of a row.
        on_cpu: where it runs.
        max_memory: the budget in bytes; `MAX_MEMORY` by default.
    """
    fits = (max_memory or MAX_MEMORY) // (_COPIES * 4 * values_each)
    return max(1, min(_MOST_ROWS, fits, _MAP // (4 * values_each) if on_cpu else fits))


def _power_of_two(number: int) -> int:
    return 1 << (max(1, min(_MOST, number)).bit_length() - 1)
