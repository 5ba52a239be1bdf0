"""Arrays of images in an `.npz` file.

    x_train, y_train, x_val, y_val, x_test, y_test    images and labels of each split that there is
    x, y                                              or all together
    classes                                           optional: the names of the classes, as strings

`images` may stand for `x` and `labels` for `y`, before or after the split: `train_images` is `x_train`.
Images are (N, H, W), (N, H, W, C) or (N, C, H, W), with any C: the last axis if it is 1 or 3, else the second if that is, or if
the last two are equal; else the last. They are uint8, uint16, or floats in [0, 1].
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from convscope.data.images import Item
from convscope.data.source import Rows, Source, encode_labels, file_digest_of, rows_of_parts, split_of
from convscope.data.store import available_memory
from convscope.errors import DataError

_KINDS = {"x": "x", "images": "x", "y": "y", "labels": "y"}


@dataclass(frozen=True, eq=False)
class Arrays(Source):
    """The arrays of an `.npz` file; its parts follow each other."""

    file: Path
    images: tuple[np.ndarray, ...]

    def digest(self) -> str:
        return file_digest_of(self.file)

    def items(self, rows: Rows) -> Iterator[Item]:
        starts = np.cumsum([0, *map(len, self.images)])
        for row in rows:
            part = int(np.searchsorted(starts, row, side="right")) - 1
            yield self.images[part][row - starts[part]]

    def name(self, row: int) -> str:
        return f"{self.file} image {row}"


def open_arrays(file: Path) -> Arrays:
    """The images and labels of an `.npz` file; its keys are described at the top of this module.

    Raises:
        DataError: the file cannot be read without pickle, lacks a key, or has images of another shape or
            range.
    """
    arrays = _read(file)
    names = arrays.pop("classes", None)
    pairs, unused = _by_split(file, arrays)
    images = {split: _as_images(f"{file} {split}", pair["x"]) for split, pair in pairs.items()}
    for split, pair in pairs.items():
        n_images, shape = len(pair["x"]), pair["y"].shape
        if shape not in ((n_images,), (n_images, 1)):
            raise DataError(f"{file}: {split} has {n_images} images and labels of shape {shape}; give one each")
    if names is not None and names.ndim != 1:
        raise DataError(f"{file}: classes have the shape {names.shape}; expected a row of names, one for each class")
    values = np.concatenate([pair["y"].ravel() for pair in pairs.values()])
    if values.dtype.kind not in "iuU":
        raise DataError(
            f"{file}: labels are {values.dtype} of shape {values.shape}; "
            "expected one integer or one string for each image; convert them and save again"
        )
    labels, classes = encode_labels(values.tolist(), None if names is None else list(map(str, names)), str(file))
    return Arrays(
        f"file {file}",
        rows_of_parts({split: len(array) for split, array in images.items()}),
        {"class": labels},
        {"class": classes},
        file,
        tuple(images.values()),
        layout=(f"arrays that are not used: {', '.join(unused)}",) if unused else (),
    )


def _read(file: Path) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as opened:  # numpy leaves a broken file open
            _check_sizes(file, opened)
            arrays = np.load(opened, allow_pickle=False)
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise DataError(
            f"{file}: cannot be read as .npz ({error}); save numbers and strings with numpy.savez"
        ) from None


def _check_sizes(file: Path, opened: IO[bytes]) -> None:
    """Refuses arrays that are not as large as their headers say, or too large for the memory, before any is made.

    Raises:
        DataError: there is one; the message names it.
    """
    total = 0
    with zipfile.ZipFile(opened) as packed:
        for member in packed.infolist():
            with packed.open(member) as array:
                version = np.lib.format.read_magic(array)
                header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = header(array)
                held = member.file_size - array.tell()
            declared = math.prod(shape) * dtype.itemsize
            if min(shape, default=1) < 0 or (declared != held and not dtype.hasobject):
                raise DataError(f"{file}: {member.filename} says {declared:,} bytes and holds {held:,}; save it again")
            total += declared
    opened.seek(0)
    if total > available_memory():
        raise DataError(
            f"{file}: its arrays take {total / 1e9:,.1f} GB and there are {available_memory() / 1e9:,.1f} GB of memory; "
            "give an image folder or parquet files, which are read in parts"
        )


def _by_split(file: Path, arrays: dict[str, np.ndarray]) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """The images, "x", and labels, "y", of each split, and the keys of what is neither."""
    pairs: dict[str, dict[str, np.ndarray]] = {}
    unused: list[str] = []
    for key, array in arrays.items():
        words = re.split(r"[-_. ]", key.lower())
        kind = next((_KINDS[word] for word in words if word in _KINDS), None)
        if kind is None:
            unused.append(key)
            continue
        pair = pairs.setdefault(split_of(words) or "all", {})
        if kind in pair:
            raise DataError(f"{file}: {key} stands for the same array as another key; leave one of them out")
        pair[kind] = array
    complete = pairs and all(len(pair) == 2 for pair in pairs.values())
    if not complete or ("all" in pairs and len(pairs) > 1):
        raise DataError(
            f"{file}: has the keys {', '.join(arrays) or 'none'}; "
            "expected x_train and y_train, x_val and y_val, x_test and y_test, or x and y"
        )
    return pairs, unused


def _as_images(where: str, array: np.ndarray) -> np.ndarray:
    if 0 in array.shape[1:]:
        raise DataError(
            f"{where}: images have the shape {array.shape}, without a pixel; give images of one pixel at least"
        )
    if array.ndim not in (3, 4):
        raise DataError(
            f"{where}: images have the shape {array.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W)"
        )
    if array.ndim == 4:
        first, second, third = array.shape[1:]
        if third not in (1, 3) and (first in (1, 3) or second == third != first):  # the first are the channels
            array = array.transpose(0, 2, 3, 1)
        if array.shape[3] == 1:
            array = array[..., 0]
    if array.dtype.type in (np.uint8, np.uint16):
        return array.astype(array.dtype.type, copy=False)  # also of a foreign byte order
    if array.dtype.kind == "f" and array.size:
        if array.min() >= 0 and array.max() <= 1:
            return array
        fault = "hold NaN" if np.isnan(array).any() else f"run from {array.min():.4g} to {array.max():.4g}"
        raise DataError(
            f"{where}: images are {array.dtype} and {fault}; floats are expected from 0 to 1: scale them first"
        )
    raise DataError(
        f"{where}: images are {array.dtype}; expected uint8, uint16, or floats from 0 to 1; convert them first"
    )
