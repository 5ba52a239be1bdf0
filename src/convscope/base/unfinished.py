"""Temporary names that say whose they are: what a killed process left is told from what another process is writing."""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import time
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path

UNFINISHED = ".unfinished"
"""In the name of each temporary file and folder."""

_ABANDONED_S = 2 * 24 * 3600
"""A temporary file as old as this is abandoned, also one of another machine or an older convscope."""

_MARK = re.compile(r"(?<!\w)(\d+)-(?:([0-9a-f]{6})-)?[0-9a-f]{2,8}(?!\w)")
"""Number of the process and digits of its machine, which early versions did not write."""


def mark() -> str:
    """This process and a number drawn at random: what stands in the name of a temporary file of ours."""
    return f"{os.getpid()}-{_machine()}-{secrets.token_hex(4)}"


def remove_abandoned(folder: Path) -> None:
    """Removes the temporary files and folders in a folder whose processes are no more; nothing where it cannot be written."""
    with suppress(OSError):
        for left in os.scandir(folder):
            if left.name.startswith(".") and UNFINISHED in left.name and _is_abandoned(left):
                if left.is_dir(follow_symlinks=False):
                    shutil.rmtree(left.path, ignore_errors=True)
                else:
                    with suppress(FileNotFoundError):  # another process has just removed it
                        os.unlink(left.path)


def _is_abandoned(left: os.DirEntry[str]) -> bool:
    with suppress(FileNotFoundError):  # its process has just finished
        if time.time() - left.stat(follow_symlinks=False).st_mtime > _ABANDONED_S:
            return True
    found = _MARK.search(left.name)
    # Windows would end the process that is asked whether it lives
    return found is not None and found[2] in (None, _machine()) and os.name == "posix" and not _lives(int(found[1]))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    return True


@cache
def _machine() -> str:
    """Six digits for this machine, and in it the space of process numbers: containers have their own."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return blake2b(f"{platform.node()} {space}".encode(), digest_size=3).hexdigest()
