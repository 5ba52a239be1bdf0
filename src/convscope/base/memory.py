"""How a process gives memory back."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

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


class _Allocated(ctypes.Structure):
    """mallinfo2 of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def give_back() -> None:
    """Gives the system what this process has freed and kept, between parts of a command that need other memory.

    Below 128 MB nothing is done: to look for cycles takes as long as the training of a small network.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = _Allocated
        if libc.mallinfo2().fordblks > 2**27:
            gc.collect()
            libc.malloc_trim(0)
