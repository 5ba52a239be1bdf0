"""Image folders: `train/val/test/<class>/…`, any two of the three, or `<class>/…`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from convscope.data.images import Item
from convscope.data.source import Source, file_digest_of, rows_of_parts, split_of
from convscope.errors import DataError

_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
_LAYOUT = "expected train/<class>/…, val/<class>/…, test/<class>/… or <class>/…"


@dataclass(frozen=True, eq=False)
class ImageFolder(Source):
    """An image folder; row i is `files[i]`."""

    root: Path
    files: tuple[Path, ...]

    def digest(self) -> str:
        with ThreadPoolExecutor() as pool:
            contents = pool.map(file_digest_of, self.files)
            lines = [
                f"{file.relative_to(self.root).as_posix()} {content}"
                for file, content in zip(self.files, contents, strict=True)
            ]
        return blake2b("\n".join(lines).encode(), digest_size=32).hexdigest()

    def items(self, rows: Int64[np.ndarray, " n"]) -> Iterator[Item]:
        return (self.files[row] for row in rows)

    def name(self, row: int) -> str:
        return str(self.files[row])


def open_folder(root: Path, words: str | None = None) -> ImageFolder:
    """The image folder at `root`. A folder named train, val or test (or training, validation …) is a split.

    The names of the class folders, sorted, are the classes. Every file below a class folder is one of its
    images; hidden files and those that file managers leave are passed over.

    Raises:
        DataError: there are no class folders, or one of them is empty.
    """
    splits = {split: folder for folder in _folders(root) if (split := split_of([folder.name]))}
    if "train" not in splits:
        splits = {"all": root}
    found = {split: _files_by_class(folder) for split, folder in splits.items()}
    classes = sorted({name for by_class in found.values() for name in by_class})
    _check_train_has_all(root, found, classes)
    files, labels = [], []
    for by_class in found.values():
        for name, members in by_class.items():
            files += members
            labels += [classes.index(name)] * len(members)
    parts = rows_of_parts({split: sum(map(len, by_class.values())) for split, by_class in found.items()})
    return ImageFolder(
        words or f"image folder {root}", parts, np.array(labels, np.int64), tuple(classes), root, tuple(files)
    )


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    by_class = {each.name: _files(each) for each in _folders(folder)}
    if not by_class:
        raise DataError(f"{folder}: no class folders in it; {_LAYOUT}")
    for name, files in by_class.items():
        if not files:
            raise DataError(f"{folder / name}: this class folder is empty; put images into it or remove it")
    return by_class


def _check_train_has_all(root: Path, found: dict[str, dict[str, list[Path]]], classes: list[str]) -> None:
    if missing := sorted(set(classes) - set(found.get("train", classes))):
        raise DataError(f"{root}: class {missing[0]!r} has images, but none in train; add some or remove its folder")


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".") and file.name.lower() not in _SYSTEM_FILES
    )
