"""Killed after any file operation, a command goes on when it is given again: to the same files, and with nothing left over."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from convscope.cli import run
from convscope.compute import Executor
from convscope.runs import ENVIRONMENT, FILTERS, HISTORY, MODEL, REPORT
from tests.conftest import write_spots
from tests.killing import Killed, Life, lived

Command = Callable[[Path], list[str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made"))


def make(folder: Path) -> Path:
    """The folder, with a small study, a sweep, and their images."""
    folder.mkdir(exist_ok=True)
    write_spots(folder / "spots.npz", 120)
    text = f"data: {folder / 'spots.npz'}\nnet: c8b M f8\nrecipe: {{epochs: 2, batch: 24, rate: 0.01}}\n"
    (folder / "one.yaml").write_text(text)
    (folder / "two.yaml").write_text(f"{text.replace('epochs: 2', 'epochs: 1')}sweep: {{recipe.rate: [0.01, 0.02]}}\n")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without content, and workers in this process: here the files count."""
    monkeypatch.setattr("convscope.report.build.render", lambda *given: "<p>report")
    monkeypatch.setattr("convscope.report.build.filters_page", lambda *given: "<p>filters")
    monkeypatch.setattr("convscope.report.build.effects_of", lambda *given: None)
    monkeypatch.setattr("convscope.report.study.study_page", lambda *given: "<p>study")
    monkeypatch.setattr("convscope.study.engine.LocalProcesses", in_this_process)


def in_this_process(workers: int) -> Executor:
    """In place of `LocalProcesses`."""
    return Executor()


def _study(made: Path, out: Path) -> list[str]:
    return ["study", str(made / "one.yaml"), "--out", str(out), "--device", "cpu"]


def _train(made: Path, out: Path) -> list[str]:
    return ["train", str(made / "one.yaml"), "--out", str(out), "--device", "cpu"]


def _sweep(made: Path, out: Path) -> list[str]:
    return ["sweep", str(made / "two.yaml"), "--out", str(out), "--device", "cpu"]


def _trained_first(command: str, made: Path, out: Path) -> list[str]:
    """Evaluates or reports a run that is trained, or evaluated, before anyone is killed."""
    if not out.exists():
        assert run(_train(made, out)) == 0
        if command == "report":
            assert run(["evaluate", str(out)]) == 0
    return [command, str(out)]


def _table(made: Path, out: Path) -> list[str]:
    if not out.exists():
        assert run(_train(made, out / "a")) == 0
    return ["table", str(out)]


def _table_file(made: Path, out: Path) -> list[str]:
    words = ["--by", "net.name", "--metric", "val_accuracy"]
    return [*_table(made, out), *words, "--out", str(out / "table.md")]


COMMANDS = {
    "train": _train,
    "study": _study,
    "sweep": _sweep,
    "evaluate": partial(_trained_first, "evaluate"),
    "report": partial(_trained_first, "report"),
    "table": _table,
    "table --out": _table_file,
}


SLOW = ("study", "sweep", "report")


def files(folder: Path, with_pages: bool = True) -> dict[str, bytes]:
    """All files below a folder; with their content where it does not depend on time or place."""
    timed = (HISTORY, ENVIRONMENT, "study.db", *(() if with_pages else (REPORT, FILTERS)))
    return {
        str(path.relative_to(folder)): b"" if path.name in timed else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _lives(command: list[str], folders: list[Path], last: int | None = None) -> Life:
    """A command in a process that ends after so many operations."""
    life = Life(*folders, last=last)
    with suppress(Killed), lived(life):
        status = run(command)
        assert status == 0 or len(life.done) == last  # what the dead say, as when SQLAlchemy tidies up, does not count
    return life


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.timeout(3600)] * (name in SLOW)) for name in COMMANDS],
)
def test_killed_after_any_file_operation_the_same_command_goes_on(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def command(out: Path) -> list[str]:
        if name.startswith("table"):  # whose index is in the cache
            monkeypatch.setenv("CONVSCOPE_CACHE", str(out.parent / "cache"))
        return COMMANDS[name](made, out)

    whole = tmp_path / "whole" / "out"
    life = _lives(command(whole), [whole, whole.parent / "cache"])
    assert len(life.done) >= 3
    expected = files(whole)
    for last, words in enumerate(life.done, 1):
        out = tmp_path / str(last) / "out"
        given = command(out)
        killed = _lives(given, [out, out.parent / "cache"], last)
        assert len(killed.done) == last, f"{name} was not killed after {words}"
        finished = name == "train" and (out / MODEL).exists() and not (out / "checkpoint.safetensors").exists()
        assert run(given) == (2 if finished else 0), (
            f"{name}, killed after {words}"
        )  # 2: it is finished, nothing is to do
        assert files(out) == expected, f"{name}, killed after {words}"
        assert not list(out.parent.rglob("*unfinished*")), f"{name}, killed after {words}"


def test_killed_after_any_operation_on_the_cache_the_data_load(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cached(folder: Path) -> list[str]:
        monkeypatch.setenv("CONVSCOPE_CACHE", str(folder))
        return ["data", str(made / "spots.npz")]

    life = _lives(cached(tmp_path / "whole"), [tmp_path / "whole"])
    assert len(life.done) > 10
    expected = files(tmp_path / "whole")
    for last, words in enumerate(life.done, 1):
        folder = tmp_path / str(last)
        _lives(cached(folder), [folder], last)
        assert run(["data", str(made / "spots.npz")]) == 0, words
        assert files(folder) == expected, words
