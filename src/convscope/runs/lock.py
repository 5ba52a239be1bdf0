"""One training at a time in a run folder: a lock that the system frees with the process that holds it, however that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convscope.errors import FolderInUseError

try:
    import fcntl
except ImportError:  # no POSIX: there is no lock
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else is inside `alone_in` of the same folder, as far as its file system has locks.

    The lock is on the folder itself, so that it leaves no file there. A folder that is missing or cannot be read is left to
    those who use it: they say what is wrong.

    Raises:
        FolderInUseError: another process, or another call in this one, is there.
    """
    try:
        handle = os.open(folder, os.O_RDONLY) if fcntl else None
    except OSError:
        handle = None
    try:
        if handle is not None:
            _lock(handle, folder)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FolderInUseError(
            f"{folder} is in use: another process is training there; wait for its end or stop it, then try again"
        ) from None
    except OSError:  # a file system without locks on folders, as NFS
        pass
