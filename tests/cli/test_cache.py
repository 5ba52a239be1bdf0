"""`convscope cache`: lists, prunes and clears the user's cache, and the scans of a run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from convscope.compute import Entry, cache_folder, entry_path, write_entry
from convscope.runs import SPEC
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with two entries of decoded images, 2 MB and 1 MB, and one of charts."""
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "cache"))
    for kind, name, size, age_s in (("data", "cifar10", 2, 300), ("data", "mnist", 1, 200), ("charts", "vega", 1, 100)):
        keep(cache_folder(), kind, name, size, age_s)


def keep(root: Path, kind: str, name: str, megabytes: int, age_s: float) -> None:
    path = entry_path(root, kind, name, {"name": name})
    write_entry(path, {"name": name}, Entry({}, {".npy": bytes(megabytes * 10**6)}))
    for file in (path, path.with_suffix(".npy")):
        os.utime(file, (time.time() - age_s,) * 2)


def names(command: Command, *words: object) -> list[str]:
    return [entry["name"] for entry in command("cache", "--json", *words).json["entries"]]


def test_entries_by_kind_with_size_and_age(command: Command, tmp_path: Path) -> None:
    answer = command("cache", "--json")
    assert answer.status == 0
    assert answer.json["folder"] == str(tmp_path / "cache")
    assert [(each["kind"], each["name"]) for each in answer.json["entries"]] == [
        ("charts", "vega"), ("data", "mnist"), ("data", "cifar10")
    ]  # fmt: skip
    assert [round(each["bytes"] / 1e6) for each in answer.json["entries"]] == [1, 1, 2]
    assert answer.json["entries"][1]["used"] > answer.json["entries"][2]["used"]
    shown = command("cache").out
    assert "3 entries, 4.0 MB" in shown
    assert all(word in shown for word in ("cifar10", "mnist", "vega", "last used", "2.0"))


def test_what_was_not_used_for_longest_is_pruned(command: Command) -> None:
    assert command("cache", "--prune", "--json").json["removed"] == 0
    assert names(command, "--prune", "--limit", "2.5MB") == ["vega", "mnist"]
    assert "removed" not in command("cache").out
    assert "0 entries, 0.0 MB; 2 removed" in command("cache", "--clear").out
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == []


def test_the_limit_is_a_setting(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSCOPE_CACHE_LIMIT", "1.5MB")
    assert names(command, "--prune") == ["vega"]


def test_of_a_run_its_scans_alone(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    keep(run, "scans", "statistics", 1, 50)
    for promised in (SPEC, "model.safetensors", "predictions.safetensors"):
        (run / promised).write_text("x" * 100)
    assert names(command, run) == ["statistics"]
    assert command("cache", run, "--prune", "--json").json["removed"] == 0
    assert command("cache", run, "--clear", "--json").json["removed"] == 1
    assert sorted(path.name for path in run.iterdir()) == [
        "model.safetensors",
        "predictions.safetensors",
        "scans",
        SPEC,
    ]
    assert len(names(command)) == 3


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--limit", "2GB"), "--limit: it says what --prune leaves; give both"),
        (("--prune", "--limit", "much"), "--limit: 'much' is no size; give one such as 500MB or 20GB"),
        (("{folder}",), "holds no run: spec.yaml is missing; leave it out to see the user's cache"),
    ],
)
def test_bad_requests(command: Command, tmp_path: Path, words: tuple[str, ...], complaint: str) -> None:
    answer = command("cache", *(word.format(folder=tmp_path) for word in words))
    assert (answer.status, complaint in answer.complaint) == (2, True)
    assert len(names(command)) == 3


def test_an_empty_cache(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "none"))
    assert "0 entries, 0.0 MB" in command("cache").out
    assert not (tmp_path / "none").exists()


def test_nothing_can_be_removed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", read_only)
    assert command("cache", "--clear", "--json").json["removed"] == 0
    assert len(names(command)) == 3
