"""A worker: a process that takes one unit of work after another until none waits. It knows the study folder and the store.

    python -m convscope.study.worker      (with a Job as one line of JSON on stdin)

It ends with status 0 where nothing is left or it was asked to stop (SIGTERM), all saved; with 1 where a run failed for a
reason that is not the run's own, such as no memory; with 3 where a tracker cannot be begun. The reason is the last line on
stderr.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from convscope.data import DataBundle, DataSpec, load_data
from convscope.errors import DivergedError, FolderInUseError, RequestError, StoppedError, TrackerError
from convscope.runs import METRICS, OUTCOME, Run
from convscope.scans import kept_epoch
from convscope.signals import stop_signals
from convscope.study.folder import DAMAGED, STUDY, damage, state_of
from convscope.study.run import run_study
from convscope.study.spec import load_study
from convscope.study.store import Claim, Store, deaths_of
from convscope.study.workers import NO_TRACKER, Job
from convscope.training import Silent

BEAT_S = 20.0


class _Pruned(StoppedError):
    """Stopped for good, all saved."""


class _Ended(Exception):
    """A run that ended without a value, for a reason of its own."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state, self.message = state, message


class _Reporter(Silent):
    """Tells the store each epoch's metric where pruning may ask for it, and stops with the process that began the worker."""

    def __init__(self, claim: Claim, known: Collection[int], metric: str, prunes: bool, parent: int | None) -> None:
        self.claim, self.known, self.metric, self.prunes, self.parent = claim, known, metric, prunes, parent

    def begin(self, epochs: int, steps: int, history: list[dict[str, Any]]) -> None:
        self.epochs = epochs
        for row in history if self.prunes else []:  # a kill may have come between checkpoint and report
            if row["epoch"] not in self.known:
                self.claim.asked.report(row[self.metric], row["epoch"])

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if self.parent and os.getppid() != self.parent:
            self.parent = None
            os.kill(os.getpid(), signal.SIGTERM)

    def epoch(self, row: dict[str, Any]) -> None:
        if self.prunes:
            self.claim.asked.report(row[self.metric], row["epoch"])
            if row["epoch"] < self.epochs and self.claim.asked.should_prune():
                raise _Pruned(f"{self.metric} {row[self.metric]:.4g} after epoch {row['epoch']} of {self.epochs}")


class Worker:
    """Takes units of work until none waits, the time is over, or it is asked to stop."""

    def __init__(self, job: Job) -> None:
        self.job, self.folder = job, Path(job.folder)
        self.spec = load_study(self.folder / STUDY)
        self.store = Store(self.folder, self.spec, job.storage)
        self.began, self.stopping = time.monotonic(), False
        self.data: tuple[DataSpec, DataBundle] | None = None

    def work(self) -> None:
        """Until there is nothing left to do."""
        while not self._is_over() and (claim := self.store.claim()):
            with self.store.locks.one(claim.trial) as free, _beating(self.store, claim):
                if free:  # else another process is at it, though the store says otherwise: it will tell
                    self._do(claim)

    def stop(self, number: int, frame: object) -> None:
        """As a signal handler: what cannot be stopped and resumed is taken to its end first."""
        self.stopping = True

    def _is_over(self) -> bool:
        late = self.job.seconds is not None and time.monotonic() - self.began > self.job.seconds
        return late or self.stopping or bool(self.job.parent and os.getppid() != self.job.parent)

    def _do(self, claim: Claim) -> None:
        values, began = [], time.perf_counter()
        try:
            for seed in claim.seeds:
                values.append(self._value(claim, seed))
                if self.stopping and len(values) < len(claim.seeds):
                    raise StoppedError("between two seeds")
        except StoppedError:
            self.stopping = True
            self.store.give_back(self.store.look(claim))
        except TrackerError:
            self.store.give_back(self.store.look(claim))
            raise
        except _Ended as end:
            self.store.fail(claim, end.state, end.message, time.perf_counter() - began)
        else:
            self.store.finish(claim, sum(values) / len(values), time.perf_counter() - began)

    def _value(self, claim: Claim, seed: int) -> float:
        """The metric of one run, which is trained and evaluated if it is not there yet."""
        run = Run(claim.folder(self.folder, seed))
        if run.has(OUTCOME):
            raise _Ended(*state_of(run))
        if not (run.has(METRICS) and run.is_trained):
            run = self._run(run, claim, seed)
        try:
            return float(kept_epoch(run)[self.spec.metric])
        except DAMAGED as error:
            raise _Ended("failed", damage(run, error)) from None

    def _run(self, run: Run, claim: Claim, seed: int) -> Run:
        prunes = self.spec.prune is not None and seed == claim.seeds[0]
        known = self.store.look(claim).intermediate_values
        reporter = _Reporter(claim, known, self.spec.metric, prunes, self.job.parent)
        try:
            spec = self.spec.run_spec(claim.settings, seed)
            data, track = self._data(spec.data), self.job.track
            return run_study(spec, run.path, data=data, device=self.job.device, watcher=reporter, track=track)
        except _Pruned as pruned:
            end = _Ended("pruned", str(pruned))
        except DivergedError as error:
            end = _Ended("diverged", str(error).removeprefix(f"{run.path}: "))
        except FolderInUseError as error:  # somebody trains this very run by hand: it waits until that is over
            raise StoppedError(str(error)) from None
        except RequestError as error:
            end = _Ended("failed", str(error))
        attempts = 1 + deaths_of(self.store.look(claim))
        run.write_json(OUTCOME, {"state": end.state, "message": end.message, "attempts": attempts})
        raise end

    def _data(self, spec: DataSpec) -> DataBundle:
        """The data set, kept from run to run as long as it is the same."""
        if self.data is None or self.data[0] != spec:
            self.data = None  # the old one goes before the new one comes
            self.data = (spec, load_data(spec))
        return self.data[1]


@contextmanager
def _beating(store: Store, claim: Claim) -> Iterator[None]:
    """Signs of life to the store, from a thread, as long as the unit of work takes."""
    done = threading.Event()

    def beat() -> None:
        count = 0
        while not done.wait(BEAT_S):
            count += 1
            with suppress(Exception):  # a sign that is lost is followed by the next
                store.beat(claim, count)
        store.backend.remove_session()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main() -> None:
    """Reads its Job from stdin and works."""
    job = Job.read(sys.stdin.readline())
    torch.set_num_threads(job.threads)
    worker = Worker(job)
    for number in stop_signals():
        signal.signal(number, worker.stop)
    status = 0
    try:
        worker.work()
    except TrackerError as error:
        print(error, file=sys.stderr)  # noqa: T201
        status = NO_TRACKER
    worker.store.close()
    sys.stderr.flush()
    os._exit(status)  # all is written; to take PyTorch down in order would take a second


if __name__ == "__main__":
    main()
