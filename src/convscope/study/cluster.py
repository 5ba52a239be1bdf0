"""A study on a cluster: this process owns store and folder; a task trains one run on a node, and sends back its files.

With a disk that all nodes share, a task trains in the study's folder itself. Else it trains in a temporary folder of its node:
the pixels come once a node, the files of an unfinished run come with the task, and those of the run go back every
`checkpoint_s` seconds, at the end of an epoch, and when it is done. So of a run whose node is lost no more than that is done
again, from its last checkpoint.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import StringIO
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from optuna.trial import FrozenTrial, TrialState

from convscope.base.signals import stop_wish
from convscope.compute import Kept, Line, Ray, node_name
from convscope.data import DataBundle, DataSpec, load_data
from convscope.errors import (
    DataError,
    FolderInUseError,
    NodeLostError,
    RequestError,
    SettingError,
    StoppedError,
    UnknownNameError,
)
from convscope.runs import Run, RunSpec, as_network_wants
from convscope.study.archive import Archive
from convscope.study.engine import HEARTBEAT_S, NOT_ITS_OWN, Engine
from convscope.study.folder import STUDY, has_ended, read_files, run_of, write_files
from convscope.study.live import Going
from convscope.study.store import Claim, Store, deaths_of
from convscope.study.worker import Ended, Job, Reporter, end_of, is_done, notes_in, told, trained, value_of

_WRITERS = 8
_BUNDLES = 4  # data sets that the cluster keeps for runs to come; those of running ones stay as well


@dataclass(frozen=True)
class Order:
    """What a task is to train.

    Attributes:
        spec: of the run.
        name: of its folder.
        study: the study's folder where the node sees it; None where the task has a folder of its own.
        files: of the unfinished run.
        metric: of the study.
        known: epochs whose metric the store has.
        prunes: whether to ask after each epoch.
        checkpoint_s: between two times that the files go back.
    """

    spec: RunSpec
    name: str
    study: str | None
    files: Mapping[str, bytes]
    device: str
    track: tuple[str, ...]
    metric: str
    known: frozenset[int]
    prunes: bool
    attempts: int
    checkpoint_s: float


@dataclass(frozen=True)
class Reply:
    """What a task comes to: "done" with its value, "stopped", or the state of a run without one; and its files."""

    state: str
    message: str
    value: float
    files: Mapping[str, bytes] | None
    notes: Sequence[str]


def train_on_node(order: Order, data: DataBundle | None, line: Line) -> Reply:
    """The task: trains and evaluates a run; also where it is asked to stop, all is saved.

    Raises:
        SettingError: the node sees other files than it should, or not the data.
    """
    with ExitStack() as ending:
        words = ending.enter_context(redirect_stderr(StringIO()))
        ending.enter_context(stop_wish())
        if order.study is None:
            path = Path(ending.enter_context(TemporaryDirectory(prefix="convscope-"))) / order.name
            write_files(path, order.files)
        else:
            path = Path(order.study) / "runs" / order.name
            if not (Path(order.study) / STUDY).exists():
                raise SettingError(
                    f"node {node_name()} does not see {order.study}: it shares no disk with this machine"
                )
        line.tell({"node": node_name()})
        data = data or _data_here(as_network_wants(order.spec).data.model_dump_json())
        sent_at = time.monotonic()

        def tell(row: dict[str, Any], asks: bool) -> bool:
            """Sends an epoch back, and now and then all files."""
            nonlocal sent_at
            message: dict[str, Any] = {"row": row}
            if order.study is None and time.monotonic() - sent_at >= order.checkpoint_s:
                message["files"], sent_at = read_files(path), time.monotonic()
            return bool(line.tell(message, wait=asks and order.prunes))

        reporter = Reporter(order.metric, order.known, tell)
        state, message, value = "done", "", nan
        try:
            run = trained(order.spec, path, lambda spec: data, order.device, reporter, order.track, order.attempts)
            value = value_of(run, order.metric)
        except Ended as end:
            state, message = end.state, end.message
        except StoppedError:
            state = "stopped"
        return Reply(state, message, value, read_files(path) if order.study is None else None, notes_in(words))


@lru_cache(1)
def _data_here(spec: str) -> DataBundle:
    """The data as the node has it, of its spec as JSON; kept from run to run."""
    try:
        return load_data(DataSpec.model_validate_json(spec))
    except (DataError, UnknownNameError) as error:
        raise SettingError(f"node {node_name()} lacks the data: {error}") from None


@dataclass(eq=False)
class _Unit:
    """A unit of work that is ours, and the run of it that a task trains."""

    claim: Claim
    values: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    run: Run = field(init=False)
    going: Going = field(init=False)
    key: str = ""


class ClusterEngine(Engine):
    """Gives runs to the nodes of a cluster, as many as there is room for."""

    executor: Ray
    workers: dict[Future[Reply], _Unit]  # type: ignore[assignment]

    def __init__(self, store: Store, executor: Ray, job: Job, view: Any, archive: Archive | None = None) -> None:
        super().__init__(store, executor, job, view, archive)
        self.units: dict[int, _Unit] = {}  # by trial
        self.pixels: OrderedDict[str, Kept] = OrderedDict()
        self.is_dry = False
        self.is_shared = executor.shares(store.folder)

    def _was_finished(self, trial: FrozenTrial) -> bool:
        """Whether an earlier driver, whose units of work were in its memory, came to its end."""
        return trial.state.is_finished() or all(map(has_ended, self._runs_of(trial)))

    def _submit_work(self) -> None:
        while not self.is_dry and self._seconds_left() and len(self.workers) < self.executor.count:
            if claim := self.store.claim():
                self.units[claim.trial] = unit = _Unit(claim)
                self._advance(unit)
            else:
                self.is_dry = True

    @property
    def _owners(self) -> list[str]:
        return []  # tasks take no unit of work themselves

    def _advance(self, unit: _Unit) -> None:
        """Goes on to the first of its runs that is not done; after the last the unit is."""
        claim = unit.claim
        try:
            for seed in claim.seeds[len(unit.values) :]:
                run = run_of(self.store.folder, claim.number, seed)
                if not is_done(run):
                    self._submit(unit, run, seed)
                    return
                unit.values.append(value_of(run, self.spec.metric))
        except Ended as end:
            self._end(unit, end)
        else:
            self._end(unit)

    def _end(self, unit: _Unit, end: Ended | None = None) -> None:
        seconds = time.perf_counter() - unit.began
        if end:
            self.store.fail(unit.claim, end.state, end.message, seconds)
        else:
            self.store.finish(unit.claim, sum(unit.values) / len(unit.values), seconds)
        self.units.pop(unit.claim.trial, None)

    def _submit(self, unit: _Unit, run: Run, seed: int) -> None:
        begun, spec = run.path.is_dir(), self.spec.run_spec(unit.claim.settings, seed)
        trial = self.store.look(unit.claim) if begun else None
        known, attempts = (trial.intermediate_values, 1 + deaths_of(trial)) if trial else ((), 1)
        files = read_files(run.path) if begun and not self.is_shared else {}
        study = str(self.store.folder.resolve()) if self.is_shared else None
        device = "cpu" if self.job.device == "auto" and not self.executor.gpus else self.job.device
        order = Order(
            spec, run.path.name, study, files, device, self.job.track, self.spec.metric, frozenset(known),
            self._prunes(unit), attempts, self.executor.checkpoint_s,
        )  # fmt: skip
        try:
            data = None if self.is_shared else self._kept_pixels(as_network_wants(spec).data)
        except RequestError as error:  # this run's alone, as a wrong size of its images
            raise end_of(run, "failed", str(error), attempts) from None
        unit.run, unit.key = run, f"{unit.claim.trial} {uuid4().hex}"
        unit.going = Going(run.path.name, unit.claim.settings, 0, spec.recipe.epochs, None)
        self.workers[self.executor.submit(train_on_node, order, data, self.executor.line(unit.key))] = unit

    def _prunes(self, unit: _Unit) -> bool:
        """Whether the run that is next of a unit of work may be pruned; of several seeds it is the first one's."""
        return self.spec.prune is not None and not unit.values

    def _kept_pixels(self, spec: DataSpec) -> Kept:
        """The data set in the cluster's memory, from which each node takes it once."""
        name = spec.model_dump_json()
        if name not in self.pixels:
            while len(self.pixels) >= _BUNDLES:
                self.pixels.popitem(last=False)
            self.pixels[name] = self.executor.put(load_data(spec))
        return self.pixels[name]

    def _hear(self) -> None:
        """Takes in what tasks have sent."""
        for key, message, waits in self.executor.messages():
            unit, prune = self.units.get(int(key.split()[0])), False
            if unit and unit.key == key:
                unit.going = replace(unit.going, node=message.get("node", unit.going.node))
                if files := message.get("files"):
                    write_files(unit.run.path, files)
                if row := message.get("row"):
                    unit.going = replace(unit.going, epoch=int(row["epoch"]), value=row[self.spec.metric])
                    prune = self._prunes(unit) and told(unit.claim, self.spec.metric, row, waits)
            if waits:
                self.executor.answer(key, prune)

    def _tend(self, stopping: bool = False) -> None:
        """Takes in what tasks have come to, and requeues what was lost."""
        if not stopping:
            self._hear()
        done = {future: unit for future, unit in self.workers.items() if future.done()}
        replies = [(unit.run.path, future.result()) for future, unit in done.items() if not future.exception()]
        with ThreadPoolExecutor(_WRITERS) as threads:  # each waits for the disk
            written = [threads.submit(write_files, path, reply.files) for path, reply in replies if reply.files]
        for files in written:
            files.result()
        for future, unit in done.items():
            del self.workers[future]
            error = future.exception()
            if error is not None:
                self._lost(unit, error, stopping)
                continue
            reply = future.result()
            for note in reply.notes:
                self.view.say(note)
            if reply.state == "stopped":
                self._requeue(unit)
            elif reply.state != "done":
                self._end(unit, Ended(reply.state, reply.message))
            else:
                unit.values.append(reply.value)
                if stopping and len(unit.values) < len(unit.claim.seeds):
                    self._requeue(unit)
                else:
                    self._advance(unit)

    def _lost(self, unit: _Unit, error: BaseException, stopping: bool) -> None:
        """After a task that came to nothing."""
        in_use = isinstance(error, FolderInUseError)  # a task of a driver that was killed is about to end
        trial = self._requeue(unit, died=not (stopping or in_use or isinstance(error, NodeLostError)))
        if stopping or in_use:
            return
        if isinstance(error, (*NOT_ITS_OWN, RequestError)):
            raise error
        if isinstance(error, NodeLostError):
            self.view.say(f"{unit.going.name}: node {unit.going.node} was lost; it goes on elsewhere")
        else:
            self._retry(trial, f"{error}{f' (node {unit.going.node})' if unit.going.node else ''}")

    def _requeue(self, unit: _Unit, died: bool = False) -> FrozenTrial:
        self.units.pop(unit.claim.trial, None)
        self.store.requeue(self.store.look(unit.claim), died)
        self.is_dry = False
        return self.store.look(unit.claim)

    def _look(self) -> None:
        self._hear()
        super()._look()
        self.is_dry = self.is_dry and not any(trial.state == TrialState.WAITING for trial in self.trials)

    def _check_life(self, trial: FrozenTrial) -> None:
        unit = self.units.get(trial.number)
        if unit is None:
            super()._check_life(trial)
        elif self.job.storage and time.monotonic() - self.lives.get(trial.number, (None, 0.0))[1] > HEARTBEAT_S:
            self.lives[trial.number] = (None, time.monotonic())
            self.store.heartbeat(trial)  # for drivers on other machines

    def _going(self, trial: FrozenTrial) -> Going:
        unit = self.units.get(trial.number)
        return unit.going if unit else super()._going(trial)
