"""Image folders: `train/val/test/<class>/…`, train with one of the others, or `<class>/…`; see `layouts` for the rules."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np

from convscope.compute import chunks, in_order
from convscope.data.images import Item
from convscope.data.layouts import Folder, has_image_ending, is_hidden, understood
from convscope.data.source import Rows, Source, file_digest_of, rows_of_parts
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


def in_text(path: Path | str) -> str:
    """A path as every file format can hold it: bytes of its name that are no text are written out."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _files_below(folder: Path) -> Iterator[Path]:
    found, visited = False, {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=True):
        inside = [(name, os.path.realpath(os.path.join(place, name))) for name in sorted(folders)]
        folders[:] = [name for name, real in inside if not is_hidden(name) and real not in visited]
        visited.update(real for _, real in inside)
        for name in sorted(files):
            if not is_hidden(name) and has_image_ending(name):
                found = True
                yield Path(place, name)
    if not found:
        raise DataError(f"{folder}: holds no image file, nor does any folder below it; check the path")


@dataclass(frozen=True, eq=False)
class ImageFolder(Source):
    """An image folder; row i is `files[i]`.

    Args:
        root: the folder.
        files: of the images; one that is named in a table may lie elsewhere, or not be there.
    """

    root: Path
    files: tuple[Path, ...]

    def digest(self) -> str:
        parts = in_order(lambda files: list(map(_digest_of, files)), chunks(self.files, 64), os.cpu_count() or 1)
        contents = chain.from_iterable(parts)
        lines = [f"{self.short_name(row)} {content}" for row, content in enumerate(contents)]
        return blake2b("\n".join(lines).encode(), digest_size=32).hexdigest()

    def items(self, rows: Rows) -> Iterator[Item]:
        return (self.files[row] for row in rows)

    def name(self, row: int) -> str:
        return in_text(self.files[row])

    def short_name(self, row: int) -> str:
        return in_text(str(self.files[row]).removeprefix(f"{self.root}{os.sep}"))


def open_folder(root: Folder) -> ImageFolder:
    """The image folder at `root`; the names of the class folders, sorted, are the classes.

    Raises:
        DataError: there are no class folders, one of them is empty, or the layout can be read in two ways.
    """
    by_split, layout = understood(root)
    classes = sorted({name for by_class in by_split.values() for name in by_class})
    files: list[Path] = []
    labels: list[int] = []
    for by_class in by_split.values():
        for name, folder in by_class.items():
            files += folder.all_files
            labels += [classes.index(name)] * len(folder.all_files)
    sizes = {split: sum(len(folder.all_files) for folder in by_class.values()) for split, by_class in by_split.items()}
    return ImageFolder(
        f"image folder {root.path}",
        rows_of_parts(sizes),
        {"class": np.array(labels, np.int64)},
        {"class": tuple(classes)},
        root.path,
        tuple(files),
        layout=layout,
    )


def _digest_of(file: Path) -> str:
    """Of the file's bytes; a file that cannot be read is reported when it is opened as an image."""
    try:
        return file_digest_of(file) if os.path.isfile(file) else "no file"
    except DataError:
        return "unreadable"
