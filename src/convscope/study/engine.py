"""`sweep`: begins or goes on with a study, gives it workers, replaces those that die, and shows how it goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from convscope.data import load_data
from convscope.errors import (
    ConvscopeError,
    FailedError,
    RunFolderError,
    SettingError,
    StoppedError,
    TrackerError,
    UnknownNameError,
)
from convscope.nets import make_task
from convscope.runs import HISTORY, METRICS, OUTCOME, SPEC, Run, build_from_spec, write_whole
from convscope.study.claims import is_dead, is_here
from convscope.study.folder import RUNS, STUDY, Study, open_study
from convscope.study.live import Best, Finished, Going, Standing, View, default_view
from convscope.study.run import find_study
from convscope.study.spec import StudySpec, dump_study, load_study, make_study, run_name
from convscope.study.store import MOST_DEATHS, Store, deaths_of, life_of, outcome_of, owner_of, place, seconds_of
from convscope.study.workers import NO_TRACKER, Ended, Job, LocalWorkers, share_of_cores
from convscope.training import LEFT, StopWish, check_trackers, choose_device, make_card, stop_wish

STALE_S = 90.0
"""Without a sign of life for so long, by our own clock, a worker on another machine counts as dead."""

_TICK_S, _LOOK_S = 0.1, 1.0
_MOST_IN_VAIN = 3


def sweep(
    study: str | Path | StudySpec | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    workers: int = 1,
    storage: str | None = None,
    device: str = "auto",
    view: View | None = None,
    track: Sequence[str] = (),
) -> Study:
    """A study with all its runs trained and evaluated, in the folder `out`.

    What is there already of the same study is kept: finished runs are not done again, unfinished ones go on from their
    checkpoints. Several calls at once, also on several machines with one storage, share the work. In a script, call it under
    `if __name__ == "__main__":`.

    Args:
        study: a YAML file, the name of a shipped study, a StudySpec, or a mapping of its keys.
        out: the study folder; runs/<name> by default. Machines that share a study share its folder too.
        workers: processes on this machine, between which its cores are shared out.
        storage: address of a database that several machines share, such as postgresql://user@host/database.
        device: see convscope.train.
        view: is told how it goes; a screen on a terminal by default.
        track: see convscope.train; each run is one of the tracker's.
    Raises:
        SettingError: the study is impossible as it is put, or the storage holds another of this name.
        RunFolderError: `out` holds something else.
        StoppedError: the user stopped it; all is saved.
        FailedError: no worker can be kept alive.
        UnknownNameError, MissingPackageError, TrackerError: see convscope.train.

    Example:
        >>> study = cs.sweep("widths.yaml", workers=2)                    # doctest: +SKIP
    """
    name, spec = named(study)
    if workers < 1:
        raise SettingError(f"workers: {workers}; expected 1 or more")
    check_trackers(track)
    choose_device(device)
    folder = Path(out) if out else Path("runs") / name
    check_folder(folder, spec)
    try_first(spec)
    folder.mkdir(parents=True, exist_ok=True)
    with closing(Store(folder, spec, storage)) as store:
        write_whole(folder / STUDY, dump_study(spec))
        store.give_back_orphans()
        store.fill()
        job = Job(str(folder.resolve()), storage, device, share_of_cores(workers), track=tuple(track))
        _Engine(store, LocalWorkers(job, workers), view or default_view()).run()
    return _came_to_something(open_study(folder))


def _came_to_something(study: Study) -> Study:
    """The study, unless each of its runs failed."""
    runs = study.runs
    if runs and all(run.message for run in runs):
        raise FailedError(f"{study.path}: no run came to its end; the first: {runs[0].message}")
    return study


def named(study: str | Path | StudySpec | Mapping[str, Any]) -> tuple[str, StudySpec]:
    """Name and checked spec of what is given to `sweep`."""
    if isinstance(study, str | Path):
        return find_study(str(study))
    return "study", make_study(study)


def check_folder(folder: Path, spec: StudySpec) -> None:
    """Refuses a folder that holds something else than this study."""
    if (folder / STUDY).exists():
        if different := load_study(folder / STUDY).differences(spec):
            raise RunFolderError(
                f"{folder} holds another study ({', '.join(different)} differ); choose another --out, or delete it"
            )
    elif (folder / SPEC).exists():
        raise RunFolderError(f"{folder} holds a run, not a study; choose another --out")
    elif folder.exists() and not (folder.is_dir() and all(_is_ours(file.name) for file in folder.iterdir())):
        raise RunFolderError(f"{folder} exists and is no study; choose another --out")


def _is_ours(name: str) -> bool:
    """study.lock, study.db …: of one that begins at this moment, or was killed when it began."""
    return name.removeprefix(".").startswith("study.")


def try_first(spec: StudySpec) -> None:
    """Finds out now what would fail in every run: the data, the names of networks and of their options.

    The data are decoded here once; so the workers do not all do it at the same time.
    """
    first = spec.run_spec(spec.example, spec.seeds[0])
    data = load_data(first.data)
    card = make_card(data, make_task(first.task, data.train.classes))
    tried = [{key: value} for key in spec.lists if key.split(".")[0] == "net" for value in spec.lists[key]]
    for settings in [{}, *tried]:
        try:
            changed = spec.run_spec(settings, spec.seeds[0]) if settings else first
            build_from_spec(changed, card)
        except UnknownNameError as error:
            raise SettingError(f"{', '.join(settings) or 'net'}: {error}") from None
        except ConvscopeError:
            pass  # a network that does not fit is a run that fails; the others go on


class _Engine:
    """Looks after the workers of one command."""

    def __init__(self, store: Store, workers: LocalWorkers, view: View) -> None:
        self.store, self.spec, self.workers, self.view = store, store.spec, workers, view
        minutes = store.spec.budget.minutes
        self.end = None if minutes is None else time.monotonic() + 60 * minutes
        self.lives: dict[int, tuple[Any, float]] = {}
        self.seen: set[int] = set()
        self.in_vain, self.look_at = 0, 0.0
        self.trials: list[FrozenTrial] = []

    def run(self) -> None:
        """Until nothing waits and nobody has anything; or until the user stops it."""
        self.view.begin(self.store.name, self.spec.metric)
        asked, choices = (self.spec.budget.runs or 0) // len(self.spec.seeds), self.spec.n_choices
        if not self.spec.is_grid and choices is not None and choices < asked:
            self.view.say(f"there are {choices:,} different settings, not {asked:,}: the search ends with them")
        self.trials = self.store.trials()
        self.seen = {trial.number for trial in self.trials if trial.state.is_finished()}
        try:
            with stop_wish() as wish:
                while self._goes_on():
                    self._tick(wish)
                    time.sleep(_TICK_S)
        finally:
            self.workers.kill()
            self._tend(stopping=True)
            self.view.end()

    def _tick(self, wish: StopWish) -> None:
        if wish.asked:
            self._stop()
        self._tend()
        while len(self.workers.owners) < min(self.workers.count, len(self.workers.owners) + self._n_lacking()):
            self.workers.start(self._seconds_left())
        if time.monotonic() >= self.look_at:
            self._look()

    def _goes_on(self) -> bool:
        if self.workers.owners or (not self.trials and not self._is_late()):
            return True
        self._look()  # what the last worker did
        return self._n_lacking() > 0 or (
            not self._is_late() and any(t.state == TrialState.RUNNING for t in self.trials)
        )

    def _n_lacking(self) -> int:
        """How many more workers would find something to do."""
        if self._is_late():
            return 0
        if self.spec.n_trials is None and not self.store.is_used_up(len(self.trials)):
            return self.workers.count - len(self.workers.owners)
        waiting = sum(trial.state == TrialState.WAITING for trial in self.trials)
        had = {owner_of(trial) for trial in self.trials if trial.state == TrialState.RUNNING}
        return waiting - sum(owner not in had for owner in self.workers.owners)  # those are about to take one

    def _is_late(self) -> bool:
        return self.end is not None and time.monotonic() > self.end

    def _seconds_left(self) -> float | None:
        return None if self.end is None else max(0.0, self.end - time.monotonic())

    def _tend(self, stopping: bool = False) -> None:
        """Takes back what dead workers had."""
        for ended in self.workers.ended():
            trial = self.store.give_back_of(ended.owner, died=not stopping)
            for line in ended.lines:
                if line.startswith(LEFT):
                    self.view.say(line)
            if stopping or ended.status == 0:
                continue
            if ended.status == NO_TRACKER:
                raise TrackerError(ended.reason)
            self.look_at = 0.0
            self.in_vain = 0 if trial else self.in_vain + 1
            if trial is None and self.in_vain >= _MOST_IN_VAIN:
                raise FailedError(f"workers end before they have begun: {ended.reason}")
            if trial is not None:
                self._mourn(trial, ended)

    def _mourn(self, trial: FrozenTrial, ended: Ended) -> None:
        number, seeds = place(self.spec, trial.number)
        if deaths_of(trial) < MOST_DEATHS:
            self.view.say(f"{run_name(number, seeds[0])}: its worker died and is replaced: {ended.reason}")
            return
        message = f"its worker died {deaths_of(trial)} times: {ended.reason}"
        if self.store.bury(trial, message):
            runs = [Run(self.store.folder / RUNS / run_name(number, seed)) for seed in seeds]
            left = next((run for run in runs if not run.has(METRICS)), runs[-1])
            left.write_json(OUTCOME, {"state": "failed", "message": message, "attempts": deaths_of(trial)})

    def _stop(self) -> None:
        self.view.say("stopping: each run finishes its step and saves; Ctrl-C again to end at once")
        self.workers.stop()
        while self.workers.owners:
            self._tend(stopping=True)
            time.sleep(_TICK_S)
        self._look()
        ended, total = len(self.seen), self.spec.n_trials
        of = f"{ended} of {total}" if total else f"{ended}"
        what = "runs" if self.spec.is_grid else "settings"
        raise StoppedError(f"stopped with {of} {what} done; all is saved: go on with the same command")

    def _look(self) -> None:
        """Reads the store, shows what is new, and finds workers elsewhere that are no more."""
        began = time.monotonic()
        self.trials = self.store.trials()
        fresh = [trial for trial in self.trials if trial.state.is_finished() and trial.number not in self.seen]
        self.view.show(self._standing())
        for nth, trial in enumerate(fresh, len(self.seen) + 1):
            self.view.finished(self._finished(trial, nth))
        self.seen |= {trial.number for trial in fresh}
        for trial in self.trials:
            if trial.state == TrialState.RUNNING and owner_of(trial) not in self.workers.owners:
                self._check_life(trial)
        # of a large study the looks are as rare as they are long
        self.look_at = time.monotonic() + max(_LOOK_S, 50 * (time.monotonic() - began))

    def _check_life(self, trial: FrozenTrial) -> None:
        owner, life = owner_of(trial), life_of(trial)
        if self.lives.get(trial.number, (None, 0.0))[0] != life:
            self.lives[trial.number] = (life, time.monotonic())
        silent = time.monotonic() - self.lives[trial.number][1] > STALE_S
        if (owner and is_dead(owner)) or (silent and not (owner and is_here(owner))):
            self.store.give_back(trial, died=True)

    def _standing(self) -> Standing:
        n = {state: sum(trial.state == state for trial in self.trials) for state in TrialState}
        going = [self._going(trial) for trial in self.trials if trial.state == TrialState.RUNNING]
        total = self.spec.n_trials
        waiting = None if total is None else n[TrialState.WAITING]
        done, pruned, failed = n[TrialState.COMPLETE], n[TrialState.PRUNED], n[TrialState.FAIL]
        return Standing(total, done, pruned, failed, going, waiting, self._best(), self._left(len(going), waiting))

    def _left(self, n_going: int, waiting: int | None) -> float | None:
        if waiting is None:
            return self._seconds_left()
        took = [
            seconds for trial in self.trials if trial.state == TrialState.COMPLETE and (seconds := seconds_of(trial))
        ]
        left = fmean(took) * (waiting + n_going / 2) / self.workers.count if took else None
        ends = [each for each in (left, self._seconds_left()) if each is not None]
        return min(ends) if ends else None

    def _best(self) -> Best | None:
        return best_of(self.store, self.trials)

    def _going(self, trial: FrozenTrial) -> Going:
        number, seeds = place(self.spec, trial.number)
        runs = [Run(self.store.folder / RUNS / run_name(number, seed)) for seed in seeds]
        run = next((run for run in runs if not run.has(METRICS)), runs[-1])
        try:
            rows: list[dict[str, Any]] = run.history.to_dict("records") if run.has(HISTORY) else []  # type: ignore[assignment]
            epochs = run.spec.recipe.epochs if run.has(SPEC) else self.spec.recipe["epochs"]
        except ConvscopeError:  # on a file system of several machines, a file may be on its way
            rows, epochs = [], self.spec.recipe["epochs"]
        value = rows[-1][self.spec.metric] if rows else None
        return Going(run.name, self.store.settings_of(trial), len(rows), epochs, value)

    def _finished(self, trial: FrozenTrial, nth: int) -> Finished:
        number, seeds = place(self.spec, trial.number)
        name = run_name(number, seeds[0]) if self.spec.is_grid else f"{number:04d}"
        settings = self.store.settings_of(trial)
        if trial.state == TrialState.COMPLETE:
            return Finished(nth, name, settings, "done", f"{trial.value:.4f}", seconds_of(trial))
        left = outcome_of(trial)
        return Finished(nth, name, settings, left["state"], left["message"], seconds_of(trial))


def best_of(store: Store, trials: list[FrozenTrial]) -> Best | None:
    """The setting with the best mean metric over its finished seeds."""
    values: dict[int, list[float]] = defaultdict(list)
    settings: dict[int, Mapping[str, Any]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            number, _ = place(store.spec, trial.number)
            values[number].append(trial.value)
            settings[number] = store.settings_of(trial)
    if not values:
        return None
    number = max(values, key=lambda each: store.spec.sign * fmean(values[each]))
    n = len(values[number]) if store.spec.is_grid else len(store.spec.seeds)
    return Best(settings[number], fmean(values[number]), n)
