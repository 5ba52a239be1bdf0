"""Decoded pixels on disk: written whole or not at all, read back into memory or mapped from the file.

An entry of the cache is a folder named by its key:

    pixels.npy     uint8 (M, C, H, W)
    digests.npy    uint8 (M, 16)        BLAKE2b of each image's pixels: equal images have equal digests
    moments.npy    int64 (M, 2, C)      sum, and sum of squares, of the pixels of each image and channel
    about.json     what the decoder had to say

It is filled under a temporary name, flushed to the disk, and renamed. Where two processes make the same entry
at once, both do the work and the first to finish is kept. `.npy` files are read without pickle.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from convscope.errors import DataError
from convscope.unfinished import UNFINISHED, mark, remove_abandoned

FORMAT = 1  # raise it whenever the same source and settings give other pixels or other files
MEMORY_SHARE = 0.25  # pixels that would take more of the available memory are mapped, not read


@dataclass(frozen=True)
class Block:
    """Some images in a row, ready to be written, with what is to be known of each."""

    pixels: UInt8[np.ndarray, "n C H W"]
    digests: UInt8[np.ndarray, "n 16"]
    moments: Int64[np.ndarray, "n 2 C"]


@dataclass(frozen=True)
class Stored:
    """An entry of the cache, opened."""

    pixels: UInt8[Tensor, "M C H W"]
    digests: UInt8[np.ndarray, "M 16"]
    moments: Int64[np.ndarray, "M 2 C"]
    about: dict[str, Any]


@dataclass(frozen=True)
class Filling:
    """What fills a new entry: its shape, the blocks in order, and `about`, complete after the last."""

    shape: tuple[int, int, int, int]  # M C H W
    blocks: Iterable[Block]
    about: dict[str, Any]


def block_of(pixels: UInt8[np.ndarray, "n C H W"]) -> Block:
    """The images with their digests and moments, both exact."""
    pixels = np.ascontiguousarray(pixels)
    digests = np.stack([np.frombuffer(blake2b(image, digest_size=16).digest(), np.uint8) for image in pixels])
    wide = pixels.reshape(*pixels.shape[:2], -1).astype(np.float64)  # sums of squares are exact below 2^53
    moments = np.stack([wide.sum(2), np.einsum("ncp,ncp->nc", wide, wide)], axis=1)
    return Block(pixels, digests, moments.astype(np.int64))


def cache_folder() -> Path:
    """Where pixels are kept: $CONVSCOPE_CACHE, else $XDG_CACHE_HOME/convscope, else ~/.cache/convscope."""
    if chosen := os.environ.get("CONVSCOPE_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # the XDG rules: a relative path there is to be ignored
    return (base if base.is_absolute() else Path.home() / ".cache") / "convscope"


def key_of(**settings: Any) -> str:
    """The key of an entry: a digest of all that decides its pixels, and of the format."""
    text = json.dumps({"format": FORMAT, **settings}, sort_keys=True)
    return blake2b(text.encode(), digest_size=12).hexdigest()


def obtain(name: str, key: str, fill: Callable[[], Filling]) -> Stored:
    """The entry of this key, made by `fill` if it is not there.

    Raises:
        DataError: the cache folder cannot be written or is full, or an entry in it was damaged from outside.
    """
    folder = cache_folder() / "data" / f"{name[:40]}-{key}"  # a name has at most 255 bytes
    if not folder.is_dir():
        filling = fill()
        with _all_or_nothing(folder) as unfinished:
            _write(unfinished, filling)
    return _open(folder)


def available_memory() -> int:
    """Bytes of memory still to be had, within the limit of a container; 4 GB where no one says."""
    figures = [_figure("/proc/meminfo", "MemAvailable:", 1024)]
    limit = _figure("/sys/fs/cgroup/memory.max")
    if limit is not None:
        figures.append(limit - (_figure("/sys/fs/cgroup/memory.current") or 0))
    return max(0, min((figure for figure in figures if figure is not None), default=4 << 30))


def _figure(path: str, label: str = "", unit: int = 1) -> int | None:
    try:
        words = Path(path).read_text().split()
        return int(words[words.index(label) + 1 if label else 0]) * unit
    except (OSError, ValueError, IndexError):  # not Linux, or no limit: "max"
        return None


def _write(folder: Path, filling: Filling) -> None:
    n_images, channels = filling.shape[:2]
    digests = np.zeros((n_images, 16), np.uint8)
    moments = np.zeros((n_images, 2, channels), np.int64)
    with _flushed(folder / "pixels.npy") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": filling.shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = 0
        for block in filling.blocks:
            stop = start + len(block.pixels)
            file.write(block.pixels.data)
            digests[start:stop], moments[start:stop] = block.digests, block.moments
            start = stop
    for name, array in (("digests.npy", digests), ("moments.npy", moments)):
        with _flushed(folder / name) as file:
            np.save(file, array, allow_pickle=False)
    with _flushed(folder / "about.json") as file:
        file.write(json.dumps(filling.about).encode())


def _open(folder: Path) -> Stored:
    try:
        about = json.loads((folder / "about.json").read_text())
        digests = np.load(folder / "digests.npy", allow_pickle=False)
        moments = np.load(folder / "moments.npy", allow_pickle=False)
        pixels = _read_or_map(folder / "pixels.npy")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{folder}: this entry of the cache is damaged ({error}); delete the folder and load again"
        ) from None
    return Stored(pixels, digests, moments, about)


def _read_or_map(file: Path) -> UInt8[Tensor, "M C H W"]:
    large = file.stat().st_size > MEMORY_SHARE * available_memory()
    # mode "c": private pages, so a stray write can never reach the file
    return torch.from_numpy(np.load(file, mmap_mode="c" if large else None, allow_pickle=False))


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well, and is removed when it does not."""
    unfinished = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.parent)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}-{mark()}-", dir=folder.parent))
        yield unfinished
        _flush_folder(unfinished)
        _rename(unfinished, folder)
        _flush_folder(folder.parent)
    except OSError as error:
        raise DataError(
            f"{folder.parent}: cannot write decoded images there ({error.strerror or error}); "
            "make room, or set CONVSCOPE_CACHE to another folder"
        ) from error
    finally:
        if unfinished:
            shutil.rmtree(unfinished, ignore_errors=True)


def _rename(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, and its pixels are the same
            raise


@contextmanager
def _flushed(path: Path) -> Iterator[Any]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
