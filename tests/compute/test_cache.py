"""The cache: found again by its key, never trusted when damaged, bounded, safe beside other writers."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convscope import compute
from convscope.base.unfinished import mark
from convscope.compute import Entry, cache_folder, cached, entry_path, list_entries, prune, read_entry, write_entry
from convscope.errors import FailedError, SettingError
from tests.killing import dead_process

KEY = {"weights": "abc", "request": {"steps": 3, "layers": ["conv1"]}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def kept(root: Path, name: str, size: int = 100, used: float | None = None) -> Path:
    """An entry of so many bytes, its card aside, last used so many seconds ago."""
    key = {"name": name}
    path = entry_path(root, "scans", name, key)
    write_entry(path, key, Entry({}, {".bin": b"x" * size}))
    if used is not None:
        for file in (path, path.with_suffix(".bin")):
            os.utime(file, (time.time() - used,) * 2)
    return path


def test_made_once_and_found_again_by_the_same_key_alone(root: Path) -> None:
    def of(key: dict[str, object]) -> str:
        path = entry_path(root, "charts", "some name/ü", key)
        return cached(path, key, lambda: made.append(1) or "é\n", lambda text: Entry({"text": text}),
                      lambda entry: entry.values["text"])  # fmt: skip

    made: list[int] = []
    assert [of(KEY), of(dict(reversed(KEY.items()))), of({**KEY, "version": 2})] == ["é\n"] * 3
    assert len(made) == 2
    assert [entry.name for entry in list_entries(root)] == ["some_name__"] * 2


def test_values_come_back_as_json_has_them(root: Path) -> None:
    path = entry_path(root, "charts", "a", KEY)
    write_entry(path, KEY, Entry({"pairs": ((1, 2.5),), "by": {1: None}, "odd": "\udce9", "nan": float("inf")}))
    entry = read_entry(path, KEY)
    assert entry is not None
    assert entry.values == {"pairs": [[1, 2.5]], "by": {"1": None}, "odd": "\udce9", "nan": float("inf"), **KEY}


@pytest.mark.parametrize("place", range(0, 120, 7))
def test_any_changed_byte_is_noticed(root: Path, place: int) -> None:
    path = kept(root, "a")
    for file in (path, path.with_suffix(".bin")):
        whole = file.read_bytes()
        at = place % len(whole)
        file.write_bytes(bytes([*whole[:at], whole[at] ^ 2, *whole[at + 1 :]]))
        assert read_entry(path, {"name": "a"}) is None
        file.write_bytes(whole)
    assert read_entry(path, {"name": "a"}) is not None


@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 100_000, '{"check": 1}', '{"name": "a"}', "\udce9"])
def test_a_card_that_is_none_is_no_entry(root: Path, content: str) -> None:
    path = kept(root, "a")
    path.write_text(content, "utf-8", "surrogateescape")
    assert read_entry(path, {"name": "a"}) is None


def test_a_result_of_another_make_is_made_anew(root: Path) -> None:
    path = entry_path(root, "charts", "a", KEY)
    write_entry(path, KEY, Entry({"old": 1}))
    for _ in range(2):
        assert cached(path, KEY, lambda: 7, lambda n: Entry({"new": n}), lambda entry: entry.values["new"]) == 7


def test_where_nothing_can_be_written_the_result_is_made_each_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made: list[int] = []
    path = entry_path(root, "charts", "a", KEY)
    monkeypatch.setattr(os, "fsync", full)
    for _ in range(2):
        assert cached(path, KEY, lambda: made.append(1) or 7, lambda n: Entry({}, {".bin": b"x"}), lambda entry: 8) == 7
    assert len(made) == 2
    assert list(path.parent.iterdir()) == []
    with pytest.raises(FailedError, match="No space left on device; free space there"):
        write_entry(path, KEY, Entry())


def test_the_least_recently_used_go_first(root: Path) -> None:
    old, used, newest = (kept(root, name, 1000, used) for name, used in (("b", 300), ("a", 400), ("c", 100)))
    assert read_entry(used, {"name": "a"}) is not None
    assert [entry.name for entry in list_entries(root)] == ["b", "c", "a"]
    assert [entry.name for entry in prune(root, 3 * 1500)] == []
    assert [entry.name for entry in prune(root, 2 * 1500)] == ["b"]
    assert not old.exists()
    assert not old.with_suffix(".bin").exists()
    assert [entry.name for entry in prune(root, 10, spare=newest)] == ["a"]
    assert [entry.name for entry in prune(root, 0)] == ["c"]
    assert list((root / "scans").iterdir()) == []


def test_the_limit_holds_after_each_writing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path))
    monkeypatch.setenv("CONVSCOPE_CACHE_LIMIT", "3.5 kB")
    for used, name in enumerate("abcdef"):
        kept(cache_folder(), name, 1000, 100 - used)
        assert sum(entry.size_bytes for entry in list_entries(tmp_path)) <= 3500
    assert [entry.name for entry in list_entries(tmp_path)] == ["d", "e", "f"]
    kept(cache_folder(), "large", 10_000)
    assert [entry.name for entry in list_entries(tmp_path)] == ["large"]


def test_what_is_no_entry_is_left_alone(root: Path) -> None:
    kept(root, "a")
    theirs = [root / "scans" / "notes.txt", root / "model.safetensors", root / "other" / f"x-{'0' * 24}.json"]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("theirs")
    prune(root, 0)
    assert [path for path in theirs if path.exists()] == theirs
    assert list_entries(root) == []


def test_scans_of_earlier_versions_are_listed_and_removed(root: Path) -> None:
    (root / "scans").mkdir(parents=True)
    for suffix in (".parquet", ".safetensors"):
        (root / "scans" / f"top-patches-{'f' * 16}{suffix}").write_bytes(b"x" * 10)
    assert [(entry.name, entry.size_bytes) for entry in list_entries(root)] == [("top-patches", 20)]
    assert len(prune(root, 0)) == 1
    assert list((root / "scans").iterdir()) == []


def test_what_killed_processes_left_is_removed(root: Path) -> None:
    kept(root, "a")
    names = [f".a.{mark()}.unfinished", f".b.{mark().replace(f'{os.getpid()}-', f'{dead_process()}-')}.unfinished"]
    for name in names:
        (root / "scans" / name).write_text("")
    list_entries(root)
    assert [(root / "scans" / name).exists() for name in names] == [True, False]


def test_many_writers_readers_and_pruners_at_once(root: Path) -> None:
    """Each reads what it asked for, whole, or makes it; nobody stops."""
    program = (
        "import sys; from pathlib import Path; from convscope.compute import *\n"
        "root, own = Path(sys.argv[1]), int(sys.argv[2])\n"
        "for turn in range(150):\n"
        "    n = (turn * (own + 1)) % 5; key = {'n': n}\n"
        "    path = entry_path(root, 'scans', 'many', key)\n"
        "    make, unpack = lambda: bytes([n]) * 5000, lambda entry: entry.files['.bin']\n"
        "    found = cached(path, key, make, lambda made: Entry({}, {'.bin': made}), unpack)\n"
        "    assert found == make(), found[:3]\n"
        "    if turn % 7 == own: prune(root, 6000)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(root), str(own)], stderr=subprocess.PIPE, text=True)
        for own in range(3)
    ]
    assert [process.communicate(timeout=120)[1] for process in processes] == [""] * 3
    assert {path.name[0] for path in (root / "scans").iterdir()} <= {"m"}  # nothing unfinished is left


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONVSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "convscope"
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == Path.home() / ".cache" / "convscope"


def test_sizes_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"500": 500, "500MB": 500_000_000, "1.5 GiB": 3 * 2**29, "2gb": 2_000_000_000}
    assert {text: compute.cache_limit(text) for text in sizes} == sizes
    monkeypatch.delenv("CONVSCOPE_CACHE_LIMIT", raising=False)
    assert compute.cache_limit() == 20_000_000_000
    monkeypatch.setenv("CONVSCOPE_CACHE_LIMIT", "much")
    with pytest.raises(SettingError, match=r"CONVSCOPE_CACHE_LIMIT: 'much' is no size; give one such as"):
        compute.cache_limit()
    for wrong in ("-1GB", "many", "1 cow"):
        with pytest.raises(SettingError, match=f"--limit: '{wrong}' is no size"):
            compute.cache_limit(wrong)


def test_no_pytorch_is_needed() -> None:
    code = "import sys, convscope.compute; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_a_card_is_plain_json(root: Path) -> None:
    card = json.loads(kept(root, "a").read_text())
    assert card["name"] == "a"
    assert card["files"][".bin"][0] == 100
