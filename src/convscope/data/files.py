"""Image files that are named one by one, or by the folders that hold them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from convscope.data.layouts import has_image_ending
from convscope.errors import DataError


def image_files(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """The files, and those in the folders and all folders below them, in the order of their names; links are followed.

    Args:
        paths: of files, which are taken whatever their ending is, and of folders, of which files that end as images do are
            taken, hidden ones left out.
    Raises:
        DataError: a path is not there, or a folder holds no image.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from _files_below(path)
        elif os.path.lexists(path):
            yield path
        else:
            raise DataError(f"{path}: there is no such file or folder; give image files, or folders that hold some")


def in_text(path: Path) -> str:
    """A path as every file format can hold it: bytes of its name that are no text are written out."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _files_below(folder: Path) -> Iterator[Path]:
    found, visited = False, {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=True):
        inside = [(name, os.path.realpath(os.path.join(place, name))) for name in sorted(folders)]
        folders[:] = [name for name, real in inside if not name.startswith(".") and real not in visited]
        visited.update(real for _, real in inside)
        for name in sorted(files):
            if not name.startswith(".") and has_image_ending(name):
                found = True
                yield Path(place, name)
    if not found:
        raise DataError(f"{folder}: holds no image file, nor does any folder below it; check the path")
