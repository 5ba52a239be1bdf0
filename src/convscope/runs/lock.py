"""One training at a time in a run folder: a lock that the system frees with the process that holds it, however that ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from convscope.errors import FolderInUseError


@contextmanager
def alone_in(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Nobody else is inside `alone_in` of the same folder, if its file system has locks; waits `patience_s` for that.

    The lock is on the folder itself, so that it leaves no file there. A folder that is missing or cannot be read is left to
    those who use it: they say what is wrong.

    Raises:
        FolderInUseError: another process, or another call in this one, is there.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # nor do all systems and file systems lock folders
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            end = time.monotonic() + patience_s
            while not (mine := lock_descriptor(handle, blocking=False)) and time.monotonic() < end:
                time.sleep(0.01)
            if not mine:
                raise FolderInUseError(
                    f"{folder} is in use: another process is training there; wait for its end or stop it, then try again"
                )
        yield
