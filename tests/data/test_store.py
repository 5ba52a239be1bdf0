"""The cache: whole or not at all, with two processes at once, on a full disk, with little memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convscope.base.unfinished import mark
from convscope.data import load_data, store
from convscope.errors import DataError
from tests.killing import dead_process

from .samples import make_folder


def filling(n: int = 6, dtype: type = np.uint8) -> store.Filling:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (n, 3, 4, 5), dtype=dtype, endpoint=True)
    return store.Filling("", pixels.shape, [pixels[:4], pixels[4:]], lambda some: some, 1, {"words": "é"}, dtype)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_goes_in_comes_out(cache: Path, dtype: type, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MEMORY_SHARE", share)
    made = store.obtain("set", {"of": "key"}, lambda: filling(6, dtype))
    again = store.obtain("set", {"of": "key"}, lambda: pytest.fail("made twice"))
    expected = np.concatenate(list(filling(6, dtype).tasks))
    for stored in (made, again):
        assert stored.pixels.numpy().dtype == dtype
        assert np.array_equal(stored.pixels.numpy(), expected)
        assert np.array_equal(stored.moments[:, 0], expected.sum((2, 3)))
        assert np.array_equal(stored.moments[:, 1], (expected.astype(int) ** 2).sum((2, 3)))
        assert len({digest.tobytes() for digest in stored.digests}) == 6
        assert stored.about == {"words": "é"}
    assert sorted(each.suffix for each in (cache / "data").iterdir()) == [".json", ".npy"]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mapped_or_read(share: float, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(store, "MEMORY_SHARE", share)
    stored = store.obtain("set", {"of": "key"}, filling)
    [file] = (cache / "data").glob("set-*.npy")
    mapped = str(file) in Path("/proc/self/maps").read_text() if sys.platform == "linux" else share == 0
    assert mapped == (share == 0)
    before = file.read_bytes()
    stored.pixels[0] += 1
    assert file.read_bytes() == before


def test_interrupted_leaves_nothing(cache: Path) -> None:
    def tasks() -> Iterator[np.ndarray]:
        yield from list(filling().tasks)[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.obtain("set", {"of": "key"}, lambda: replace(filling(), tasks=tasks()))
    assert list((cache / "data").iterdir()) == []


def test_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device.; make room, or set CONVSCOPE_CACHE"):
        store.obtain("set", {"of": "key"}, filling)
    assert list((cache / "data").iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot write decoded images there"):
        store.obtain("set", {"of": "key"}, filling)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["cut", "missing", "a byte"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_damaged_from_outside_it_is_decoded_again(
    cache: Path, suffix: str, damage: str, dtype: type, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MEMORY_SHARE", share)
    made = partial(filling, 6, dtype)
    store.obtain("set", {"of": "key"}, made)
    [file] = (cache / "data").glob(f"*{suffix}")
    whole = file.read_bytes()
    changed = bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]])  # of an .npy that of a moment
    file.write_bytes({"cut": whole[:-2], "missing": b"", "a byte": changed}[damage])
    if damage == "missing":
        file.unlink()
    found = store.obtain("set", {"of": "key"}, made)
    assert file.read_bytes() == whole
    expected = np.concatenate(list(made().tasks))
    assert np.array_equal(found.pixels.numpy(), expected)
    assert np.array_equal(found.moments, store.digests_and_moments(expected)[1])


def test_moments_of_large_deep_images_are_exact() -> None:
    pixels = np.full((1, 1, 2048, 2049), 65535, np.uint16)  # whose squares add up to more than a float64 holds exactly
    pixels[0, 0, 0, 0] = 1
    n = pixels.size - 1
    assert store.digests_and_moments(pixels)[1].tolist() == [[[65535 * n + 1], [65535**2 * n + 1]]]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_read_only_cache_keeps_nothing(tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def read_only(path: Path, *given: Any, **named: Any) -> None:
        if path.is_relative_to(tmp_path):
            raise OSError(errno.EROFS, "Read-only file system")
        make(path, *given, **named)

    monkeypatch.setattr(store, "MEMORY_SHARE", share)
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "mkdir", read_only)
    stored = store.obtain("set", {"of": "key"}, filling)
    expected = np.concatenate(list(filling().tasks))
    assert np.array_equal(stored.pixels.numpy(), expected)
    assert list(tmp_path.iterdir()) == []


def test_abandoned_folders_are_swept(cache: Path) -> None:
    """Those of processes that are no more, and all that are old."""
    names = ("new", "old", mark(), mark().replace(f"{os.getpid()}-", f"{dead_process()}-"))
    folders = [cache / "data" / f".unfinished-{name}" for name in names]
    for folder in folders:
        folder.mkdir(parents=True)
    os.utime(folders[1], (time.time() - 3 * 24 * 3600,) * 2)
    store.obtain("set", {"of": "key"}, filling)
    assert [folder.exists() for folder in folders] == [True, False, True, False]


def test_two_processes_at_once(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path / "bugs", 100, size=32)
    program = (
        "import sys, time; from pathlib import Path; from convscope.data import load_data\n"
        "Path(sys.argv[2]).write_text('')\n"
        "while len(list(Path(sys.argv[2]).parent.glob('ready*'))) < 2: time.sleep(0.001)\n"
        "print(load_data(sys.argv[1]).digest)"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "bugs"), str(tmp_path / f"ready{k}")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [error for _, error in outputs] == ["", ""]
    assert outputs[0] == outputs[1] == (f"{load_data(tmp_path / 'bugs').digest}\n", "")
    assert len(list((cache / "data").iterdir())) == 2


def test_changed_files_are_decoded_again(tmp_path: Path) -> None:
    make_folder(tmp_path)
    before = load_data(tmp_path).digest
    (tmp_path / "ant" / "000.png").unlink()
    assert load_data(tmp_path).digest != before


def test_available_memory() -> None:
    assert 2**20 < store.available_memory() < 2**50


def test_the_memory_of_a_container_is_what_its_limit_leaves_beside_idle_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 bytes 90 are taken, 30 of them by files that were read; then all of them by the program."""
    figures: dict[str, int | None] = {"meminfo": 1000, "memory.max": 100, "memory.current": 90, "memory.stat": 30}
    monkeypatch.setattr(store, "_figure", lambda path, *named: figures[Path(path).name])
    assert store.available_memory() == 40
    figures |= {"memory.current": 100, "memory.stat": 0}
    assert store.available_memory() == 0
    figures["memory.max"] = None
    assert store.available_memory() == 1000
