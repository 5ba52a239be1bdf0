"""Work in threads, with the results in order and few of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import TypeVar

import torch

In = TypeVar("In")
Out = TypeVar("Out")


def in_order(work: Callable[[In], Out], tasks: Iterable[In], n_threads: int) -> Iterator[Out]:
    """The results of the tasks in their order; only a few tasks are drawn ahead of the reader."""
    if n_threads == 1:
        yield from map(work, tasks)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[Out]] = deque()
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def chunks(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """The items in lists of `size`; the last may be shorter."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Inside, PyTorch's CPU operations use `count` threads, for None as many as before; the last bits of sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_threads(work: Callable[[In], Out], tasks: Iterable[In]) -> Iterator[Out]:
    """The results of the tasks in their order, with PyTorch's threads shared out among them.

    Operations on small tensors gain more from a thread for each task than from several within each operation. PyTorch has one
    number of threads for whatever begins meanwhile; it is put back at the end.
    """
    n_threads, remaining = torch.get_num_threads(), iter(tasks)
    first = list(islice(remaining, n_threads))
    each = n_threads // max(1, len(first))

    def alone(task: In) -> Out:
        torch.set_num_threads(each)
        return work(task)

    with threads(each):  # of this thread, which draws the tasks
        yield from in_order(alone, chain(first, remaining), max(1, len(first)))
