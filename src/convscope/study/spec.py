"""What a study of several runs is asked to be: a run's spec, and what changes from run to run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from convscope.base.bounded import FastLoader, settings_text
from convscope.base.settings import Settings, describe
from convscope.data import DataSpec, Folds, located
from convscope.errors import SettingError, UnknownNameError
from convscope.nets import NetSpec, TaskSpec, check_name, check_options
from convscope.runs import (
    FORMAT,
    RunSpec,
    check_format,
    override,
    parse_mapping,
    parse_overrides,
)
from convscope.study.metric import Metric

_DERIVED = ("rate", "momentum")
"""Settings of a recipe that follow from its optimizer where they are not given; so they may differ from run to run."""

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


class Range(Settings):
    """A range that a search draws from: `{low: 0.0001, high: 0.01, log: true}`.

    Attributes:
        low, high: both may be drawn; whole numbers where both are whole.
        log: evenly in the logarithm.
        step: only low, low + step, low + 2 × step …
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; expected low < high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}; a range with log begins above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together; leave one out")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether whole numbers are drawn."""
        return all(isinstance(n, int) for n in (self.low, self.high, self.step or 1))

    @property
    def n_values(self) -> int | None:
        """How many different values can be drawn; None where it is continuous."""
        step = self.step or (1 if self.is_whole else None)
        if step is None:
            return None
        low, high, spacing = (Decimal(str(n)) for n in (self.low, self.high, step))
        return int((high - low) // spacing) + 1


class Budget(Settings):
    """Where a study ends; without a limit, a grid ends with its last run.

    Attributes:
        runs: trainings in all, those of every seed counted.
        minutes: no run is begun later than so long after the command; those going on are taken to their end. The same
            command again goes on for as long.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    runs: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)


# the tags look like pydantic's own words for a part of a union, which are left out of messages
Values = Annotated[
    Annotated[Range, Tag("dict[range]")] | Annotated[tuple[Any, ...], Tag("dict[list]")],
    Discriminator(lambda values: "dict[range]" if isinstance(values, Mapping | Range) else "dict[list]"),
]


class StudySpec(Settings):
    """All that a study of several runs is made from: a run's own keys, and the following.

    Attributes:
        sweep: dotted key of a run's spec → list of values, or a Range (searches only): `net.width: [6, 12, 18]`.
        sampler: "grid" is every combination of the values; "one-at-a-time" the first value of every key, and then each other
            value of a key with the first values of all others; "random" and "tpe" (Bergstra et al. 2011) draw settings until
            the budget is used up.
        seeds: each setting is trained once with each of them; by default the recipe's seed alone. With `data.split: {folds: K}`
            each stands for K runs, one a fold, and for its own division into folds: seed s has the runs of the seeds
            K × s … K × s + K − 1. A grid may get more of them later, behind those that it has.
        metric: what is to be best, "val_accuracy" or "val_loss", at the epoch whose weights are kept. The test images
            choose nothing.
        prune: stop a run early whose course is worse than others' at the same epoch: "median" (than their median) or
            "hyperband" (Li et al. 2018). In a search only the first seed of a setting is looked at.
        budget: runs and minutes; a search needs one of them. No search trains a setting twice: it ends earlier where it has
            drawn all there are.
        reproduces: kept for others that read it (`convscope.courses`); it has no part in what is run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    about: str = ""
    data: DataSpec
    net: NetSpec
    task: TaskSpec = "softmax"
    recipe: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies it)
    sweep: dict[str, Values] = {}  # noqa: RUF012
    sampler: Literal["grid", "one-at-a-time", "random", "tpe"] = "grid"
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(default=(0,), min_length=1)
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    prune: Literal["median", "hyperband"] | None = None
    budget: Budget = Budget()
    reproduces: dict[str, Any] | None = None

    @field_validator("sweep", mode="before")
    @classmethod
    def _lists(cls, sweep: Any) -> Any:
        if not isinstance(sweep, Mapping):
            raise ValueError("expected keys with a list of values each, such as net.width: [6, 12]")
        checked = {}
        for key, values in sweep.items():
            if not isinstance(values, list | tuple | Mapping | Range):
                raise ValueError(f"{key}: {values!r}: expected a list such as [6, 12], or a range {{low: …, high: …}}")
            if isinstance(values, list | tuple) and not values:
                raise ValueError(f"{key}: the list is empty; give it values, or leave the key out")
            checked[key] = values
            if isinstance(values, list):  # YAML reads 1e-3, without a point, as text
                checked[key] = [float(v) if isinstance(v, str) and _EXPONENT.fullmatch(v) else v for v in values]
        return checked

    @model_validator(mode="after")
    def _check(self) -> StudySpec:
        if "recipe.seed" in self.sweep:
            raise ValueError("sweep.recipe.seed: seeds have a key of their own, seeds: [0, 1, 2]")
        for key, values in [("seeds", self.seeds), *((f"sweep.{key}", values) for key, values in self.sweep.items())]:
            if isinstance(values, Range):
                if self.is_grid:
                    raise ValueError(f"{key}: a grid takes a list of values; for a range set sampler to random or tpe")
            elif twice := [value for n, value in enumerate(values) if _text(value) in map(_text, values[:n])]:
                raise ValueError(f"{key}: {twice[0]!r} is there twice")
        if not self.sweep and (self.sampler != "grid" or len(self.run_seeds) == 1):
            raise ValueError("sweep: there is nothing to sweep; name a key and its values, such as net.width: [6, 12]")
        if not self.is_grid:
            runs, least = self.budget.runs, len(self.run_seeds)
            if runs is None and self.budget.minutes is None:
                raise ValueError(f"budget: a search by {self.sampler} does not end by itself; give runs or minutes")
            if runs is not None and runs < least:
                raise ValueError(f"budget.runs: {runs} is less than one setting's {least} runs")
        return self

    @property
    def run_seeds(self) -> tuple[int, ...]:
        """The recipe's seed of each run of a setting."""
        split = self.data.split
        folds = split.folds if isinstance(split, Folds) and split.fold is None else 1
        return tuple(seed * folds + fold for seed in self.seeds for fold in range(folds))

    @property
    def is_grid(self) -> bool:
        """Whether all settings are known beforehand."""
        return self.sampler in ("grid", "one-at-a-time")

    @property
    def sign(self) -> int:
        """1 where more of the metric is better, -1 where less is."""
        return Metric(self.metric).sign

    @property
    def n_settings(self) -> int:
        """Settings of a grid."""
        counts = [len(values) for values in self.lists.values()]
        return math.prod(counts) if self.sampler == "grid" else 1 + sum(count - 1 for count in counts)

    @property
    def n_choices(self) -> int | None:
        """Different settings that a search can draw; None where a range is continuous."""
        counts = [values.n_values if isinstance(values, Range) else len(values) for values in self.sweep.values()]
        finite = [count for count in counts if count is not None]
        return math.prod(finite) if len(finite) == len(counts) else None

    @property
    def n_trials(self) -> int | None:
        """Units of work: runs of a grid, settings of a search; None where only minutes limit them."""
        runs = self.budget.runs
        if not self.is_grid:
            return None if runs is None else min(runs // len(self.run_seeds), self.n_choices or runs)
        every = self.n_settings * len(self.run_seeds)
        return every if runs is None else min(runs, every)

    @property
    def n_runs(self) -> int | None:
        """Trainings in all; None where only minutes limit them."""
        return self.n_trials if self.is_grid or self.n_trials is None else self.n_trials * len(self.run_seeds)

    def grid(self) -> list[dict[str, Any]]:
        """The settings of a grid in order, the last key changing fastest: [{"net.width": 6}, {"net.width": 12}]."""
        lists = self.lists
        if self.sampler == "grid":
            return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
        first = {key: values[0] for key, values in lists.items()}
        return [first, *({**first, key: value} for key, values in lists.items() for value in values[1:])]

    def places(self, n_settings: int) -> list[tuple[int, int]]:
        """Number and seed of each run of so many settings, by number. A grid ends in the order of its seeds."""
        every = [(number, seed) for seed in self.run_seeds for number in range(1, n_settings + 1)]
        return sorted(every[: self.n_runs])

    @property
    def example(self) -> dict[str, Any]:
        """The first settings of a grid; of a search, the first or least values."""
        return {key: v.low if isinstance(v, Range) else v[0] for key, v in self.sweep.items()}

    def run_spec(self, settings: Mapping[str, Any], seed: int) -> RunSpec:
        """The spec of one run.

        Raises:
            SettingError: the settings do not go together.
        """
        spec = self.model_dump(mode="json", include={"format", "data", "net", "task", "recipe"})
        spec["recipe"]["seed"] = seed
        split = spec["data"]["split"]
        if isinstance(split, dict) and split["fold"] is None:
            division, split["fold"] = divmod(seed, split["folds"])
            spec["data"]["seed"] += division
        if any(key.startswith("recipe.stages") and value is not None for key, value in settings.items()):
            del spec["recipe"]["epochs"], spec["recipe"]["rate"]  # these follow from the stages
        for key, value in settings.items():
            override(spec, key, value)
        try:
            return RunSpec.model_validate(spec)
        except ValidationError as error:
            raise SettingError(describe(error, RunSpec)) from None

    def differences(self, other: StudySpec) -> list[str]:
        """The keys for which the other study is not this one gone on with. A budget may change; a grid may get more seeds,
        behind those that it has: its runs are numbered seed by seed, so that they stay what they are. The order of the sweep's
        keys numbers the settings."""
        parts = [key for key in StudySpec.model_fields if key not in ("format", "about", "budget", "reproduces")]
        different = [part for part in parts if _text(getattr(self, part)) != _text(getattr(other, part))]
        if self.is_grid and other.seeds[: len(self.seeds)] == self.seeds:
            different = [part for part in different if part != "seeds"]
        if [*self.sweep] != [*other.sweep] and "sweep" not in different:
            different.append(f"order of the keys of sweep, there {', '.join(self.sweep)},")
        return different

    @property
    def lists(self) -> dict[str, tuple[Any, ...]]:
        """The keys of the sweep that have a list of values."""
        return {key: values for key, values in self.sweep.items() if not isinstance(values, Range)}


def read_study(
    text: str, where: str, overrides: Iterable[str] = (), settings: Mapping[str, Any] | None = None
) -> StudySpec:
    """The study in a YAML text, with `key=value` overrides; `sweep.net.width=[6,12]` sets a key of the sweep.

    Args:
        text: YAML.
        where: the file's name, for messages.
        overrides: as given to --set.
        settings: values by dotted key, which come before the overrides.
    Raises:
        SettingError: no YAML, or a key or value that a study does not have; file, line and key are named.
    """
    mapping = parse_mapping(text, where)
    for key, value in [*(settings or {}).items(), *parse_overrides(overrides).items()]:
        if key.startswith("sweep."):
            sweep = mapping.setdefault("sweep", {})
            if isinstance(sweep, dict):
                sweep[key.removeprefix("sweep.")] = value
        else:
            override(mapping, key, value)
    lines = KeyLines(text, where)
    check_format(mapping.get("format", FORMAT), where)
    return _checked(mapping, lines)


def load_study(path: Path, overrides: Iterable[str] = ()) -> StudySpec:
    """The study in a YAML file, whose data may lie beside it; errors as read_study, and a file that cannot be read."""
    return _settled(read_study(settings_text(path), str(path), overrides), path.parent)


def make_study(given: Mapping[str, Any] | StudySpec) -> StudySpec:
    """The study in a mapping, checked; paths of data are those of this process's folder."""
    given = given.model_dump(mode="json") if isinstance(given, StudySpec) else dict(given)
    return _settled(_checked(given, KeyLines("", "study")), Path())


def _settled(spec: StudySpec, folder: Path) -> StudySpec:
    """With the whole paths of data that lie here or in the folder, so that every process finds them."""
    return spec.model_copy(update={"data": located(spec.data, folder)})


def dump_study(spec: StudySpec) -> str:
    """The study as YAML, every value stated; a rate or momentum that follows from the optimizer is null."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _checked(mapping: dict[str, Any], lines: KeyLines) -> StudySpec:
    own = {key: value for key, value in mapping.items() if key in RunSpec.model_fields}
    try:
        base = RunSpec.model_validate(own)
        recipe = own.get("recipe") or {}
        parts = {"data": base.data, "net": base.net, "task": base.task}
        seeds = {} if "seeds" in mapping else {"seeds": (base.recipe.seed,)}
        spec = StudySpec.model_validate({**mapping, **parts, **seeds, "recipe": {}})
    except ValidationError as error:
        model = StudySpec if error.title == StudySpec.__name__ else RunSpec
        raise SettingError(f"{lines.where(_place(error))}: {describe(error, model)}") from None
    derived = {key: None for key in _DERIVED if recipe.get(key) is None}
    spec = spec.model_copy(update={"recipe": base.recipe.model_dump(mode="json") | derived})
    _check_values(spec, lines)
    return spec


def _problem(lines: KeyLines, path: list[str], message: str) -> SettingError:
    """What is wrong at a key, with its file, line and name."""
    return SettingError(f"{lines.where(path)}: {'.'.join(path)}: {message}")


def _check_values(spec: StudySpec, lines: KeyLines) -> None:
    """Tries each value of the sweep by itself, so that a wrong one is named with its key and line."""
    _check_options(spec, lines)
    for key, values in spec.sweep.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            try:
                spec.run_spec({key: value}, spec.run_seeds[0])
            except SettingError as error:
                raise _problem(lines, ["sweep", key], str(error).removeprefix("spec: ")) from None


def _check_options(spec: StudySpec, lines: KeyLines) -> None:
    """Refuses an unknown network, and an option that no network of the study has; of several, some may lack it."""
    name_key = next((key for key in ("net.name", "net") if key in spec.lists), None)
    nets = spec.lists[name_key] if name_key else (spec.net.name,)
    names = [str(net["name"] if isinstance(net, Mapping) and "name" in net else net) for net in nets]
    for name in names:
        try:
            check_name(name)
        except UnknownNameError as error:
            raise _problem(lines, ["sweep", name_key] if name_key else ["net", "name"], str(error)) from None
    options = [(["net", key], key) for key in spec.net.options]
    options += [(["sweep", key], key.split(".")[1]) for key in spec.sweep if key.startswith("net.")]
    for path, option in options:
        try:
            check_options(names, option)
        except UnknownNameError as error:
            raise _problem(lines, path, str(error)) from None


class KeyLines:
    """Where in a YAML text a key stands."""

    def __init__(self, text: str, file: str) -> None:
        self.file, self.root = file, yaml.compose(text, Loader=FastLoader)

    def where(self, path: Iterable[Any]) -> str:
        """'study.yaml line 7', of the last part of the path that is in the text; the file alone for what is not."""
        node, line = self.root, None
        for part in path:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            pair = next(((key, value) for key, value in pairs if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        return f"{self.file} line {line}" if line else self.file


def _place(error: ValidationError) -> list[Any]:
    """The path of the first error; the message of a validator of the whole study begins with the key."""
    first = error.errors()[0]
    words = first["msg"].removeprefix("Value error, ").split(":")[0].strip()
    path = [*first["loc"]]
    if path == ["sweep"]:
        return ["sweep", words]
    key, _, rest = words.partition(".")
    return path or ([key, rest] if key == "sweep" and rest else [key])


def _text(value: Any) -> str:
    """A value as one comparable text; 1, 1.0, True and "1" differ."""
    if isinstance(value, Mapping):
        return "{" + ",".join(sorted(f"{key}:{_text(part)}" for key, part in value.items())) + "}"
    if isinstance(value, BaseModel):
        return _text(value.model_dump(mode="json"))
    return "[" + ",".join(map(_text, value)) + "]" if isinstance(value, list | tuple) else repr(value)
