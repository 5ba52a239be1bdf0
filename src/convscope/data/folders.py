"""Image folders: `train/val/test/<class>/…`, train with one of the others, or `<class>/…`; see `layouts` for the rules."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from convscope.data.files import in_text
from convscope.data.images import Item
from convscope.data.layouts import Folder, Layout, understood
from convscope.data.source import Source, file_digest_of, rows_of_parts
from convscope.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageFolder(Source):
    """An image folder; row i is `files[i]`."""

    layout: Layout
    files: tuple[Path, ...]

    def digest(self) -> str:
        with ThreadPoolExecutor() as pool:
            contents = pool.map(_digest_of, self.files)
            lines = [
                f"{file.relative_to(self.layout.root).as_posix()} {content}"
                for file, content in zip(self.files, contents, strict=True)
            ]
        return blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=32).hexdigest()

    def items(self, rows: Int64[np.ndarray, " n"]) -> Iterator[Item]:
        return (self.files[row] for row in rows)

    def name(self, row: int) -> str:
        return in_text(self.files[row])

    def understood(self) -> tuple[str, ...]:
        return self.layout.in_words()


def open_folder(root: Folder, words: str | None = None) -> ImageFolder:
    """The image folder at `root`; the names of the class folders, sorted, are the classes.

    Raises:
        DataError: there are no class folders, one of them is empty, or the layout can be read in two ways.
    """
    layout = understood(root)
    classes = sorted({name for by_class in layout.classes.values() for name in by_class})
    files: list[Path] = []
    labels: list[int] = []
    sizes: dict[str, int] = {}
    for split, by_class in layout.classes.items():
        before = len(files)
        for name, folder in by_class.items():
            files += folder.all_files()
            labels += [classes.index(name)] * (len(files) - len(labels))
        sizes[split] = len(files) - before
    return ImageFolder(
        words or f"image folder {root.path}",
        rows_of_parts(sizes),
        np.array(labels, np.int64),
        tuple(classes),
        layout,
        tuple(files),
    )


def _digest_of(file: Path) -> str:
    """Of the file's bytes; what cannot be read is said when it is opened as an image."""
    try:
        return file_digest_of(file) if file.is_file() else "no file"
    except DataError:
        return "unreadable"
