"""What a shipped study repeats: the report's figures, smaller budgets, and the report's ways of looking."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from convscope.analyses import checked, find
from convscope.base.settings import describe
from convscope.courses.figures import EPOCH_SECONDS
from convscope.courses.measured import MEASUREMENTS
from convscope.errors import ConvscopeError, SettingError, UnknownNameError
from convscope.runs import parse_mapping
from convscope.study import KeyLines, StudySpec, read_study, shipped_texts

FULL = "full"
"""The budget of a study file as it stands: as reported."""

SMOKE = "smoke"
"""The budget of seconds: shows that all parts work; its figures say nothing."""

LAPTOP = "laptop"
"""The budget of two cores and less than an hour; a file without it is small enough to be run as reported."""

EXACT = "parameters"
"""A metric that is counted, not measured."""

_METRICS = ("test_accuracy", "train_accuracy", "mean_val_accuracy", "overfit_percent", EXACT)
_OF_A_HEAD = re.compile(r"heads\.\w+\.accuracy")


def _check_metric(metric: str, known: Collection[str]) -> None:
    if metric not in known and not _OF_A_HEAD.fullmatch(metric):
        raise ValueError(f"{metric!r}; expected one of {', '.join(known)}, heads.NAME.accuracy")


class Reported(BaseModel):
    """A figure of a report.

    Attributes:
        what: it is, in words.
        metric: "test_accuracy" or "train_accuracy" of the weights that are kept, "heads.NAME.accuracy" on the test images,
            "mean_val_accuracy" (mean over all epochs of the accuracy on validation images), "overfit_percent" or
            "parameters".
        value: as printed; accuracies are shares.
        n: images that an accuracy was measured on.
        at: settings of the runs that it belongs to, by dotted key; of several settings the mean. All runs by default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    what: str = Field(min_length=1)
    metric: str
    value: float
    n: int | None = Field(default=None, ge=1)
    at: dict[str, Any] = {}

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        _check_metric(metric, _METRICS)
        return metric

    @model_validator(mode="after")
    def _check(self) -> Reported:
        if self.is_share and (self.n is None or not 0 <= self.value <= 1):
            raise ValueError("an accuracy is a share from 0 to 1, and n says on how many images it was measured")
        return self

    @property
    def is_share(self) -> bool:
        """Whether the value is an accuracy."""
        return self.metric.endswith("accuracy")


