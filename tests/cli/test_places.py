"""Folders in which nothing may be written, names that are too long, and locales whose encoding is ASCII."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convscope.runs import METRICS, REPORT, Run
from tests.cli.conftest import Command
from tests.conftest import write_spots

LONG = "n" * 300
"""A name has at most 255 bytes."""


@pytest.fixture
def read_only(reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run in a folder of a read-only file system, which answers even root so."""
    folder = tmp_path / "read-only"
    shutil.copytree(reported.path, folder / "run")
    shutil.rmtree(folder / "run" / "scans", ignore_errors=True)

    def refusing(real: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **more: Any) -> Any:
            below = isinstance(path, str | os.PathLike) and folder in Path(path).absolute().parents
            if below and writes(*arguments, **more):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real(path, *arguments, **more)

        return call

    def always(*_: Any, **__: Any) -> bool:
        return True

    for name in ("mkdir", "unlink", "remove", "rmdir", "rename", "replace"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name), always))
    monkeypatch.setattr(os, "open", refusing(os.open, lambda flags, *_, **__: bool(flags & (os.O_WRONLY | os.O_RDWR))))
    opened = refusing(io.open, lambda mode="r", *_, **__: bool(set("wax+") & set(mode)))
    monkeypatch.setattr("builtins.open", opened)
    monkeypatch.setattr(io, "open", opened)
    real_access = os.access
    monkeypatch.setattr(
        os, "access",
        lambda path, mode, **more: real_access(path, mode, **more)
        and not (mode & os.W_OK and folder in (Path(path).absolute(), *Path(path).absolute().parents)),
    )  # fmt: skip
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_read_only_run_is_evaluated_looked_at_and_listed(command: Command, read_only: Path, tmp_path: Path) -> None:
    run, before = read_only / "run", files_of(read_only)
    answer = command("evaluate", run, "--json")
    assert (answer.status, answer.err) == (0, f"note: {run} is read-only, so these figures are not kept\n")
    assert answer.json == json.loads(before[f"run/{METRICS}"])
    assert command("table", read_only, "--all").status == 0
    for lens in ("filters", "statistics"):
        assert command("look", run, lens, "--out", tmp_path / f"{lens}.png").status == 0
    assert files_of(read_only) == before


def test_predictions_of_a_read_only_run_are_made_where_none_are_kept(
    command: Command, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("evaluate", read_only / "run")
    monkeypatch.setattr(sys.modules["convscope.scans.evaluate"], "_stored", lambda run, key: None)
    assert command("evaluate", read_only / "run", "--json").json == json.loads(
        (read_only / "run" / METRICS).read_text()
    )


@pytest.mark.parametrize(
    "words",
    [
        ("report", "{run}"), ("report", "{folder}"), ("look", "{run}", "filters"), ("look", "{run}", "statistics"),
        ("look", "{run}", "filters", "--out", "{folder}/p.png"), ("table", "{folder}", "--out", "{folder}/t.csv"),
        ("train", "{spec}", "--out", "{folder}/new"), ("study", "{spec}", "--out", "{folder}/new"),
        ("sweep", "{spec}", "--set", "sweep.net.init=[default]", "--out", "{folder}/new"),
    ],
)  # fmt: skip
def test_what_needs_to_write_is_refused_in_one_line(
    command: Command, read_only: Path, study_file: Path, words: tuple[str, ...]
) -> None:
    before = files_of(read_only)
    answer = command(*(word.format(run=read_only / "run", folder=read_only, spec=study_file) for word in words))
    assert answer.status == 1
    assert "read-only" in answer.complaint.lower()
    assert "unexpected" not in answer.complaint
    assert files_of(read_only) == before


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", LONG), ("report", LONG), ("report", f"{LONG}/x"), ("look", LONG, "filters"), ("table", LONG),
        ("compare", LONG, LONG), ("data", LONG), ("data", f"{LONG}.npz"), ("study", LONG), ("sweep", LONG), ("train", LONG),
        ("train", "--resume", LONG), ("train", "{spec}", "--out", LONG), ("study", "{spec}", "--out", f"{LONG}/x"),
        ("train", "{spec}", "--set", f"data.source={LONG}"), ("look", "{run}", "filters", "--out", f"{LONG}.png"),
        ("look", "{run}", "filters", "--raw", LONG), ("look", "{run}", "saliency", "--image", LONG),
        ("sweep", "{spec}", "--set", "sweep.net.init=[default]", "--out", LONG),
    ],
)  # fmt: skip
def test_names_that_are_too_long(
    command: Command, reported: Run, study_file: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(study_file.parent)
    answer = command(*(word.format(run=reported.path, spec=study_file) for word in words))
    assert answer.status in (1, 2)
    assert "unexpected" not in answer.complaint


def test_a_name_as_long_as_names_may_be(command: Command, reported: Run, tmp_path: Path) -> None:
    out = tmp_path / f"{'é' * 125}.png"  # 254 bytes
    assert command("look", reported.path, "filters", "--out", out).status == 0
    assert out.stat().st_size
    data = write_spots(tmp_path / f"{'é' * 120}.npz", 60)
    assert command("data", data).status == 0


@pytest.mark.slow
def test_a_locale_of_ascii(tmp_path: Path, reported: Run) -> None:
    folder = tmp_path / "Füße"
    folder.mkdir()
    write_spots(folder / "Bär.npz", 60, side=8)
    (folder / "s.yaml").write_text("data: Bär.npz\nnet: c2 M f4\nrecipe: {epochs: 1, batch: 8}\n", encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    start = [sys.executable, "-c", "from convscope.cli import main; main()"]

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*start, *words], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )

    assert call("study", "Füße/s.yaml", "--out", "Füße/läuft").returncode == 0
    assert (folder / "läuft" / REPORT).exists()
    listed = call("table", "Füße", "--json")
    assert json.loads(listed.stdout)["rows"][0]["run"] == "läuft"
    missing = call("evaluate", "Füße/nö")
    assert (missing.returncode, missing.stderr.startswith(r"convscope: F\xfc\xdfe/n\xf6 is no folder")) == (2, True)


def test_a_locale_of_ascii_and_a_closed_stdout() -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    line = ["sh", "-c", '"$0" -m convscope --version >&-', sys.executable]
    found = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert (found.returncode, found.stderr) == (0, "")
