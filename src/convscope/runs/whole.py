"""Files that are written whole or not at all, and objects that are read from them."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from convscope.errors import READ_ONLY, FailedError, ReadOnlyError
from convscope.unfinished import UNFINISHED, mark, remove_abandoned


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part: temporary name, flush, rename.

    What processes that were killed have left half-written beside it is removed.

    Raises:
        ReadOnlyError: nothing may be written there.
        FailedError: it cannot be written for another reason (a full disk, a file where a folder should be, too long a name);
            the old file is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    # Of a long name the beginning, so that the temporary one is no longer than a name may be.
    temporary = path.with_name(f".{path.name[:40]}.{mark()}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _failed(path, error) from None
    finally:
        with suppress(OSError):  # it is renamed, or was never made; an error here must not stand for the first one
            temporary.unlink()
    remove_abandoned(path.parent)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError, ValueError, RecursionError: it is missing, or damaged.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("no object is in it")
    return found


def object_in(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where it is missing or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        return read_object(path)
    return {}


def check_writable(folder: Path) -> None:
    """Refuses a folder in which nothing may be written, before work whose result would be lost.

    Raises:
        ReadOnlyError: the folder, or the nearest one above it that is there, is read-only.
    """
    there = next((place for place in (folder, *folder.parents) if os.path.exists(place)), folder)
    if not os.access(there, os.W_OK):
        raise ReadOnlyError(
            f"nothing can be written in {there}: it is read-only; choose another --out, or copy the run"
        )


def _failed(path: Path, error: OSError) -> FailedError:
    cure = "free space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another --out"
    kind = ReadOnlyError if error.errno in READ_ONLY else FailedError
    return kind(f"{path} cannot be written: {_reason(path, error)}; {cure}")


def _reason(path: Path, error: OSError) -> str:
    """What the system says, or plainer: which part of the path is a file."""
    file = next((part for part in path.parents if os.path.isfile(part)), None)
    return f"{file} is a file, not a folder" if file else str(error.strerror or error)
