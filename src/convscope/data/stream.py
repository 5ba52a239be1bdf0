"""Encoded images of any number, one after another: files, those in folders, and the rows of parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from convscope.data.folders import image_files, in_text
from convscope.data.images import Item
from convscope.data.layouts import read_tree
from convscope.data.tables import Table, read_parquet
from convscope.errors import DataError


@dataclass(frozen=True)
class NamedItems:
    """Some encoded images with their names."""

    names: list[str]
    items: list[Item]


class ImageStream:
    """The images of files, folders and parquet files, in order; none is opened before it is its turn.

    A row of a parquet file is called by the file and its number: "shots.parquet:17".

    Args:
        paths: image files, parquet files, and folders of either; of a folder that holds images these count.
    Raises:
        DataError: a path is not there, or holds no image.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.sources: list[Path | Table] = []
        for path in map(Path, paths):
            if path.suffix == ".parquet":
                self.sources.append(_table(path))
                continue
            try:
                self.sources += image_files([path])
            except DataError:
                tables = read_tree(path).parquet_files if path.is_dir() else []
                if not tables:
                    raise
                self.sources += map(_table, tables)
        if not self.sources:
            raise DataError("no images are given; give image files, parquet files, or folders")
        self.count = sum(1 if isinstance(source, Path) else source.n_rows for source in self.sources)

    def __len__(self) -> int:
        return self.count

    @property
    def digest(self) -> str:
        """Of what there is: the names of files, and of parquet files their size and rows."""
        content = blake2b(digest_size=16)
        for source in self.sources:
            if isinstance(source, Path):
                words = in_text(source)
            else:
                words = f"{source.name} {source.files[0].stat().st_size} {source.n_rows}"
            content.update(words.encode() + b"\n")
        return content.hexdigest()

    @property
    def files(self) -> list[Path]:
        """The image files among them."""
        return [source for source in self.sources if isinstance(source, Path)]

    def __iter__(self) -> Iterator[tuple[str, Item]]:
        for source in self.sources:
            if isinstance(source, Path):
                yield in_text(source), source
            else:
                yield from ((f"{source.name}:{row}", item) for row, item in enumerate(source.images()))


def _table(file: Path) -> Table:
    """A parquet file with a column of images."""
    if not file.exists():
        raise DataError(f"{file}: there is no such file; give image files, parquet files, or folders")
    table = read_parquet(file)
    table.image_column  # noqa: B018 (which raises an error where there is none)
    return table
