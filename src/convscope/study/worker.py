"""A worker: work for an executor, that takes one unit of a study after another until none waits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from convscope.base.signals import stop_wish
from convscope.compute import present
from convscope.data import DataBundle, DataSpec, load_data
from convscope.errors import DivergedError, FolderInUseError, RequestError, StoppedError
from convscope.runs import OUTCOME, Run, RunSpec, as_network_wants
from convscope.scans import kept_epoch
from convscope.study.folder import DAMAGED, STUDY, damage, has_ended, run_of, state_of
from convscope.study.run import run_study
from convscope.study.spec import load_study
from convscope.study.store import Claim, Store, deaths_of
from convscope.training import LEFT, Silent

_IN_USE_S = 1.0  # between two looks at a run that is trained elsewhere


@dataclass(frozen=True)
class Job:
    """What a worker is given.

    Attributes:
        folder: of the study, whose study.yaml says what is asked.
        storage: of the store; None is SQLite in the folder.
        device: as given to --device.
        owner: the worker's name in the store.
        seconds: begin nothing new after so long.
        track: see convscope.train.
    """

    folder: str
    storage: str | None
    device: str
    owner: str = ""
    seconds: float = math.inf
    track: tuple[str, ...] = ()


def work(job: Job) -> list[str]:
    """Takes units of work until none waits, the time is over, or it is asked to stop; all is saved then.

    Returns:
        What the user is to be told, a line each.
    Raises:
        TrackerError: a tracker cannot be begun.
        Exception: a run failed for a reason that is not its own, such as no memory. Its unit is still the worker's.
    """
    with present(job.owner), redirect_stderr(StringIO()) as words, closing(Worker(job)) as worker:
        worker.work()
    return notes_in(words)


def notes_in(words: StringIO) -> list[str]:
    """What the user is to be told of all that was written to stderr."""
    return [line for line in words.getvalue().splitlines() if line.startswith(LEFT)]


class _Pruned(StoppedError):
    """Stopped for good, all saved."""


class Ended(Exception):
    """A run that ended without a value, for a reason of its own."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state, self.message = state, message


class Reporter(Silent):
    """Tells each epoch's metric to whoever decides on pruning.

    Args:
        metric: of the study.
        known: the epochs that were told before.
        tell: is given a row of the history, and whether an answer is wanted, which is whether to prune.
    """

    def __init__(self, metric: str, known: Collection[int], tell: Callable[[dict[str, Any], bool], bool]) -> None:
        self.metric, self.known, self.tell = metric, known, tell

    def begin(self, epochs: int, steps: int, history: list[dict[str, Any]]) -> None:
        self.epochs = epochs
        for row in history:  # a kill may have come between checkpoint and report
            if row["epoch"] not in self.known:
                self.tell(row, False)

    def epoch(self, row: dict[str, Any]) -> None:
        if self.tell(row, row["epoch"] < self.epochs):
            raise _Pruned(f"{self.metric} {row[self.metric]:.4g} after epoch {row['epoch']} of {self.epochs}")


def trained(
    spec: RunSpec,
    path: Path,
    load: Callable[[DataSpec], DataBundle],
    device: str,
    reporter: Reporter | None,
    track: Sequence[str],
    attempts: int,
) -> Run:
    """The run of a study, trained and evaluated.

    Raises:
        Ended: it came to no value; its outcome.json says why.
        FolderInUseError: somebody trains in its folder.
    """
    try:
        spec = as_network_wants(spec)
        watcher = reporter or Silent()
        return run_study(spec, path, data=load(spec.data), device=device, watcher=watcher, track=track)
    except _Pruned as pruned:
        raise end_of(Run(path), "pruned", str(pruned), attempts) from None
    except DivergedError as error:
        raise end_of(Run(path), "diverged", str(error).removeprefix(f"{path}: "), attempts) from None
    except FolderInUseError:
        raise
    except RequestError as error:
        raise end_of(Run(path), "failed", str(error), attempts) from None


def end_of(run: Run, state: str, message: str, attempts: int) -> Ended:
    """The end of a run that came to no value, which is written into its folder."""
    run.write_json(OUTCOME, {"state": state, "message": message, "attempts": attempts})
    return Ended(state, message)


def is_done(run: Run) -> bool:
    """Whether a run of a study is trained and evaluated.

    Raises:
        Ended: it came to no value.
    """
    if run.has(OUTCOME):
        raise Ended(*state_of(run))
    return has_ended(run)


def value_of(run: Run, metric: str) -> float:
    """What a run that is done came to.

    Raises:
        Ended: its files are damaged.
    """
    try:
        return float(kept_epoch(run)[metric])
    except DAMAGED as error:
        raise Ended("failed", damage(run, error)) from None


def told(claim: Claim, metric: str, row: dict[str, Any], asks: bool) -> bool:
    """Reports an epoch of a unit of work to the store; returns whether to prune it, where `asks` is true."""
    claim.asked.report(row[metric], row["epoch"])
    return asks and bool(claim.asked.should_prune())  # NumPy's own, of some pruners


class Worker:
    """Takes units of work until none waits, the time is over, or it is asked to stop."""

    def __init__(self, job: Job) -> None:
        self.job, self.folder = job, Path(job.folder)
        self.spec = load_study(self.folder / STUDY)
        self.store = Store(self.folder, self.spec, job.storage, job.owner)
        self.close = self.store.close
        self.began = time.monotonic()
        self.data: tuple[DataSpec, DataBundle] | None = None

    def work(self) -> None:
        """Until there is nothing left to do. What cannot be stopped and resumed is taken to its end first."""
        with stop_wish() as self.wish:
            while not self.wish.asked and time.monotonic() - self.began <= self.job.seconds:
                claim = self.store.claim()
                if claim is None:
                    return
                self._do(claim)

    def _do(self, claim: Claim) -> None:
        values, began = [], time.perf_counter()
        try:
            for seed in claim.seeds:
                values.append(self._value(claim, seed))
                if self.wish.asked and len(values) < len(claim.seeds):
                    raise StoppedError("between two seeds")
        except (StoppedError, FolderInUseError) as error:
            self.store.requeue(self.store.look(claim))
            if isinstance(error, FolderInUseError):  # somebody trains this very run: it waits until that is over
                time.sleep(_IN_USE_S)
        except Ended as end:
            self.store.fail(claim, end.state, end.message, time.perf_counter() - began)
        else:
            self.store.finish(claim, sum(values) / len(values), time.perf_counter() - began)

    def _value(self, claim: Claim, seed: int) -> float:
        """The metric of one run, which is trained and evaluated if it is not there yet."""
        run = run_of(self.folder, claim.number, seed)
        if not is_done(run):
            trial = self.store.look(claim)
            reporter = None
            if self.spec.prune is not None and seed == claim.seeds[0]:
                reporter = Reporter(self.spec.metric, trial.intermediate_values, partial(told, claim, self.spec.metric))
            spec, attempts = self.spec.run_spec(claim.settings, seed), 1 + deaths_of(trial)
            run = trained(spec, run.path, self._data, self.job.device, reporter, self.job.track, attempts)
        return value_of(run, self.spec.metric)

    def _data(self, spec: DataSpec) -> DataBundle:
        """The data set, kept from run to run as long as it is the same."""
        if self.data is None or self.data[0] != spec:
            self.data = None  # the old one goes before the new one comes
            self.data = (spec, load_data(spec))
        return self.data[1]
