"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from convscope.errors import FailedError
from convscope.unfinished import UNFINISHED, mark, remove_abandoned


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part: temporary name, flush, rename.

    What processes that were killed have left half-written beside it is removed.

    Raises:
        FailedError: it cannot be written (a full disk, no rights, a file where a folder should be); the old file is
            untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{mark()}{UNFINISHED}")
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
    remove_abandoned(path.parent)


def _reason(path: Path, error: OSError) -> str:
    """What the system says, or plainer: which part of the path is a file."""
    file = next((part for part in path.parents if part.is_file()), None)
    return f"{file} is a file, not a folder" if file else str(error.strerror or error)
