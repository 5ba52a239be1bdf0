"""`sweep`: begins or goes on with a study, gives it workers, replaces those that die, and shows how it goes."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any
from uuid import uuid4

import torch
from optuna.trial import FrozenTrial, TrialState

from convscope.base.signals import StopWish, stop_wish
from convscope.compute import Executor, LocalProcesses, check_executor, choose_device, is_present
from convscope.data import load_data
from convscope.errors import (
    ConvscopeError,
    FailedError,
    RunFolderError,
    SettingError,
    StoppedError,
    TrackerError,
    UnknownNameError,
    WriteError,
)
from convscope.nets import make_task
from convscope.runs import HISTORY, METRICS, SPEC, Run, as_network_wants, build_from_spec, write_whole
from convscope.study.archive import Archive
from convscope.study.database import database_errors_in_one_line
from convscope.study.folder import STUDY, Study, open_study, run_of
from convscope.study.live import Best, Finished, Going, Standing, View, default_view
from convscope.study.run import find_study
from convscope.study.spec import StudySpec, dump_study, load_study, make_study
from convscope.study.store import (
    MOST_DEATHS,
    STORE,
    Store,
    deaths_of,
    life_of,
    outcome_of,
    owner_of,
    place,
    seconds_of,
)
from convscope.study.worker import Job, end_of, work
from convscope.training import check_trackers, make_card

HEARTBEAT_S = 20.0
STALE_S = 90.0
"""Without a sign of life for so long, by our own clock, a worker on another machine counts as dead."""

_TICK_S, _LOOK_S = 0.1, 1.0
_MOST_IN_VAIN = 3
NOT_ITS_OWN = (TrackerError, WriteError)  # what every other run would end with too


def sweep(
    study: str | Path | StudySpec | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    workers: int = 1,
    storage: str | None = None,
    device: str = "auto",
    view: View | None = None,
    track: Sequence[str] = (),
    executor: Executor | None = None,
    archive: str | None = None,
) -> Study:
    """A study with all its runs trained and evaluated, in the folder `out`.

    What is there already of the same study is kept: finished runs are not done again, unfinished ones go on from their
    checkpoints. Several calls at once, also on several machines with one storage, share the work.

    Args:
        study: a YAML file, the name of a shipped study, a StudySpec, or a mapping of its keys.
        out: the study folder; runs/<name> by default. Machines that share a study share its folder too.
        workers: processes on this machine, between which its cores are shared out.
        storage: address of a database that several machines share, such as postgresql://user@host/database.
        device: see convscope.train.
        view: is told how it goes; a screen on a terminal by default.
        track: see convscope.train; each run is one of the tracker's.
        executor: where the workers are, in place of `workers`; several sweeps can take turns on the processes of one.
        archive: address of an object store, such as s3://bucket/widths, or another folder: each run that has ended is copied
            there, and what is there of this study is fetched where `out` lacks it, before anything is trained.
    Raises:
        SettingError: the study is impossible as it is put, or the storage holds another of this name.
        RunFolderError: `out` holds something else.
        StoppedError: the user stopped it; all is saved.
        FailedError: no worker can be kept alive.
        WriteError: there is no room for a run's files, or they may not be written; what was done is kept.
        UnknownNameError, MissingPackageError, TrackerError: see convscope.train.
        FailedError: the archive cannot be read or written; what was done is kept in `out`.

    Example:
        >>> study = cs.sweep("widths.yaml", workers=2)                    # doctest: +SKIP
    """
    name, spec = find_study(str(study)) if isinstance(study, str | Path) else ("study", make_study(study))
    if workers < 1:
        raise SettingError(f"workers: {workers}; expected 1 or more")
    check_trackers(track)
    check_executor(executor)
    if executor is None or not executor.is_remote:
        choose_device(device)
    folder = Path(out) if out else Path("runs") / name
    check_folder(folder, spec)
    copies = Archive(archive, folder, spec) if archive else None
    try_first(spec)
    folder.mkdir(parents=True, exist_ok=True)
    view = view or default_view()
    if copies and (fetched := copies.restore()):
        view.say(f"{len(fetched):,} run{'s' * (len(fetched) > 1)} came from {archive}")
    with copies or nullcontext(), database_errors_in_one_line(), closing(Store(folder, spec, storage)) as store:
        write_whole(folder / STUDY, dump_study(spec))
        engine: Any = Engine
        if executor and executor.is_remote:
            from convscope.study.cluster import ClusterEngine as engine  # which is one of these

            store.drive()
        store.requeue_orphans()
        store.fill()
        job = Job(str(folder.resolve()), storage, device, track=tuple(track))
        with nullcontext(executor) if executor else LocalProcesses(workers) as pool:
            engine(store, pool, job, view, copies).run()
    swept = open_study(folder)
    if (runs := swept.runs) and all(run.message for run in runs):
        raise FailedError(f"{folder}: no run came to its end; the first: {runs[0].message}")
    return swept


def check_folder(folder: Path, spec: StudySpec) -> None:
    """Refuses a folder that holds something else than this study."""
    if (folder / STUDY).exists():
        there = load_study(folder / STUDY)
        if different := there.differences(spec):
            can_grow = different == ["seeds"] and there.is_grid
            more = f"; seeds can be added behind {[*there.seeds]}" if can_grow else ""
            raise RunFolderError(
                f"{folder} holds another study ({', '.join(different)} differ); choose another --out, or delete it{more}"
            )
    elif (folder / SPEC).exists():
        raise RunFolderError(f"{folder} holds a run, not a study; choose another --out")
    # study.lock, study.db …: of one that begins at this moment, or was killed when it began
    elif folder.exists() and not (
        folder.is_dir() and all(file.name.removeprefix(".").startswith("study.") for file in folder.iterdir())
    ):
        raise RunFolderError(f"{folder} exists and is no study; choose another --out")


def try_first(spec: StudySpec) -> None:
    """Finds out now what would fail in every run: the data, the names of networks and of their options.

    The data are decoded here once; so the workers do not all do it at the same time.
    """
    first = as_network_wants(spec.run_spec(spec.example, spec.run_seeds[0]))
    data = load_data(first.data)
    card = make_card(data, make_task(first.task, data.train.classes))
    net_settings = [{key: value} for key in spec.lists if key.split(".")[0] == "net" for value in spec.lists[key]]
    unknown = []
    for settings in [{}, *net_settings]:
        try:
            changed = spec.run_spec(settings, spec.run_seeds[0]) if settings else first
            build_from_spec(changed, card)
        except UnknownNameError as error:
            unknown.append(f"{', '.join(settings) or 'net'}: {error}")
        except ConvscopeError:
            pass  # a network that does not fit is a run that fails; the others go on
    if len(unknown) > len(net_settings):
        raise SettingError(unknown[0])


class Engine:
    """Looks after the workers of one command."""

    def __init__(self, store: Store, executor: Executor, job: Job, view: View, archive: Archive | None = None) -> None:
        self.store, self.spec, self.executor, self.job, self.view = store, store.spec, executor, job, view
        self.archive = archive
        self.workers: dict[Future[list[str]], tuple[Job, int]] = {}  # with the slot, of `executor.count`, that each has
        self.end = time.monotonic() + 60 * (store.spec.budget.minutes or math.inf)
        self.lives: dict[int, tuple[Any, float]] = {}
        self.seen: set[int] = set()
        self.in_vain, self.look_at = 0, 0.0
        self.trials: list[FrozenTrial] = []

    def run(self) -> None:
        """Until nothing waits and nobody has anything; or until the user stops it."""
        self.view.begin(self.store.name, self.spec.metric)
        n_settings, choices = (self.spec.budget.runs or 0) // len(self.spec.run_seeds), self.spec.n_choices
        if not self.spec.is_grid and choices is not None and choices < n_settings:
            self.view.say(f"there are {choices:,} different settings, not {n_settings:,}: the search ends with them")
        self.trials = self.store.trials()
        ended = [trial for trial in self.trials if self._was_finished(trial)]
        self.seen = {trial.number for trial in ended}
        if self.spec.is_grid and self.job.storage is None:
            runs = [run for trial in ended for run in self._runs_of(trial)]
            if gone := [run.name for run in runs if not run.path.exists()]:
                self.view.say(
                    f"{', '.join(gone[:5])}{', …' * (len(gone) > 5)}: done before, and now without a folder; to train "
                    f"what is gone again, delete {self.store.folder / STORE} too"
                )
        try:
            with stop_wish() as wish:
                while self._goes_on():
                    self._tick(wish)
                    time.sleep(_TICK_S)
        finally:
            try:
                if self.workers:
                    self.executor.kill()
                    self._tend(stopping=True)
            finally:  # also where there is no room for what they have done
                self.view.end()

    def _was_finished(self, trial: FrozenTrial) -> bool:
        return trial.state.is_finished()

    def _tick(self, wish: StopWish) -> None:
        if wish.asked:
            self._stop()
        self._tend()
        self._submit_work()
        if time.monotonic() >= self.look_at:
            self._look()

    def _submit_work(self) -> None:
        """Gives the executor what it has room for."""
        for _ in range(min(self.executor.count - len(self.workers), self._n_lacking())):
            n_gpus = torch.cuda.device_count() if self.job.device == "auto" else 0
            slot = min(set(range(self.executor.count)) - {slot for _, slot in self.workers.values()})
            device = f"cuda:{slot % n_gpus}" if n_gpus > 1 else self.job.device  # workers take several in turn
            job = replace(self.job, device=device, owner=uuid4().hex, seconds=self._seconds_left())
            self.workers[self.executor.submit(work, job)] = job, slot

    @property
    def _owners(self) -> list[str]:
        return [job.owner for job, _ in self.workers.values()]

    def _goes_on(self) -> bool:
        if self.workers or (not self.trials and self._seconds_left()):
            return True
        self._look()  # what the last worker did
        somebody_is_at_work = any(trial.state == TrialState.RUNNING for trial in self.trials)
        return self._n_lacking() > 0 or (self._seconds_left() > 0 and somebody_is_at_work)

    def _n_lacking(self) -> int:
        """How many more workers would find something to do."""
        if not self._seconds_left():
            return 0
        if self.spec.n_trials is None and not self.store.is_used_up(len(self.trials)):
            return self.executor.count - len(self.workers)
        waiting = sum(trial.state == TrialState.WAITING for trial in self.trials)
        busy = {owner_of(trial) for trial in self.trials if trial.state == TrialState.RUNNING}
        return waiting - sum(owner not in busy for owner in self._owners)  # those are about to take one

    def _seconds_left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    def _tend(self, stopping: bool = False) -> None:
        """Requeues what workers had that have ended."""
        for future in [future for future in self.workers if future.done()]:
            job, _ = self.workers.pop(future)
            error = future.exception()
            is_its_own = error is not None and not isinstance(error, NOT_ITS_OWN)
            trial = self.store.requeue_of(job.owner, died=is_its_own and not stopping)
            if error is None:
                for line in future.result():
                    self.view.say(line)
            elif not stopping:
                if not is_its_own:
                    raise error
                self.look_at = 0.0
                self.in_vain = 0 if trial else self.in_vain + 1
                if trial:
                    self._retry(trial, str(error))
                elif self.in_vain >= _MOST_IN_VAIN:
                    raise FailedError(f"workers end before they have begun: {error}")

    def _retry(self, trial: FrozenTrial, reason: str) -> None:
        """Once; then it has failed."""
        if deaths_of(trial) < MOST_DEATHS:
            self.view.say(f"{self._runs_of(trial)[0].name}: its worker died and is replaced: {reason}")
            return
        message = f"its worker died {deaths_of(trial)} times: {reason}"
        if self.store.mark_failed(trial, message):
            end_of(self._run_of(trial), "failed", message, deaths_of(trial))

    def _runs_of(self, trial: FrozenTrial) -> list[Run]:
        number, seeds = place(self.spec, trial.number)
        return [run_of(self.store.folder, number, seed) for seed in seeds]

    def _run_of(self, trial: FrozenTrial) -> Run:
        """The run of a unit of work that is being trained."""
        runs = self._runs_of(trial)
        return next((run for run in runs if not run.has(METRICS)), runs[-1])

    def _stop(self) -> None:
        self.view.say("stopping: each run finishes its step and saves; Ctrl-C again to end at once")
        self.executor.stop()
        while wait(self.workers, timeout=_LOOK_S).not_done:
            self._look()
        self._tend(stopping=True)
        self._look()
        ended, total = len(self.seen), self.spec.n_trials
        progress = f"{ended} of {total}" if total else f"{ended}"
        units = "runs" if self.spec.is_grid else "settings"
        raise StoppedError(f"stopped with {progress} {units} done; all is saved: go on with the same command")

    def _look(self) -> None:
        """Reads the store, shows what is new, and finds workers elsewhere that are no more."""
        began = time.monotonic()
        self.trials = self.store.trials()
        fresh = [trial for trial in self.trials if trial.state.is_finished() and trial.number not in self.seen]
        self.view.show(self._standing())
        for nth, trial in enumerate(fresh, len(self.seen) + 1):
            self.view.finished(self._finished(trial, nth))
        self.seen |= {trial.number for trial in fresh}
        for line in self.archive.keep_up() if fresh and self.archive else ():
            self.view.say(line)
        for trial in self.trials:
            if trial.state == TrialState.RUNNING:
                self._check_life(trial)
        # of a large study the looks are as rare as they are long, as far as the heartbeat allows
        self.look_at = time.monotonic() + min(HEARTBEAT_S, max(_LOOK_S, 50 * (time.monotonic() - began)))

    def _check_life(self, trial: FrozenTrial) -> None:
        owner, life = owner_of(trial), life_of(trial)
        if self.lives.get(trial.number, (None, 0.0))[0] != life:
            self.lives[trial.number] = (life, time.monotonic())
        silent_s = time.monotonic() - self.lives[trial.number][1]
        if owner in self._owners:
            if silent_s > HEARTBEAT_S:
                self.store.heartbeat(trial)
            return
        alive = is_present(owner) if owner else None
        if alive is False or (silent_s > STALE_S and alive is None):
            self.store.requeue(trial, died=True)

    def _standing(self) -> Standing:
        n = Counter(trial.state for trial in self.trials)
        going = [self._going(trial) for trial in self.trials if trial.state == TrialState.RUNNING]
        total = self.spec.n_trials
        waiting = None if total is None else n[TrialState.WAITING]
        left_s = self._seconds_left()
        durations = [s for t in self.trials if t.state == TrialState.COMPLETE and (s := seconds_of(t))]
        if durations and waiting is not None:
            left_s = min(left_s, fmean(durations) * (waiting + len(going) / 2) / self.executor.count)
        return Standing(
            total,
            done=n[TrialState.COMPLETE],
            pruned=n[TrialState.PRUNED],
            failed=n[TrialState.FAIL],
            going=going,
            waiting=waiting,
            best=self._best(),
            left_s=left_s if math.isfinite(left_s) else None,
        )

    def _best(self) -> Best | None:
        """The setting with the best mean metric over its finished seeds."""
        values: dict[int, list[float]] = defaultdict(list)
        for trial in self.trials:
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                values[place(self.spec, trial.number)[0]].append(trial.value)
        if not values:
            return None
        number = max(values, key=lambda each: self.spec.sign * fmean(values[each]))
        n = len(values[number]) if self.spec.is_grid else len(self.spec.run_seeds)
        first = self.trials[number - 1]  # every setting comes once before the next seed
        return Best(self.store.settings_of(first), fmean(values[number]), n)

    def _going(self, trial: FrozenTrial) -> Going:
        run = self._run_of(trial)
        try:
            rows: list[dict[str, Any]] = run.history.to_dict("records") if run.has(HISTORY) else []  # type: ignore[assignment]
            epochs = run.spec.recipe.epochs if run.has(SPEC) else self.spec.recipe["epochs"]
        except ConvscopeError:  # on a file system of several machines, a file may be on its way
            rows, epochs = [], self.spec.recipe["epochs"]
        value = rows[-1][self.spec.metric] if rows else None
        return Going(run.name, self.store.settings_of(trial), len(rows), epochs, value)

    def _finished(self, trial: FrozenTrial, nth: int) -> Finished:
        name = self._runs_of(trial)[0].name
        if not self.spec.is_grid:  # whose units are settings
            name = name.partition("-")[0]
        if trial.state == TrialState.COMPLETE:
            state, words = "done", f"{trial.value:.4f}"
        else:
            outcome = outcome_of(trial)
            state, words = outcome["state"], outcome["message"]
        return Finished(nth, name, self.store.settings_of(trial), state, words, seconds_of(trial))
