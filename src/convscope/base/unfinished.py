"""Temporary names that say whose they are: what a killed process left can be told from what another is writing."""

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
        for entry in os.scandir(folder):
            if entry.name.startswith(".") and UNFINISHED in entry.name and _is_abandoned(entry):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(FileNotFoundError):  # another process has just removed it
                        os.unlink(entry.path)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    with suppress(FileNotFoundError):  # its process has just finished
        if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_S:
            return True
    match = _MARK.search(entry.name)
    # Windows would end the process that is asked whether it lives
    return match is not None and match[2] in (None, _machine()) and os.name == "posix" and not _lives(int(match[1]))


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
