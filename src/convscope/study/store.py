"""What several processes know of a study in common: an Optuna study, one trial for each unit of work.

Trial t is the t-th unit of the plan for good: a run of a grid, or a setting of a search with all its seeds. It waits, is
claimed by one worker, and ends complete, pruned or failed; where its worker stopped or died it waits again.
"""

from __future__ import annotations

import logging
import sqlite3
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from convscope.base.optional import import_optional
from convscope.compute import is_present, present
from convscope.errors import FailedError, FolderInUseError, SettingError
from convscope.study.spec import Range, StudySpec, dump_study, read_study, run_name

STORE, _LOCK = "study.db", "study.lock"
MOST_DEATHS = 2
"""A unit of work whose worker died so many times has failed."""

_OWNER, _HEARTBEAT, _DEATHS, _SECONDS, _OUTCOME = "owner", "beat", "deaths", "seconds", "outcome"
_DRIVER = "driver"
_TRIES = 5
_SIGNED_S = 1.0  # within which whoever has taken a unit of work has signed for it
_DRAWS = 50  # from one sampler, for settings that are not taken


@dataclass(frozen=True)
class Claim:
    """A unit of work that is ours.

    Attributes:
        trial: its place in the plan.
        number: of its setting, from 1; the folders of its runs are named after it.
        settings: dotted keys of a run's spec and their values.
        seeds: to be run one after another.
        asked: Optuna's own object, to report to and to ask whether to prune.
    """

    trial: int
    number: int
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    asked: Trial

    def folder(self, study: Path, seed: int) -> Path:
        """Where a run of it is."""
        return study / "runs" / run_name(self.number, seed)


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
        self._grid, self._n_trials = spec.grid() if spec.is_grid else [], spec.n_trials
        self._queue: list[FrozenTrial] = []
        self._random: list[_Drawn] = []
        self._url, self._alone, self._held = url, False, ExitStack()
        self.backend: BaseStorage
        # Those wait for it who change what others may be about to change.
        self.lock = FileLock(folder / _LOCK, poll_interval=0.01)
        with self.lock, _quiet(), ExitStack() as undone:
            if url is None:
                _check_own(folder / STORE)
            self.backend = _connect(url or f"sqlite:///{(folder / STORE).resolve()}")
            undone.callback(self._disconnect)
            self.study = optuna.create_study(
                storage=self.backend,
                study_name=self.name,
                load_if_exists=True,
                direction="maximize" if self.spec.sign > 0 else "minimize",
                sampler=RandomSampler(),
                pruner=_pruner(self.spec),
            )
            self._agree()
            undone.pop_all()

    def fill(self) -> None:
        """Adds the units of work that are not there yet; those of a study that only minutes limit come one by one."""
        if self._n_trials is None:
            return
        with self.lock:
            for trial in range(len(self.study.get_trials(deepcopy=False)), self._n_trials):
                self.study.enqueue_trial(self._fixed(trial))

    def trials(self) -> list[FrozenTrial]:
        """Every unit of work, in order."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if self._is_planned(trial)]

    def claim(self) -> Claim | None:
        """The next unit of work that waits, ours from now on; None where none waits."""
        if not self._queue:
            self._queue = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))[::-1]
        while self._queue:
            trial = self._queue.pop()
            if self._is_planned(trial) and self._take(trial):
                return self._claimed(trial)
        if self._n_trials is None and (one_more := self._one_more()):
            return self._claimed(one_more)
        return None

    def _one_more(self) -> FrozenTrial | None:
        """A unit of work of a study that only minutes limit; None where every setting there is has one."""
        with self.lock:
            if self.is_used_up(len(self.study.get_trials(deepcopy=False))):
                return None
            return self.backend.get_trial(self.study.ask()._trial_id)

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
            self.requeue(trial) for trial in running if (own := owner_of(trial)) is None or is_present(own) is False
        )

    def settings_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """The settings of a unit of work; of a search, those that are drawn so far."""
        if self.spec.is_grid:
            return self._grid[trial.number % len(self._grid)]
        return {key: _value(self.spec.sweep[key], trial.params[key]) for key in self.spec.sweep if key in trial.params}

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
            self._write_ahead()
        else:
            memory = InMemoryStorage()
            optuna.copy_study(from_study_name=self.name, from_storage=self.backend, to_storage=memory)
            self._disconnect()
            self.backend = memory
            self.study = optuna.load_study(study_name=self.name, storage=memory, sampler=self.study.sampler)

    def _write_ahead(self) -> None:
        assert isinstance(self.backend, RDBStorage)

        @event.listens_for(self.backend.engine, "connect")
        def _set(connection: Any, record: Any) -> None:
            with suppress(sqlite3.OperationalError):  # a file system without shared memory: it stays as it is
                connection.execute("PRAGMA journal_mode=WAL")

        self._disconnect()

    def close(self) -> None:
        """Ends the connection."""
        self._disconnect()
        if self._alone:  # one file again, which others may copy, or read where nothing can be written
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(self.folder / STORE)) as database:
                database.execute("PRAGMA journal_mode=DELETE")
        self._held.close()

    def _disconnect(self) -> None:
        if isinstance(self.backend, RDBStorage):
            self.backend.remove_session()
            self.backend.engine.dispose()

    @property
    def _id(self) -> int:
        return self.study._study_id

    def running(self) -> list[FrozenTrial]:
        """Those that some worker has."""
        return self.backend.get_all_trials(self._id, deepcopy=False, states=(TrialState.RUNNING,))

    def _is_going_on(self, claim: Claim) -> bool:
        """Another machine that took us for dead may have given it back; whoever claims it next finds the folder finished."""
        return self._alone or self.look(claim).state == TrialState.RUNNING

    def _is_planned(self, trial: FrozenTrial) -> bool:
        return self._n_trials is None or trial.number < self._n_trials

    def _take(self, trial: FrozenTrial) -> bool:
        try:
            return self.backend.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return False

    def _claimed(self, trial: FrozenTrial) -> Claim:
        self.backend.set_trial_user_attr(trial._trial_id, _OWNER, self.owner)
        number, seeds = place(self.spec, trial.number)
        with ExitStack() as drawing:
            if not self._grid:  # two who draw at the same moment would not know of one another's settings
                drawing.enter_context(self.lock)
                self.study.sampler = _Distinct(self.spec, trial.number, self._taken(trial.number))
            asked = Trial(self.study, trial._trial_id)
            drawn = {key: _value(values, _draw(asked, key, values)) for key, values in self.spec.sweep.items()}
        return Claim(trial.number, number, self._grid[number - 1] if self._grid else drawn, seeds, asked)

    def _taken(self, trial: int) -> set[_Drawn]:
        """The settings that are not to be drawn again. Those of a random search are the draws before, whoever makes them."""
        others = self.study.get_trials(deepcopy=False)
        if self.spec.sampler == "random":
            while len(self._random) < trial:
                known = set(self._random)
                self._random.append(
                    _identity(self.spec, _Distinct(self.spec, len(self._random), known).draw(self.study))
                )
            others = others[:trial]
        space = set(_space(self.spec))
        drawn = [other for other in others if other.number != trial and other.params.keys() >= space]
        return {*self._random[:trial], *(_identity(self.spec, other.params) for other in drawn)}

    def _fixed(self, trial: int) -> dict[str, Any]:
        """What Optuna is told of a grid's run, so that its own tools show it."""
        if not self._grid:
            return {}
        settings, lists = self._grid[trial % len(self._grid)], self.spec.lists
        return {key: _choice(lists[key], value) for key, value in settings.items()}

    def _agree(self) -> None:
        """Writes the spec into a new study; refuses another one's."""
        if (driver := self.study.user_attrs.get(_DRIVER)) and is_present(driver):
            raise FolderInUseError(
                f"{self.folder}: a sweep on a cluster is at work on it; stop it, or wait for its end"
            )
        there = self.study.user_attrs.get("spec")
        if there is None:
            self.study.set_user_attr("spec", dump_study(self.spec))
            return
        other = read_study(there, "the study in the store")
        if different := self.spec.differences(other):
            where = (self._url and "--storage") or f"{self.folder / STORE}"
            raise SettingError(
                f"{where} holds another study named {self.name!r} ({', '.join(different)} differ); "
                "choose another --out, whose name is the study's, or another --storage"
            )


