"""How a process gives memory back."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt in malloc.h


def tune_memory() -> None:
    """Lets this process keep what it frees, for its next use, and look for reference cycles less often.

    Python looks for them after each 700 new objects, which is a seventh of the time of a command that traces a network.

    The GNU C library takes each block above 32 MB from the system anew, which clears it page by page: for the maps of large
    images that takes as long as their convolutions. It says what is kept for all of the process, so programs call this, not
    the library. Another C library stays as it is.
    """
    gc.set_threshold(10_000, 20, 20)
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
            mallopt(parameter, value)


@contextmanager
def memory_returned() -> Iterator[None]:
    """After the body the system gets what the process has freed and kept, for the next part of a command needs other memory.

    Where the body took less than 128 MB nothing is done: to look for reference cycles takes longer than to train a small
    network.
    """
    before = _resident()
    yield
    if _resident() - before > 2**27:
        gc.collect()
        with suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as figures:
            return int(figures.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
