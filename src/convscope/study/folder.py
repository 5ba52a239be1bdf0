"""A study is a folder: what was asked, and a run folder for each setting and seed.

study.yaml       what was asked, every value stated
study.db         which runs wait, go on and are done (Optuna's store; not where --storage names another)
runs/0007-s2/    the run of setting 7 with seed 2, as any run folder; outcome.json in one that did not come to its end
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from convscope.base.bounded import value_at
from convscope.base.unfinished import UNFINISHED
from convscope.errors import ConvscopeError, RunFolderError
from convscope.runs import CHECKPOINT, METRICS, MODEL, OUTCOME, SPEC, Run, RunSpec, write_whole
from convscope.scans import kept_epoch
from convscope.study.spec import Range, StudySpec, load_study
from convscope.study.statistics import summary

STUDY, RUNS = "study.yaml", "runs"
_LAST = (CHECKPOINT, MODEL, METRICS, OUTCOME)
"""Files that say how far a run is: they are written after all that they speak of."""

_RUN_NAME = re.compile(r"([0-9]{4}|[1-9][0-9]{4,})-s(0|[1-9][0-9]*)")
"""As run_of writes it; a folder of another name, such as a copy, is the user's own."""

State = Literal["waiting", "unfinished", "done", "pruned", "diverged", "failed"]


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        number: of its setting, from 1.
        seed: of the recipe.
        settings: dotted keys of the sweep and their values; empty for a run that failed before it was begun.
        state: waiting (of a grid: not begun yet), unfinished, done, pruned, diverged or failed.
        path: its folder.
        message: why it did not come to its end; '' for others.
    """

    number: int
    seed: int
    settings: Mapping[str, Any]
    state: State
    path: Path
    message: str = ""

    def open(self, *, trust: bool = False) -> Run:
        """The run itself; for `trust` see open_run."""
        return Run(self.path, trust=trust)


@dataclass(frozen=True)
class Ranked:
    """A setting of a study and what it came to.

    Attributes:
        number: of the setting.
        settings: dotted keys and values.
        value: mean of the study's metric over its finished runs.
        n: how many those are.
        not_finished: how many were begun and did not come to their end.
    """

    number: int
    settings: Mapping[str, Any]
    value: float
    n: int
    not_finished: int = 0


class Study:
    """A study folder, opened.

    Example:
        >>> study = open_study("runs/widths")                             # doctest: +SKIP
        >>> [(run.settings, run.state) for run in study.runs]             # doctest: +SKIP
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[Path, float] = {}  # of finished runs, which do not change

    def __repr__(self) -> str:
        return f"Study({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @cached_property
    def spec(self) -> StudySpec:
        """What was asked for."""
        return load_study(self.path / STUDY)

    @property
    def runs(self) -> list[StudyRun]:
        """All runs as the folder has them now, by setting and seed; those of a grid that wait too."""
        if self.spec.is_grid:
            grid = self.spec.grid()
            return [self._run(number, seed, grid[number - 1]) for number, seed in self.spec.places(len(grid))]
        names = (folder.name for folder in (self.path / RUNS).glob("*-s*") if folder.is_dir())
        places = sorted((int(match[1]), int(match[2])) for match in map(_RUN_NAME.fullmatch, names) if match)
        return [self._run(number, seed, None) for number, seed in places]

    def ranking(self) -> list[Ranked]:
        """The settings that have finished runs, best first by the study's metric.

        Those come last of which a run was pruned, diverged or failed: a mean over the runs that are left would flatter them.
        """
        runs: dict[int, list[StudyRun]] = defaultdict(list)
        for run in self.runs:
            if run.state != "waiting":
                runs[run.number].append(run)
        ranked = []
        for number, members in runs.items():
            done = [run for run in members if run.state == "done"]
            result = summary([self._values[run.path] for run in done])
            if result.mean.value is not None:
                not_finished = len(members) - len(done)
                ranked.append(Ranked(number, done[0].settings, result.mean.value, result.n, not_finished))
        return sorted(ranked, key=lambda each: (bool(each.not_finished), -self.spec.sign * each.value))

    def _run(self, number: int, seed: int, settings: Mapping[str, Any] | None) -> StudyRun:
        run = run_of(self.path, number, seed)
        try:
            state, message = state_of(run)
            if state == "done" and run.path not in self._values:
                self._values[run.path] = float(kept_epoch(run)[self.spec.metric])
            if settings is None:
                settings = settings_of(run.spec, self.spec) if run.has(SPEC) else {}
        except DAMAGED as error:  # one such run must not spoil the others
            state, message = "failed", damage(run, error)
        return StudyRun(number, seed, settings or {}, state, run.path, message)


def open_study(path: str | Path) -> Study:
    """The study in a folder.

    Raises:
        RunFolderError: there is no study.
    """
    folder = Path(path)
    if not (folder / STUDY).is_file():
        raise RunFolderError(f"{folder} holds no study: {STUDY} is missing; convscope sweep makes one")
    study = Study(folder)
    study.spec  # noqa: B018 (refuses here what cannot be read)
    return study


def run_of(study: Path, number: int, seed: int) -> Run:
    """The run of a setting with a seed, in the folder of its study: setting 7 with seed 2 is in `runs/0007-s2`."""
    return Run(study / RUNS / f"{number:04d}-s{seed}")


def state_of(run: Run) -> tuple[State, str]:
    """Where a run of a study stands, and why it did not come to its end."""
    if run.has(OUTCOME):
        outcome = run.read_json(OUTCOME)
        state: State = outcome["state"] if outcome["state"] in get_args(State) else "failed"
        return state, str(outcome["message"])
    if has_ended(run):
        return "done", ""
    return ("unfinished", "") if run.path.exists() else ("waiting", "")


def has_ended(run: Run) -> bool:
    """Whether a run of a study is trained and evaluated, or has an outcome."""
    return run.has(OUTCOME) or (run.has(METRICS) and run.is_trained)


DAMAGED = (ConvscopeError, OSError, KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)
"""What reading a run may raise whose files are damaged, or are not what convscope writes."""


def damage(run: Run, error: BaseException) -> str:
    """In words, why a run cannot be read."""
    if isinstance(error, ConvscopeError):
        return str(error).removeprefix(f"{run.path}/")
    return f"its files are damaged: {type(error).__name__} {error}".rstrip()


def settings_of(run: RunSpec, study: StudySpec) -> dict[str, Any]:
    """What a run has at the keys of the study's sweep, as it was asked: `net: net4` is short for a mapping."""
    spec, settings = run.model_dump(mode="json"), {}
    for key, choices in study.sweep.items():
        value = value_at(spec, key)
        short = not isinstance(choices, Range) and all(isinstance(choice, str) for choice in choices)
        settings[key] = next(iter(value.values()), None) if short and isinstance(value, Mapping) else value
    return settings


def read_files(folder: Path) -> dict[str, bytes]:
    """All files of a run's folder by their names in it."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(UNFINISHED)]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(files)}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files of a run, each whole, so that it can go on from whatever is there after a kill."""
    for name in sorted(files, key=lambda name: (_LAST.index(name) if name in _LAST else -1, name)):
        write_whole(folder / name, files[name])
    if MODEL in files and CHECKPOINT not in files:
        (folder / CHECKPOINT).unlink(missing_ok=True)
