"""Who is at work on this machine: a name is present as long as the process that took it lives, however that ends.

A name is a lock on a file of this machine, which the system frees with the process. So no number of a process is kept, which
another process may have later, and a name that another machine took is unknown here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def present(name: str) -> Iterator[None]:
    """The name is present inside. After an error its file stays, as after a kill: so it is known to be no more."""
    file = _file(name)
    with ExitStack() as held:
        with suppress(OSError):  # where no file can be, nobody here knows of it, as on another machine
            file.parent.mkdir(mode=0o700, exist_ok=True)
            if _is_own(file.parent):
                held.enter_context(FileLock(file))
        yield
    with suppress(OSError):
        file.unlink()


def is_present(name: str) -> bool | None:
    """Whether the process that took the name lives; None where it was never taken on this machine, or was given up."""
    file = _file(name)
    if not file.exists() or not _is_own(file.parent):
        return None
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True


def _is_own(folder: Path) -> bool:
    """Whether it is this user's; in the temporary folder of all users another may have made one of this name before."""
    return not folder.is_symlink() and (not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid())


def _file(name: str) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"convscope-{user}" / f"{name}.lock"