class Claim(BaseModel):
    """What a report says of its networks, in a form that can be tested on runs.

    Attributes:
        says: the claim, in a sentence.
        metric: as of `Reported`, but "parameters"; or "epoch_seconds", the time of each epoch; or one of `MEASUREMENTS`, of the
            study's best run.
        terms: factors and the settings of the runs that they belong to, by dotted key. The claim is that the sum of factor ×
            metric is above 0 in runs that are alike in all other settings and in the seed.
        within: of a claim that there is no difference: how far from 0 the sum may be; in the metric's unit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    says: str = Field(min_length=1)
    metric: str
    terms: tuple[tuple[float, dict[str, Any]], ...] = ()
    within: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Claim:
        of_network = self.metric in MEASUREMENTS
        if not of_network and self.metric != EPOCH_SECONDS:
            _check_metric(self.metric, (*_METRICS[:-1], EPOCH_SECONDS, *MEASUREMENTS))
        if bool(self.terms) if of_network else len(self.terms) < 2:
            raise ValueError(
                "terms are of runs: expected none with a figure of one network, and two or more with all others"
            )
        return self


class ReportedLook(BaseModel):
    """A look at one of the networks, with the settings of its lens beside these; see the reference of lenses and scans.

    Attributes:
        lens: one of convscope's lenses or scans.
        about: what the report shows by it.
        at: settings of the run that is looked at, by dotted key; by default the best by validation.
        image: a file, or a test image by number.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    lens: str
    about: str = ""
    at: dict[str, Any] = {}
    image: int | str | None = None

    @model_validator(mode="after")
    def _check(self) -> ReportedLook:
        try:
            checked(self.lens, find(self.lens).request, self.settings)
        except ConvscopeError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Those of its lens."""
        return dict(self.model_extra or {})

    def command(self, run: str) -> str:
        """How to look again."""
        settings = ({} if self.image is None else {"image": self.image}) | self.settings
        options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        return shlex.join(["convscope", "look", run, self.lens, *options])


class Reproduces(BaseModel):
    """What a study repeats.

    Attributes:
        report: A … E, see docs/reproducing.md.
        reported: its figures.
        claims: what it says of its networks.
        budgets: name → settings that are other than reported, by dotted key; those of `sweep` and `seeds` too.
        looks: what the report shows of its networks.
        otherwise: what is done in another way than reported, or was assumed, a line each.
        disagrees: what contradicts the report, with the reason where it is known, a line each.
        place: among the studies of its report.
        budget: the one whose settings this study has; "full" as reported.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    report: Literal["A", "B", "C", "D", "E"]
    reported: tuple[Reported, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = ()
    budgets: dict[str, dict[str, Any]] = {}
    looks: tuple[ReportedLook, ...] = ()
    otherwise: tuple[str, ...] = ()
    disagrees: tuple[str, ...] = ()
    place: int = 0
    budget: str = FULL


class _Study(BaseModel):
    """Of a study the one key that this room reads."""

    reproduces: Reproduces


def reproduces(spec: StudySpec, where: str, text: str = "") -> Reproduces:
    """What a study repeats.

    Args:
        spec: a study that has the key.
        where: its file's name, for messages.
        text: its YAML, for the line in messages.
    Raises:
        SettingError: the key holds something else; file and key are named.
    """
    try:
        return _Study.model_validate({"reproduces": spec.reproduces}).reproduces
    except ValidationError as error:
        line = KeyLines(text, where).where(error.errors()[0]["loc"])
        raise SettingError(f"{line}: {describe(error, _Study)}") from None


def read_reproducing(text: str, where: str, overrides: Iterable[str] = (), budget: str = FULL) -> StudySpec:
    """The study in a YAML text at one of its budgets; what it repeats is checked, and every value of it stated.

    Args:
        text, where, overrides: see `convscope.study.read_study`.
        budget: its settings come before the overrides. A file without "laptop" is as reported at that one.
    Raises:
        SettingError: see `convscope.study.read_study` and `reproduces`.
        UnknownNameError: the study has no such budget.
    """
    entry = parse_mapping(text, where).get("reproduces")
    listed = entry.get("budgets") if isinstance(entry, Mapping) else None
    budgets = listed if isinstance(listed, Mapping) else {}
    if budget == LAPTOP and LAPTOP not in budgets:  # small enough to be run as reported
        budget = FULL
    settings = _settings_of_budget(budgets, budget, where)
    if isinstance(entry, Mapping):  # what else stands there is refused below
        settings["reproduces.budget"] = budget
    return check_reproduces(read_study(text, where, overrides, settings), where, text)


def check_reproduces(spec: StudySpec, where: str, text: str = "") -> StudySpec:
    """The study with every value of what it repeats stated; as it is where it repeats nothing. Otherwise as `reproduces`."""
    if spec.reproduces is None:
        return spec
    return spec.model_copy(update={"reproduces": reproduces(spec, where, text).model_dump(mode="json")})


def reproductions() -> dict[str, str]:
    """The shipped studies that repeat a report, in the order of the reports: name → a line about it."""
    studies = {name: parse_mapping(text, f"{name}.yaml") for name, text in shipped_texts().items()}
    entries = {name: study["reproduces"] for name, study in studies.items() if "reproduces" in study}
    order = sorted(entries, key=lambda name: (entries[name]["report"], entries[name].get("place", 0), name))
    return {name: studies[name]["about"] for name in order}


def find_reproduction(name: str, budget: str = FULL) -> StudySpec:
    """A shipped study that repeats a report, at one of its budgets.

    Raises:
        UnknownNameError: no shipped study of that name repeats a report, or it has no such budget.
    """
    texts = shipped_texts()
    if name not in texts or "reproduces" not in parse_mapping(texts[name], f"{name}.yaml"):
        raise UnknownNameError("study", name, reproductions(), "one that repeats a report")
    return read_reproducing(texts[name], name, budget=budget)


def _settings_of_budget(budgets: Mapping[str, Any], budget: str, where: str) -> dict[str, Any]:
    """The settings of one of the known budgets, by dotted key; of "full" there are none."""
    if budget == FULL:
        return {}
    if budget not in budgets:
        raise UnknownNameError("budget", budget, dict.fromkeys([*budgets, LAPTOP, FULL]), f"one of {where}'s")
    settings = budgets[budget]
    if not isinstance(settings, Mapping):
        raise SettingError(
            f"{where}: reproduces.budgets.{budget}: {settings!r}: expected settings by their keys, such as data.limit: 300"
        )
    return dict(settings)
