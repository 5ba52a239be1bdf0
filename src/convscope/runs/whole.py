"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from convscope.errors import FailedError

_UNFINISHED = ".unfinished"


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part: temporary name, flush, rename.

    Raises:
        FailedError: it cannot be written (a full disk, no rights, a file where a folder should be); the old file is
            untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        cure = "free space there" if error.errno == errno.ENOSPC else "choose another --out"
        raise FailedError(f"{path} cannot be written: {_reason(path, error)}; {cure}") from None
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            temporary.unlink()


def _reason(path: Path, error: OSError) -> str:
    """What the system says, or plainer: which part of the path is a file."""
    file = next((part for part in path.parents if part.is_file()), None)
    return f"{file} is a file, not a folder" if file else str(error.strerror or error)


def remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed while writing left half-written."""
    for left in folder.glob(f".*{_UNFINISHED}"):
        left.unlink(missing_ok=True)
