"""What several processes know of a study in common: an Optuna study, one trial for each unit of work.

Trial t is the t-th unit of the plan for good: a run of a grid, or a setting of a search with all its seeds. It waits, is
claimed by one worker, and ends complete, pruned or failed; where its worker stopped or died it waits again.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, _filter_study
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from convscope.compute import is_present, present
from convscope.errors import FolderInUseError, SettingError
from convscope.study.database import check_file, close_log, connect, quiet_optuna, write_ahead
from convscope.study.draws import Drawn, choice_of, draw, identity, random_draws, settings_drawn, space
from convscope.study.spec import StudySpec, dump_study, read_study

STORE, _LOCK = "study.db", "study.lock"
MOST_DEATHS = 2
"""A unit of work whose worker died so many times has failed."""

_OWNER, _HEARTBEAT, _DEATHS, _SECONDS, _OUTCOME = "owner", "beat", "deaths", "seconds", "outcome"
_DRIVER = "driver"
_SIGNED_S = 1.0  # within which whoever has taken a unit of work has signed for it


@dataclass(frozen=True)
class Claim:
    """A unit of work that is ours.

    Attributes:
        trial: its place in the plan.
        number: of its setting, from 1; the folders of its runs are named after it, see `run_of`.
        seeds: to be run one after another.
        settings: dotted keys of a run's spec and their values.
        asked: Optuna's own object, to report to and to ask whether to prune.
    """

    trial: int
    number: int
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    asked: Trial


def place(spec: StudySpec, trial: int) -> tuple[int, tuple[int, ...]]:
    """Number of the setting and seeds of a unit of work. A grid has every setting once before it takes the next seed."""
    if not spec.is_grid:
        return trial + 1, spec.run_seeds
    seed, setting = divmod(trial, spec.n_settings)
    return setting + 1, (spec.run_seeds[seed],)


class Store:
    """The units of work of one study, and who has which.

    Args:
        folder: of the study.
        spec: what was asked.
        url: of a database that several machines share; SQLite in the folder where none is given.
        owner: the name that stands in the units of work which are claimed here, see `convscope.compute.present`.
    Raises:
        SettingError: the database holds another study of this name.
        FailedError: the database cannot be reached.
        FolderInUseError: the driver of a cluster has all units of work.
    """

    def __init__(self, folder: Path, spec: StudySpec, url: str | None = None, owner: str = "") -> None:
        self.folder, self.spec, self.name = folder, spec, folder.resolve().name
        self.owner = owner or uuid4().hex
        self._grid = spec.grid() if spec.is_grid else []
        self._n_trials = math.inf if spec.n_trials is None else spec.n_trials
        self._queue: list[FrozenTrial] = []
        self._draws, self._random = random_draws(spec), list[Drawn]()
        self._url, self._alone, self._held = url, False, ExitStack()
        self.backend: BaseStorage
        # Taken by whoever changes what others may change at the same time.
        self.lock = FileLock(folder / _LOCK, poll_interval=0.01)
        with self.lock, quiet_optuna(), ExitStack() as cleanup:
            if url is None:
                check_file(folder / STORE)
            self.backend = connect(url or f"sqlite:///{(folder / STORE).resolve()}")
            cleanup.callback(self._disconnect)
            self.study = optuna.create_study(
                storage=self.backend,
                study_name=self.name,
                load_if_exists=True,
                direction="maximize" if self.spec.sign > 0 else "minimize",
                sampler=RandomSampler(),
                pruner=_pruner(self.spec),
            )
            self._agree()
            cleanup.pop_all()

    def fill(self) -> None:
        """Adds the units of work that are not there yet; those of a study that only minutes limit come one by one."""
        if self.spec.n_trials is None:
            return
        with self.lock:
            for _ in range(len(self.study.get_trials(deepcopy=False)), self.spec.n_trials):
                self.study.enqueue_trial({})

    def trials(self) -> list[FrozenTrial]:
        """Every unit of work, in order."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.number < self._n_trials]

    def claim(self) -> Claim | None:
        """The next unit of work that waits, ours from now on; None where none waits."""
        if not self._queue:
            self._queue = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))[::-1]
        while self._queue:
            trial = self._queue.pop()
            if trial.number < self._n_trials and self._take(trial):
                return self._claimed(trial)
        if self.spec.n_trials is None:
            with self.lock:
                if not self.is_used_up(len(self.study.get_trials(deepcopy=False))):
                    return self._claimed(self.backend.get_trial(self.study.ask()._trial_id))
        return None

    def is_used_up(self, n_trials: int) -> bool:
        """Whether so many units of work are all the settings that a search can draw."""
        return not self.spec.is_grid and self.spec.n_choices is not None and n_trials >= self.spec.n_choices

    def look(self, claim: Claim) -> FrozenTrial:
        """The claimed unit of work as the store has it now."""
        return self.backend.get_trial(claim.asked._trial_id)

    def heartbeat(self, trial: FrozenTrial) -> None:
        """A sign of life, for those on other machines, from whoever knows that its worker lives."""
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # it has just come to its end
            self.backend.set_trial_user_attr(trial._trial_id, _HEARTBEAT, trial.user_attrs.get(_HEARTBEAT, 0) + 1)

    def finish(self, claim: Claim, value: float, seconds: float) -> None:
        """The unit of work is done; its value is the mean metric over its seeds."""
        if self._is_going_on(claim):
            self.backend.set_trial_user_attr(claim.asked._trial_id, _SECONDS, seconds)
            if self.spec.sampler == "tpe":  # which has kept what it learnt from, and forgets it here
                self.study.tell(claim.asked, value)
            else:  # a third of the time
                self.backend.set_trial_state_values(claim.asked._trial_id, TrialState.COMPLETE, [value])

    def fail(self, claim: Claim, state: str, message: str, seconds: float) -> None:
        """The unit of work ended without a value: pruned, diverged or failed."""
        if self._is_going_on(claim):
            claim.asked.set_user_attr(_SECONDS, seconds)
            claim.asked.set_user_attr(_OUTCOME, {"state": state, "message": message})
            self.study.tell(claim.asked, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def requeue(self, trial: FrozenTrial, died: bool = False) -> bool:
        """Lets a unit of work wait again whose worker stopped or died; False where it has moved on since it was looked at.

        Args:
            trial: as it was when its worker was found to be gone.
            died: by itself, which counts; not that everything was stopped.
        """
        with self.lock:
            now = self.backend.get_trial(trial._trial_id)
            if now.state != TrialState.RUNNING or owner_of(now) != owner_of(trial):
                return False
            self.backend.set_trial_user_attr(trial._trial_id, _DEATHS, deaths_of(now) + died)
            self.backend.set_trial_user_attr(trial._trial_id, _OWNER, None)
            self.backend.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        return True

    def mark_failed(self, trial: FrozenTrial, message: str) -> bool:
        """A unit of work that waits has failed for good; False where another process has taken it meanwhile."""
        if not self._take(trial):
            return False
        self.backend.set_trial_user_attr(trial._trial_id, _OUTCOME, {"state": "failed", "message": message})
        self.backend.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return True

    def requeue_of(self, owner: str, died: bool) -> FrozenTrial | None:
        """The unit of work that a worker had, waiting again; None where it had none."""
        for trial in self.running():
            if owner_of(trial) == owner and self.requeue(trial, died):
                return self.backend.get_trial(trial._trial_id)
        return None

    def requeue_orphans(self) -> int:
        """Requeues all units whose workers were on this machine and are no more; how many.

        A worker that was killed between taking a unit of work and signing for it is known by that it does not sign.
        """
        running = self.running()
        if any(owner_of(trial) is None for trial in running):
            time.sleep(_SIGNED_S)
            running = self.running()
        return sum(
            self.requeue(trial) for trial in running if (owner := owner_of(trial)) is None or is_present(owner) is False
        )

    def settings_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """The settings of a unit of work; of a search, those that are drawn so far."""
        if self.spec.is_grid:
            return self._grid[trial.number % len(self._grid)]
        return settings_drawn(self.spec, trial.params)

    def drive(self) -> None:
        """From now on this process takes all units of work, as the driver of a cluster does, and many at a time.

        Where each setting follows from its number they are kept in memory, which takes a tenth of the time: what is done is
        known from the folders of the runs. Else SQLite writes ahead, in a third. A database that machines share stays as it is.

        Raises:
            FolderInUseError: another process of this machine is at work on the study.
        """
        with self.lock:
            owners = {owner for trial in self.running() if (owner := owner_of(trial))}
            if self._url is None and any(map(is_present, owners)):
                raise FolderInUseError(
                    f"{self.folder}: a sweep on this machine is at work on it; stop it, or wait for its end"
                )
            self._held.enter_context(present(self.owner))
            if self._url is not None:
                return
            self.study.set_user_attr(_DRIVER, self.owner)
        self._alone = True
        if self.spec.sampler == "tpe" or self.spec.prune:
            assert isinstance(self.backend, RDBStorage)
            write_ahead(self.backend.engine)
            self._disconnect()
        else:
            memory = InMemoryStorage()
            optuna.copy_study(from_study_name=self.name, from_storage=self.backend, to_storage=memory)
            self._disconnect()
            self.backend = memory
            self.study = optuna.load_study(study_name=self.name, storage=memory, sampler=self.study.sampler)

    def close(self) -> None:
        """Ends the connection."""
        self._disconnect()
        if self._alone:
            close_log(self.folder / STORE)
        self._held.close()

    def _disconnect(self) -> None:
        if isinstance(self.backend, RDBStorage):
            self.backend.remove_session()
            self.backend.engine.dispose()

    def running(self) -> list[FrozenTrial]:
        """Those that some worker has."""
        return self.backend.get_all_trials(self.study._study_id, deepcopy=False, states=(TrialState.RUNNING,))

    def _is_going_on(self, claim: Claim) -> bool:
        """Another machine that took us for dead may have given it back; whoever claims it next finds the folder finished."""
        return self._alone or self.look(claim).state == TrialState.RUNNING

    def _take(self, trial: FrozenTrial) -> bool:
        try:
            return self.backend.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def _claimed(self, trial: FrozenTrial) -> Claim:
        self.backend.set_trial_user_attr(trial._trial_id, _OWNER, self.owner)
        asked = Trial(self.study, trial._trial_id)
        # Two who draw at the same moment would not know of one another's settings.
        with nullcontext() if self._grid else self.lock:
            trial = self.backend.get_trial(trial._trial_id)
            params = self._params(trial)
            for key, kind in space(self.spec).items():
                if key not in trial.params:
                    self.backend.set_trial_param(trial._trial_id, key, kind.to_internal_repr(params[key]), kind)
        settings = self.settings_of(trial) if self._grid else settings_drawn(self.spec, params)
        return Claim(trial.number, *place(self.spec, trial.number), settings, asked)

    def _params(self, trial: FrozenTrial) -> dict[str, Any]:
        """The settings of a unit of work as Optuna keeps them: of a grid, for its own tools; of a search drawn, unless
        they were before."""
        if self._grid:
            lists = self.spec.lists
            return {key: choice_of(lists[key], value) for key, value in self.settings_of(trial).items()}
        if trial.params.keys() >= self.spec.sweep.keys():
            return trial.params
        study = _filter_study(self.study, trial)
        return draw(self.spec, trial.number, self._taken(trial.number), study, trial) | trial.params

    def _taken(self, trial: int) -> set[Drawn]:
        """The settings that are not to be drawn again. Those of a random search are the draws before, whoever makes them."""
        others = self.study.get_trials(deepcopy=False)
        if self.spec.sampler == "random":
            missing = trial - len(self._random)
            self._random += [identity(self.spec, params) for params in islice(self._draws, max(0, missing))]
            others = others[:trial]
        drawn = [other for other in others if other.number != trial and other.params.keys() >= self.spec.sweep.keys()]
        return {*self._random[:trial], *(identity(self.spec, other.params) for other in drawn)}

    def _agree(self) -> None:
        """Writes the spec into a new study, or one that gets more seeds; refuses another one's."""
        if (driver := self.study.user_attrs.get(_DRIVER)) and is_present(driver):
            raise FolderInUseError(
                f"{self.folder}: a sweep on a cluster is at work on it; stop it, or wait for its end"
            )
        stored = self.study.user_attrs.get("spec")
        if stored is not None and (different := read_study(stored, "the study in the store").differences(self.spec)):
            where = (self._url and "--storage") or f"{self.folder / STORE}"
            raise SettingError(
                f"{where} holds another study named {self.name!r} ({', '.join(different)} differ); "
                "choose another --out, whose name is the study's, or another --storage"
            )
        if stored != (text := dump_study(self.spec)):
            self.study.set_user_attr("spec", text)


def owner_of(trial: FrozenTrial) -> str | None:
    """The name of the worker that has it."""
    return trial.user_attrs.get(_OWNER)


def deaths_of(trial: FrozenTrial) -> int:
    """How often its worker died."""
    return trial.user_attrs.get(_DEATHS, 0)


def life_of(trial: FrozenTrial) -> tuple[str | None, int | None]:
    """What changes as long as its worker lives."""
    return owner_of(trial), trial.user_attrs.get(_HEARTBEAT)


def seconds_of(trial: FrozenTrial) -> float | None:
    """What its runs took, in its worker."""
    return trial.user_attrs.get(_SECONDS)


def outcome_of(trial: FrozenTrial) -> dict[str, str]:
    """State and message of one that ended without a value."""
    return trial.user_attrs.get(_OUTCOME) or {"state": "failed", "message": "no reason is known"}


def _pruner(spec: StudySpec) -> BasePruner:
    if spec.prune == "median":
        return MedianPruner()
    if spec.prune == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=spec.recipe["epochs"])
    return NopPruner()
