"""The table across runs: a row a run, groups of runs with mean and interval, pairs of settings as matrices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, compress, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from convscope.base.bounded import is_within, value_at
from convscope.errors import RequestError, SettingError, UnknownNameError
from convscope.study.facts import ENDED, EPOCH_FIGURES, OVERFIT, SEED
from convscope.study.importance import Importance, importance
from convscope.study.index import Indexed, read_runs
from convscope.study.metric import summary_of, swept_values
from convscope.study.statistics import overlap_of

METRICS = ("val_accuracy", "test_accuracy", "train_accuracy", OVERFIT, "val_loss", "train_loss")
"""What a table shows unless others are named; the first is the one that settings are chosen by."""

_MOST_VALUES = 50  # of a setting, for a matrix
_OF_RUN = ("parameters", "seconds")
_CURVE = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def table(
    folder: str | Path,
    by: Sequence[str] = (),
    metrics: Sequence[str] = (),
    epoch: str | int | None = None,
    *,
    all_settings: bool = False,
) -> pd.DataFrame:
    """The runs below a folder, a row each; or groups of them, a row each.

    Args:
        folder: of a study, or any with run folders below it. An index of it is cached.
        by: settings to group by, as dotted keys ("net.width"); "recipe.seed" is one.
        metrics: columns of the histories, "test_accuracy" and the other test figures, "overfit_percent", "parameters",
            "seconds".
        epoch: of each run: "last"; "best" by what its recipe watches; a number; by default that of the weights it kept, which
            is the last, or with patience the best.
        all_settings: rows with every setting, not only those that differ.

    Returns:
        A row a run: `run` (its path below the folder), the settings that differ, `seed`, `state` (finished; trained: not
        evaluated; unfinished; damaged; diverged, pruned or failed), `epoch`, the metrics, `parameters`, `seconds` (of the whole
        training) and `message` (why it did not finish). Accuracies are shares, losses nats. A test figure has its interval
        over the test images in `…_low` and `…_high`; it belongs to the weights that were kept, and is empty at another epoch.

        Grouped: the settings, `runs` (that came to their end; the others do not count, and runs that are the same to the bit
        count once), `not_finished`, and for each metric its
        mean, `…_deviation` (n - 1), `…_low` and `…_high` (95 %, Student's t over the runs) and `…_n`.

        What one must know to read it is in `.attrs["notes"]`.

    Raises:
        RunFolderError: no runs are there.
        UnknownNameError: a setting or metric that these runs do not have.
        RequestError: no run has that epoch.

    Example:
        >>> cs.table("runs", by=["net.width"], metrics=["val_accuracy"])            # doctest: +SKIP
    """
    runs = Runs(folder)
    frame = runs.grouped(by, metrics, epoch) if by else runs.rows(metrics, epoch, all_settings=all_settings)
    frame.attrs["notes"] = runs.notes(metrics, epoch)
    return frame


def histories(folder: str | Path) -> pd.DataFrame:
    """The histories of all runs below a folder as one table: a row for each run and epoch.

    Returns:
        `run`, the settings that differ, `seed`, `epoch`, and the columns of `Run.history`; `seconds` are the epoch's own.

    Example:
        >>> cs.histories("runs").groupby(["net.width", "epoch"]).val_accuracy.mean()   # doctest: +SKIP
    """
    return Runs(folder).histories()


@dataclass(frozen=True)
class Matrix:
    """The mean of a metric for each pair of two settings' values.

    Attributes:
        rows, columns: the settings.
        metric: what was averaged.
        over: other settings, whose values were averaged over.
        cells: the values of `rows` down, those of `columns` across; NaN where there is no run.
    """

    rows: str
    columns: str
    metric: str
    over: tuple[str, ...]
    cells: pd.DataFrame


class Runs:
    """The runs below a folder, as tables; see `table` for what the arguments mean."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._read: Indexed = read_runs(self.folder)

    def __len__(self) -> int:
        return len(self._read.settings)

    @property
    def states(self) -> dict[str, int]:
        """How many runs are in each state, the most frequent first."""
        return dict(Counter(self._read.facts["state"]).most_common())

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the data sets that the runs are of, as far as they are known."""
        return tuple(dict.fromkeys(name for name in self._read.facts["data"] if name))

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """The settings that differ between the runs, by dotted key; of a study those of its sweep. The seed is none of them."""
        return self._differing(np.ones(len(self), bool))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """What can be asked for."""
        of_epoch = (name for name in EPOCH_FIGURES if name not in _OF_RUN)
        return tuple(dict.fromkeys([*METRICS, *of_epoch, *_OF_RUN, *self._read.test]))

    def rows(
        self, metrics: Sequence[str] = (), epoch: str | int | None = None, *, all_settings: bool = False
    ) -> pd.DataFrame:
        """A row a run."""
        facts, figures = self._read.facts, self._figures(epoch)
        settings = self._all_settings if all_settings else self.settings
        names = [name for name in self._checked(metrics or METRICS) if name not in _OF_RUN]
        limits = [part for name in names for part in (name, f"{name}_low", f"{name}_high")]
        shown = figures.reindex(columns=[name for name in limits if name in names or name in figures])
        columns: dict[str, Any] = {"run": facts["run"], **{key: self._setting(key) for key in settings}}
        columns |= {"seed": _integers(facts["seed"]), "state": facts["state"], "epoch": _integers(figures["epoch"])}
        columns |= {str(name): shown[name] for name in shown}
        columns |= {"parameters": _integers(facts["parameters"]), "seconds": figures["seconds"]}
        return pd.DataFrame({**columns, "message": facts["message"]})

    def grouped(self, by: Sequence[str], metrics: Sequence[str] = (), epoch: str | int | None = None) -> pd.DataFrame:
        """A row for each combination of the settings' values that is there."""
        figures = self._figures(epoch)[self._checked(metrics or (*METRICS, *_OF_RUN))]
        values = {str(name): figures[name].to_numpy() for name in figures}
        rows = []
        for group, members in self.groups(by):
            used = members[self.counted[members]]
            row = {**group, "runs": len(used), "not_finished": int((~self._ended[members]).sum())}
            overlap = self.overlap(used)
            for name in values:
                row |= _summarised(name, values[name][used], overlap)
            rows.append(row)
        return pd.DataFrame({name: _column([row[name] for row in rows]) for name in rows[0]})

    def overlap(self, runs: Iterable[Any]) -> float:
        """How far some of the runs share their training images, see `overlap_of`."""
        return max((overlap_of(self._read.settings[run]) for run in runs), default=0.0)

    def matrices(self, by: Sequence[str], metrics: Sequence[str] = (), epoch: str | int | None = None) -> list[Matrix]:
        """The first metric's mean for every pair of the settings, over all runs that are counted; settings of more than
        50 values, as a search draws them, are in no matrix."""
        metric = self._checked(metrics or METRICS)[0]
        values = self._figures(epoch)[metric].to_numpy()
        by = self._keys(by)
        levels = {key: [group[key] for group, _ in self.groups([key])] for key in by}
        matrices = []
        for down, across in combinations([key for key in by if len(levels[key]) <= _MOST_VALUES], 2):
            cells = pd.DataFrame(np.nan, *(pd.Index(levels[key], dtype=object) for key in (down, across)))
            for group, members in self.groups([down, across]):
                used = values[members[self.counted[members]]]
                if np.isfinite(used).any():
                    cells.iloc[levels[down].index(group[down]), levels[across].index(group[across])] = np.nanmean(used)
            over = tuple(key for key in by if key not in (down, across))
            matrices.append(Matrix(down, across, metric, over, cells))
        return matrices

    def importance(
        self, by: Sequence[str] = (), metrics: Sequence[str] = (), epoch: str | int | None = None
    ) -> Importance:
        """Which settings matter for the first metric; by default all that differ. See convscope.study.importance.

        Raises:
            RequestError: fewer than two runs came to their end, or the runs cannot tell; the message says why.
        """
        metric = self._checked(metrics or METRICS)[0]
        values = self._figures(epoch)[metric].to_numpy()
        used = self.counted & np.isfinite(values)
        settings = self._keys(by) if by else self._differing(used)
        if not settings:
            raise RequestError(f"{self.folder}: no setting differs between the {used.sum()} runs that have a {metric}")
        frame = pd.DataFrame({key: self._setting(key) for key in settings}).assign(**{metric: values})
        return importance(frame[used], settings, metric, overlap=self.overlap(np.flatnonzero(used)))

    def histories(self) -> pd.DataFrame:
        """A row for each run and epoch."""
        facts = self._read.facts
        settings = {key: self._setting(key) for key in self.settings}
        of_runs = pd.DataFrame({"run": facts["run"], **settings, "seed": _integers(facts["seed"])})
        of_epochs = pd.DataFrame(self._read.epochs)
        if of_epochs["stage"].isna().all():
            of_epochs = of_epochs.drop(columns="stage")
        return pd.concat([of_runs.take(self._run).reset_index(drop=True), of_epochs], axis=1)

    def notes(self, metrics: Sequence[str] = (), epoch: str | int | None = None) -> list[str]:
        """What one must know to read the table, a line each."""
        notes = []
        folds = [bool(overlap_of(settings)) for settings in self._read.settings]
        facts = zip(self._read.facts["data"], self._read.facts["digest"], folds, strict=True)
        data = Counter((name, "folds" if of_fold else digest) for name, digest, of_fold in facts if digest)
        if any(folds):
            notes.append(
                "runs on folds share training images; intervals and tests over them allow for that (Nadeau & Bengio 2003)"
            )
        if len(data) > 1:
            names = Counter(name for name, _ in data)
            listed = [f"{n} of {name}{f' {part[:8]}' if names[name] > 1 else ''}" for (name, part), n in data.items()]
            first = ", ".join(listed[:5] + ["…"] * (len(listed) > 5))
            notes.append(f"the runs are of {len(data)} data sets ({first}); their figures cannot be compared")
        places = self._shown(epoch)
        tested = np.any([np.isfinite(figure[:, 0]) for figure in self._read.test.values()], axis=0)
        other = int(((places != self._kept) & tested).sum())
        if other and any(name in self._read.test for name in metrics or METRICS):
            notes.append(
                f"test figures belong to the weights that were kept; {other} of {len(self)} runs kept another epoch's"
            )
        if copies := int((self._ended & ~self.counted).sum()):
            are = "run is" if copies == 1 else "runs are"
            notes.append(f"{copies} {are} the same to the bit as another of these, and counted once with it")
        lacking = {name: int((self._read.test[name][:, 3] > 0).sum()) for name in metrics if name in self._read.test}
        notes += [
            f"{name} is the mean over the classes that have one: {fewer} of {len(self)} runs lack some"
            for name, fewer in lacking.items()
            if fewer
        ]
        return notes

    @cached_property
    def _all_settings(self) -> tuple[str, ...]:
        distinct = {id(settings): settings for settings in self._read.settings}  # runs of equal ones share one mapping
        return tuple(dict.fromkeys(key for settings in distinct.values() for key in settings))

    @cached_property
    def _all_differing(self) -> list[str]:
        return self._differing_keys(np.ones(len(self), bool))

    def _differing_keys(self, used: Bool[np.ndarray, " N"]) -> list[str]:
        distinct = {id(s): s for s, use in zip(self._read.settings, used, strict=True) if use and s}
        return [key for key in self._all_settings if len({s.get(key) for s in distinct.values()}) > 1]

    def _differing(self, used: Bool[np.ndarray, " N"]) -> tuple[str, ...]:
        """Of a study what was swept; what follows from that, as a momentum from the optimizer, is no setting of its own."""
        stated = used & np.array([bool(settings) for settings in self._read.settings])
        swept = [key for key in self._swept if len(set(compress(self._values(key), stated))) > 1]
        return tuple(swept or self._differing_keys(used))

    @cached_property
    def _swept(self) -> list[str]:
        """What a study's sweep changed. What is below a key with mappings, as recipe.augmentation: [{crop: 4}, {flip: random}],
        changes together, and is one setting; a key may lie within a list, as recipe.stages.0.rate."""
        found = []
        for swept, values in swept_values(self.folder).items():
            places = [n for n, key in enumerate(self._all_differing) if is_within(key, swept) or is_within(swept, key)]
            if isinstance(values, list) and all(isinstance(value, str) for value in values):
                places = places[:1]  # `data: [mnist, cifar10]` is short for a mapping that begins with it
            if places:
                only = self._all_differing[places[0]]
                found.append((places[0], only if len(places) == 1 and is_within(only, swept) else swept))
        return [key for _, key in sorted(found)]

    def _setting(self, key: str) -> pd.Series:
        return _integers(self._values(key)) if key == SEED else _column(self._values(key))

    def _values(self, key: str) -> list[Any]:
        """Each run's value of a setting; None where it has none. Of a key with others below it, those that differ, as JSON."""
        if key == SEED:
            return self._read.facts["seed"]
        below = {part: part.removeprefix(f"{key}.") for part in self._all_differing if part.startswith(f"{key}.")}
        above = next((known for known in self._all_settings if key.startswith(f"{known}.")), None)
        within = None if above is None or below or key in self._all_settings else above
        values = []
        for settings in self._read.settings:
            value: Any = {name: settings[part] for part, name in below.items() if part in settings} or settings.get(key)
            if within and str(settings.get(within)).startswith("["):
                value = value_at(json.loads(settings[within]), key.removeprefix(f"{within}."))
            values.append(json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value)
        return values

    @cached_property
    def _ended(self) -> Bool[np.ndarray, " N"]:
        return np.array([state in ENDED for state in self._read.facts["state"]])

    @cached_property
    def counted(self) -> Bool[np.ndarray, " N"]:
        """The runs that came to their end, each once: of those that are the same to the bit (settings, seed, data and
        learning curve) the first. A copy tells nothing new, and would make every interval too narrow."""
        read, counted = self._read, self._ended.copy()
        curves = [
            b"".join(read.epochs[name][first:end].tobytes() for name in _CURVE) for first, end in pairwise(read.ends)
        ]
        of_runs = {"settings": [*map(id, read.settings)], "seed": read.facts["seed"], "digest": read.facts["digest"]}
        ended = pd.DataFrame({**of_runs, "curve": curves})[counted]
        counted[counted] = ~ended.duplicated() | (ended["curve"] == b"")
        return counted

    @cached_property
    def _run(self) -> Int[np.ndarray, " E"]:
        """Of each epoch, the place of its run."""
        return np.repeat(np.arange(len(self)), np.diff(self._read.ends))

    @cached_property
    def _last(self) -> Int[np.ndarray, " N"]:
        """Of each run, the place of its last epoch in the histories; -1 where it has none."""
        ends = self._read.ends
        return np.where(np.diff(ends) > 0, ends[1:] - 1, -1)

    def _shown(self, epoch: str | int | None) -> Int[np.ndarray, " N"]:
        """Of each run, the place of the epoch in the histories; -1 where it has none."""
        if epoch is None:
            return self._kept
        if epoch == "last":
            return self._last
        if epoch == "best":
            return self._best(np.zeros(len(self._run), bool))
        try:
            number = int(epoch)
        except ValueError:
            number = 0
        if number < 1:
            raise SettingError(f"epoch {epoch!r}: expected best, last, or a number from 1")
        ends = self._read.ends
        places = np.where(ends[:-1] + number - 1 <= self._last, ends[:-1] + number - 1, -1)
        if (places < 0).all():
            raise RequestError(f"no run has an epoch {number}; the longest has {np.diff(ends).max()}: take a lower one")
        return places

    @cached_property
    def _kept(self) -> Int[np.ndarray, " N"]:
        """The place of the epoch whose weights a run kept: the last, or with patience the best of its last stage."""
        patient = np.array([settings.get("recipe.patience") is not None for settings in self._read.settings])
        if not patient.any():
            return self._last
        stages = self._read.epochs["stage"]
        return np.where(patient, self._best(stages != stages[self._last[self._run]]), self._last)

    def _best(self, excluded: np.ndarray) -> Int[np.ndarray, " N"]:
        """The place of each run's best epoch by what its recipe watches, the first of equal ones; an `excluded`
        epoch only where all are."""
        by_accuracy = np.array([settings.get("recipe.watch") == "val_accuracy" for settings in self._read.settings])
        epochs = self._read.epochs
        worse = np.where(by_accuracy[self._run], -epochs["val_accuracy"], epochs["val_loss"])
        # NaN, which no training writes, is not the best
        order = np.lexsort((np.fmin(worse, np.inf), excluded, self._run))
        places, begun = self._last.copy(), self._last >= 0
        places[begun] = order[self._read.ends[:-1][begun]]
        return places

    def _figures(self, epoch: str | int | None) -> pd.DataFrame:
        """Every figure of each run at an epoch, a column each; a test figure with its interval, where the epoch is that of the
        weights that were tested."""
        read, places = self._read, self._shown(epoch)
        begun = places >= 0  # the others have no such epoch: their row is NaN
        of_epoch = pd.DataFrame({name: read.epochs[name] for name in ("epoch", *EPOCH_FIGURES)})
        figures = of_epoch.take(places[begun]).set_index(np.flatnonzero(begun)).reindex(range(len(self)))
        figures["seconds"] = pd.Series(read.epochs["seconds"]).groupby(self._run).sum().reindex(range(len(self)))
        figures["parameters"] = np.array(read.facts["parameters"], float)
        for name, figure in read.test.items():
            limits = [name, f"{name}_low", f"{name}_high"]
            figures[limits] = np.where((places == self._kept)[:, None], figure[:, :3], np.nan)
        return figures.assign(**{name: np.nan for name in self.metrics if name not in figures})

    def _checked(self, metrics: Sequence[str]) -> list[str]:
        for name in metrics:
            if name not in self.metrics:
                raise UnknownNameError("metric", name, self.metrics, "in these runs")
        return list(dict.fromkeys(metrics))

    def _keys(self, settings: Sequence[str]) -> list[str]:
        keys = [SEED if key == "seed" else key for key in settings]
        for key in keys:
            if key not in (SEED, *self._all_settings) and all(value is None for value in self._values(key)):
                raise UnknownNameError("setting", key, self.settings, "in these runs")
        return list(dict.fromkeys(keys))

    def groups(self, settings: Sequence[str]) -> list[tuple[dict[str, Any], Int[np.ndarray, " M"]]]:
        """Each combination of values that is there, in order, with the places of its runs; without settings a single one."""
        keys = self._keys(settings)
        columns, members = [self._values(key) for key in keys], dict[tuple[Any, ...], list[int]]()
        for place in range(len(self)):
            members.setdefault(tuple(column[place] for column in columns), []).append(place)
        ordered = sorted(members, key=lambda values: [_order(value) for value in values])
        return [(dict(zip(keys, values, strict=True)), np.array(members[values])) for values in ordered]


def _summarised(name: str, values: Float[np.ndarray, " M"], overlap: float) -> dict[str, Any]:
    summary = summary_of(name, values.tolist(), overlap)
    mean = summary.mean
    figures = np.array([mean.value, summary.deviation, mean.low, mean.high], float)  # NaN for None
    names = (name, f"{name}_deviation", f"{name}_low", f"{name}_high")
    return {**dict(zip(names, figures.tolist(), strict=True)), f"{name}_n": summary.n}


def _column(values: list[Any]) -> pd.Series:
    """Values of a setting, each as it is: 6 stays 6 beside a missing one."""
    column = pd.Series(values, dtype=object)
    return column if any(value is None for value in values) else column.infer_objects()


def _integers(values: Any) -> pd.Series:
    return pd.Series(values, dtype="Int64")


def _order(value: Any) -> tuple[int, Any]:
    """Missing values first, then numbers, then words."""
    if value is None:
        return 0, 0
    return (1, value) if isinstance(value, bool | int | float | np.number) else (2, str(value))