def drawn_beforehand(spec: StudySpec) -> list[dict[str, Any]]:
    """The settings that a random search of so many runs will draw; none where they follow from results or time."""
    if spec.sampler != "random" or spec.n_trials is None:
        return []
    with _quiet():
        study, drawn = optuna.create_study(), []
        taken: set[_Drawn] = set()
        for trial in range(spec.n_trials):
            params = _Distinct(spec, trial, taken).draw(study)
            taken.add(_identity(spec, params))
            drawn.append({key: _value(values, params[key]) for key, values in spec.sweep.items()})
    return drawn


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


_Drawn = tuple[float, ...]
"""Settings that a search has drawn, a number for each key of the sweep; equal where the settings are."""


class _Distinct(BaseSampler):
    """Asks the study's sampler until it draws settings that were not taken; where it draws the same again and again, the
    first that is left. Settings and seed fix a run to the bit, so a second one of them would tell nothing."""

    def __init__(self, spec: StudySpec, trial: int, taken: set[_Drawn]) -> None:
        self.spec, self.taken, self.sampler = spec, taken, _sampler(spec, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return _space(self.spec)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.draw(study, trial)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def draw(self, study: optuna.Study, trial: FrozenTrial | None = None) -> dict[str, Any]:
        """A value, as Optuna keeps it, for each key of the sweep."""
        trial = trial or optuna.trial.create_trial(state=TrialState.RUNNING)
        space = _space(self.spec)
        for _ in range(_DRAWS):
            drawn = {key: self.sampler.sample_independent(study, trial, key, kind) for key, kind in space.items()}
            if _identity(self.spec, drawn) not in self.taken:
                return drawn
        every = (dict(zip(space, values, strict=True)) for values in product(*map(_values, space.values())))
        return next((each for each in every if _identity(self.spec, each) not in self.taken), drawn)


def _space(spec: StudySpec) -> dict[str, BaseDistribution]:
    return {key: _distribution(values) for key, values in spec.sweep.items()}


def _distribution(values: Any) -> BaseDistribution:
    if not isinstance(values, Range):
        return CategoricalDistribution(_choices(values))
    if values.is_whole:
        return IntDistribution(int(values.low), int(values.high), step=int(values.step or 1), log=values.log)
    return FloatDistribution(values.low, values.high, step=values.step, log=values.log)


def _values(kind: BaseDistribution) -> Iterable[Any]:
    """All values of one that is not continuous."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices
    if isinstance(kind, IntDistribution):
        return range(kind.low, kind.high + 1, kind.step)
    assert isinstance(kind, FloatDistribution)
    if kind.step is None:
        return ()
    return [min(kind.low + n * kind.step, kind.high) for n in range(round((kind.high - kind.low) / kind.step) + 1)]


def _identity(spec: StudySpec, params: Mapping[str, Any]) -> _Drawn:
    return tuple(float(f"{kind.to_internal_repr(params[key]):.12g}") for key, kind in _space(spec).items())


def _sampler(spec: StudySpec, trial: int) -> BaseSampler:
    """A new one for each unit of work, from seed and number alone: so a random search is the same with any workers."""
    seed = int(np.random.SeedSequence((spec.recipe["seed"], trial)).generate_state(1)[0])
    if spec.sampler != "tpe":
        return RandomSampler(seed)
    with (
        _quiet()
    ):  # Optuna 4 warns of constant_liar, by which trials that go on count as bad, so that workers spread out
        return TPESampler(seed=seed, constant_liar=True)


def _pruner(spec: StudySpec) -> BasePruner:
    if spec.prune == "median":
        return MedianPruner()
    if spec.prune == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=spec.recipe["epochs"])
    return NopPruner()


def _draw(trial: Trial, key: str, values: Any) -> Any:
    kind = _distribution(values)
    if isinstance(kind, CategoricalDistribution):
        return trial.suggest_categorical(key, kind.choices)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(key, kind.low, kind.high, step=kind.step, log=kind.log)
    assert isinstance(kind, FloatDistribution)
    return trial.suggest_float(key, kind.low, kind.high, step=kind.step, log=kind.log)


def _choices(values: tuple[Any, ...]) -> list[Any]:
    """Values as Optuna can keep them: plain ones as they are, others, and those that compare equal, as text."""
    plain = all(isinstance(v, str | int | float | None) for v in values) and len(set(values)) == len(values)
    return list(values) if plain else list(map(repr, values))


def _choice(values: tuple[Any, ...], value: Any) -> Any:
    choices = _choices(values)
    return value if value in choices else repr(value)


def _value(values: Any, drawn: Any) -> Any:
    return drawn if isinstance(values, Range) else values[_choices(values).index(drawn)]


def _check_own(path: Path) -> None:
    """Refuses a file in the place of the store that is another program's, before tables are made in it.

    Raises:
        SettingError: it is one.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:  # another process holds it; who opens it next waits
        return
    except sqlite3.DatabaseError as error:
        raise SettingError(f"{path}: is no database ({error}); move it away, or choose another --out") from None
    if tables and "studies" not in tables:
        raise SettingError(f"{path}: is a database of another program; move it away, or choose another --out")


def _connect(url: str) -> RDBStorage:
    """The database; its errors in one line, without the password."""
    full = _with_driver(url).replace("{", "{{").replace("}", "}}")  # Optuna fills in names between braces
    is_file = full.startswith("sqlite")
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True}
    for last in (n == _TRIES - 1 for n in range(_TRIES)):
        try:
            storage = RDBStorage(full, engine_kwargs=options)
            break
        except (
            SQLAlchemyError,
            optuna.exceptions.StorageInternalError,
            RuntimeError,
            ValueError,
            ImportError,
        ) as error:
            # two who make the tables at the same moment: the second finds them on its next try
            if last or not isinstance(error, SQLAlchemyError | optuna.exceptions.StorageInternalError):
                reason = " ".join(str(error.__cause__ or error).split("\n(Background")[0].split())[:300]
                reason = reason.replace(full, _masked(full)).replace(url, _masked(url))
                raise FailedError(f"the store of the study cannot be used: {reason}; check --storage") from None
            time.sleep(0.2)
    if is_file:
        _claim_at_once(storage.engine)
    return storage


@contextmanager
def database_errors_in_one_line() -> Iterator[None]:
    """Turns what a database cannot do, such as to write on a full disk, into a FailedError."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).split("\n")[0][:300]
        raise FailedError(
            f"the store of the study cannot be used: {reason}; free space, or check --storage, and give the same command again"
        ) from None


def _masked(url: str) -> str:
    """An address without what stands before its host: a user's name and password."""
    scheme, found, rest = url.partition("://") if "://" in url else ("", "", url)
    user, at, host = rest.rpartition("@")
    return f"{scheme}{found}{'…' if user else ''}{at}{host}"


def _with_driver(url: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found:
        raise SettingError(f"--storage {_masked(url)}: expected an address such as postgresql://user@host/database")
    if scheme not in ("postgresql", "postgres"):
        return url
    import_optional("psycopg", "--storage postgresql://…", "postgres")
    return f"postgresql+psycopg://{rest}"


def _claim_at_once(engine: Engine) -> None:
    """SQLite would lock at the first write: two could read that a trial waits, and both take it. Here it locks at the start."""

    @event.listens_for(engine, "connect")
    def _no_begin_of_its_own(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # of connections made before


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says nothing by itself; it is we who speak to the user."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
