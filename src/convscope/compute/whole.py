"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from convscope.base.unfinished import UNFINISHED, mark, remove_abandoned
from convscope.errors import READ_ONLY, ReadOnlyError, WriteError

Content = bytes | str | Callable[[BinaryIO], None]
"""Of a file; what is too large for the memory is a function that writes it into the open file."""


def write_whole(path: Path, content: Content) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part: temporary name, flush, rename.

    What processes that were killed have left half-written beside it is removed.

    Raises:
        ReadOnlyError: nothing may be written there.
        WriteError: it cannot be written for another reason (a full disk, a file where a folder should be, too long a name);
            the old file is untouched.
    """
    # Of a long name the beginning, so that the temporary one is no longer than a name may be.
    temporary = path.with_name(f".{path.name[:40]}.{mark()}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        with suppress(OSError):  # it is renamed, or was never made; an error here must not hide the first one
            temporary.unlink()
    remove_abandoned(path.parent)


def write_folder_whole(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Writes a folder of files so that a reader sees the old one or the new; one that is there is replaced.

    Args:
        folder: its path.
        files: content by name; a name may have a folder of its own in front: "images/3.png".
    Raises:
        ReadOnlyError, WriteError: as of `write_whole`.
    """
    temporary, old = (folder.with_name(f".{folder.name}.{mark()}{UNFINISHED}") for _ in range(2))
    try:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content.encode() if isinstance(content, str) else content)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    except OSError as error:
        raise _failed(folder, error) from error
    finally:
        if not folder.exists():  # the new one could not take its place
            with suppress(OSError):
                os.replace(old, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    remove_abandoned(folder.parent)


def check_writable(folder: Path) -> None:
    """Refuses a folder in which nothing may be written, before work whose result would be lost.

    Raises:
        ReadOnlyError: the folder, or the nearest one above it that is there, is read-only.
    """
    nearest = next((place for place in (folder, *folder.parents) if os.path.exists(place)), folder)
    if not os.access(nearest, os.W_OK):
        raise ReadOnlyError(
            f"nothing can be written in {nearest}: it is read-only; choose another --out, or copy the run"
        )


def _failed(path: Path, error: OSError) -> WriteError:
    cure = "free space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another --out"
    kind = ReadOnlyError if error.errno in READ_ONLY else WriteError
    file = next((part for part in path.parents if os.path.isfile(part)), None)
    reason = f"{file} is a file, not a folder" if file else error.strerror or error
    return kind(f"{path} cannot be written: {reason}; {cure}")
