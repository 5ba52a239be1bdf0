"""Decoded pixels in the cache, read back into memory or mapped from the file.

The card of an entry holds what the decoder had to say. Its file `.npy` holds one array after another, none of them a pickle:

    pixels         uint8 or uint16 (M, C, H, W)
    digests        uint8 (M, 16)        BLAKE2b of each image's pixels: equal images have equal digests
    moments        int64 (M, 2, C)      sum, and sum of squares, of the pixels of each image and channel

It may be larger than the memory: a reader checks its size, and the content of the last two arrays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Int64, UInt, UInt8
from torch import Tensor

from convscope.base.console import progress_bar
from convscope.compute import Entry, cache_folder, entry_path, in_order, read_entry, write_entry
from convscope.errors import DataError, FailedError, ReadOnlyError

FORMAT = 2  # raise it whenever the same source and settings give other pixels or other files
_PIXELS = ".npy"
MEMORY_SHARE = 0.25  # pixels that would take more of the available memory are mapped, not read


@dataclass(frozen=True)
class Stored:
    """An entry of the cache, opened."""

    pixels: UInt[Tensor, "M C H W"]
    digests: UInt8[np.ndarray, "M 16"]
    moments: Int64[np.ndarray, "M 2 C"]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Filling:
    """What fills a new entry.

    Attributes:
        words: of the progress bar.
        shape: of all pixels, M C H W.
        tasks: for `draw`, each of the next images.
        draw: gives a task's pixels (n, C, H, W); called in threads.
        n_threads: how many.
        about: plain values to be kept with the pixels; complete after the last task.
        dtype: of the pixels.
    """

    words: str
    shape: tuple[int, int, int, int]
    tasks: Iterable[Any]
    draw: Callable[[Any], UInt[np.ndarray, "n C H W"]]
    n_threads: int
    about: dict[str, Any] = field(default_factory=dict)
    dtype: type[np.unsignedinteger[Any]] = np.uint8


def digests_and_moments(
    pixels: UInt[np.ndarray, "n C H W"],
) -> tuple[UInt8[np.ndarray, "n 16"], Int64[np.ndarray, "n 2 C"]]:
    """Of each image, both exact."""
    digests = np.stack([np.frombuffer(blake2b(image, digest_size=16).digest(), np.uint8) for image in pixels])
    wide = pixels.astype(np.float64)  # sums of squares are exact below 2^53: of a row always
    sums = np.stack([wide.sum(3), np.einsum("nchw,nchw->nch", wide, wide)], axis=1)
    return digests, sums.astype(np.int64).sum(3)


def obtain(name: str, key: Mapping[str, Any], fill: Callable[[], Filling]) -> Stored:
    """The pixels of a key, made by `fill` if they are not in the cache; from a read-only cache they are made each time.

    Args:
        name: of the data set, for people who list the cache.
        key: all that decides the pixels, as JSON values.
        fill: decodes the images.

    Raises:
        DataError: the cache folder cannot be written or is full.
    """
    try:
        return _obtain(cache_folder(), name, key, fill)
    except ReadOnlyError:
        with tempfile.TemporaryDirectory() as folder:
            return _obtain(Path(folder), name, key, fill)
    except FailedError as error:
        raise DataError(
            f"{cache_folder()}: cannot write decoded images there ({getattr(error.__cause__, 'strerror', error)}); "
            "make room, or set CONVSCOPE_CACHE to another folder"
        ) from error


def _obtain(root: Path, name: str, key: Mapping[str, Any], fill: Callable[[], Filling]) -> Stored:
    key = {"format": FORMAT, **key}
    path = entry_path(root, "data", name, key)
    stored = _read(path, key)
    if stored is None:
        write_entry(path, key, _entry(fill()))
        stored = _read(path, key)
    if stored is None:
        raise DataError(f"{path}: this entry was removed or damaged as soon as it was written; load again")
    return stored


def available_memory() -> int:
    """Bytes of memory still to be had, within the limit of a container; 4 GB where no one says."""
    figures = [_figure("/proc/meminfo", "MemAvailable:", 1024)]
    limit = _figure("/sys/fs/cgroup/memory.max")
    if limit is not None:
        # Cached files that are not in use count as taken, and are given back.
        idle = _figure("/sys/fs/cgroup/memory.stat", "inactive_file") or 0
        figures.append(limit - (_figure("/sys/fs/cgroup/memory.current") or 0) + idle)
    return max(0, min((figure for figure in figures if figure is not None), default=4 << 30))


def _figure(path: str, label: str = "", unit: int = 1) -> int | None:
    try:
        words = Path(path).read_text().split()
        return int(words[words.index(label) + 1 if label else 0]) * unit
    except (OSError, ValueError, IndexError):  # not Linux, or no limit: "max"
        return None


def _entry(filling: Filling) -> Entry:
    n_images, channels = filling.shape[:2]
    digests, moments = np.zeros((n_images, 16), np.uint8), np.zeros((n_images, 2, channels), np.int64)
    values: dict[str, Any] = {"about": filling.about}

    def drawn(task: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pixels = np.ascontiguousarray(filling.draw(task))
        return pixels, *digests_and_moments(pixels)

    def write(file: BinaryIO) -> None:
        header = {"descr": np.dtype(filling.dtype).str, "fortran_order": False, "shape": filling.shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = 0
        with progress_bar(filling.words, n_images) as advance:
            for pixels, *both in in_order(drawn, filling.tasks, filling.n_threads):
                stop = start + len(pixels)
                file.write(pixels.data)
                digests[start:stop], moments[start:stop] = both
                advance(len(pixels))
                start = stop
        for array in (digests, moments):
            np.save(file, array, allow_pickle=False)
        values["arrays"] = _digest(digests, moments)

    return Entry(values, {_PIXELS: write})


def _read(path: Path, key: Mapping[str, Any]) -> Stored | None:
    entry = read_entry(path, key)
    if entry is None:
        return None
    file: Path = entry.files[_PIXELS]
    try:
        with file.open("rb") as opened:
            if file.stat().st_size <= MEMORY_SHARE * available_memory():
                pixels = np.load(opened)
            else:
                pixels = np.load(file, mmap_mode="c")  # private pages, so a stray write can never reach the file
                opened.seek(pixels.offset + pixels.nbytes)
            digests, moments = np.load(opened), np.load(opened)
    except (OSError, ValueError, EOFError):  # removed meanwhile, or damaged
        return None
    whole = entry.values["arrays"] == _digest(digests, moments)
    return Stored(torch.from_numpy(pixels), digests, moments, entry.values["about"]) if whole else None


def _digest(*arrays: np.ndarray) -> str:
    return blake2b(b"".join(array.tobytes() for array in arrays), digest_size=16).hexdigest()
