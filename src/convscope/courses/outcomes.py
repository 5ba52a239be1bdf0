"""What came out where a report was repeated: each reported figure, ours beside it, and whether they agree."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from scipy import special

from convscope.courses.claims import JudgedClaim, judge_claims
from convscope.courses.figures import figure, matches
from convscope.courses.reported import (
    EXACT,
    FULL,
    SMOKE,
    Reported,
    Reproduces,
    find_reproduction,
    reproduces,
    reproductions,
)
from convscope.errors import ConvscopeError
from convscope.nets import build_net, code_in
from convscope.runs import HISTORY, RunSpec
from convscope.scans import Estimate, proportion
from convscope.study import DAMAGED, STUDY, Study, StudyRun, StudySpec, damage, open_study, summary

Verdict = Literal[
    "agrees", "higher", "lower", "cannot be told", "equal", "differs", "not compared", "not run", "unfinished"
]

CLOSE = 0.03
"""Two accuracies agree when the interval of their difference holds 0 and does not reach further than this to either side."""

_Z = 1.959963984540054
_NOTHING = Estimate(None, None, None)
_LOSSLESS = ("cifar10", "mnist")  # as their authors published them


@dataclass(frozen=True)
class Outcome:
    """A reported figure and what came out.

    Attributes:
        reported: the figure.
        reported_interval: of a reported accuracy, from its number of images; it takes the report's run for the only one.
        found: ours, mean over the seeds of the mean over the settings; the interval is over seeds and images. Undefined
            where no run is finished.
        difference: ours less the reported, with the interval that the verdict rests on.
        n_seeds, n_settings: runs that `found` comes from.
        n_missing: runs that belong to it and are not finished.
        n_images: on which each accuracy was measured.
        verdict: "agrees", "higher", "lower" or "cannot be told" of accuracies; "equal" or "differs" of counts; "not
            compared" of other figures and at the budget "smoke"; "unfinished" while runs that belong to it are to come; "not
            run" before the first of them.
    """

    reported: Reported
    reported_interval: Estimate = _NOTHING
    found: Estimate = _NOTHING
    difference: Estimate = _NOTHING
    n_seeds: int = 0
    n_settings: int = 0
    n_missing: int = 0
    n_images: int | None = None
    verdict: Verdict = "not run"


@dataclass(frozen=True)
class Reproduction:
    """A shipped study, and how far it has come at one budget.

    Attributes:
        name: of the study.
        spec: at that budget.
        told: what the study says of its report.
        folder: where its runs are.
        outcomes: of each reported figure.
        claims: of each claim of the report.
        n_done, n_runs: runs that are finished, and all.
        seconds: of all trainings.
        data: where its images came from, "copy in CONVSCOPE_DATA, JPEG"; '' before the first run.
        digest: of the images.
        is_lossy: whether they are known to be worse than those that the report had.
        environment: versions and hardware of the first run.
        problems: what is wrong with the runs, a line each.
    """

    name: str
    spec: StudySpec
    told: Reproduces
    folder: Path
    outcomes: tuple[Outcome, ...]
    claims: tuple[JudgedClaim, ...] = ()
    n_done: int = 0
    n_runs: int = 0
    seconds: float = 0.0
    data: str = ""
    digest: str = ""
    is_lossy: bool = False
    environment: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()

    @property
    def report(self) -> str:
        """A … E."""
        return self.told.report

    @property
    def budget(self) -> str:
        """Whose settings these are."""
        return self.told.budget


def reproduced(out: Path, names: Sequence[str] = (), budget: str | None = None) -> list[Reproduction]:
    """Shipped studies with what came out, in the order of the reports.

    Args:
        out: folder of the runs: `out`/budget/name.
        names: of studies; all by default.
        budget: to look at; by default of each study the largest that has a finished run, else "full".
    Raises:
        UnknownNameError: no such study or budget.
    """
    return [_reproduction(out, name, budget or _largest(out, name)) for name in names or reproductions()]


def folder_of(out: Path, budget: str, name: str) -> Path:
    """Where a study's runs are."""
    return out / budget / name


def _largest(out: Path, name: str) -> str:
    known = [FULL, *reversed(reproduces(find_reproduction(name), name).budgets)]
    begun = [each for each in known if (folder_of(out, each, name) / STUDY).is_file()]
    done = [each for each in begun if _is_done(folder_of(out, each, name))]
    return [*done, *begun, FULL][0]


def _is_done(folder: Path) -> bool:
    """Whether a study's folder has a finished run; a damaged one has none."""
    try:
        return any(run.state == "done" for run in open_study(folder).runs)
    except ConvscopeError:
        return False


def _reproduction(out: Path, name: str, budget: str) -> Reproduction:
    spec = find_reproduction(name, budget)
    folder = folder_of(out, reproduces(spec, name).budget, name)
    problems: tuple[str, ...] = ()
    if (folder / STUDY).is_file():
        try:
            return read_reproduction(open_study(folder), name, spec)
        except ConvscopeError as error:  # one such study must not spoil the others
            problems = (str(error),)
    told = reproduces(spec, name)
    outcomes = tuple(_outcome(each, spec, [], told.budget) for each in told.reported)
    claims = tuple(map(JudgedClaim, told.claims))
    return Reproduction(name, spec, told, folder, outcomes, claims, problems=problems)


def read_reproduction(study: Study, name: str, spec: StudySpec) -> Reproduction:
    """What came out in a study's folder.

    Args:
        study: the folder.
        name: of the shipped study.
        spec: it, at the folder's budget; figures and words are taken from here.
    """
    told = reproduces(spec, name)
    runs = [_readable(run, told.reported) for run in study.runs]
    first = next((run.open().environment for run in runs if run.state == "done"), None)
    data = first["data"] if first else {"source": "", "digest": ""}
    return Reproduction(
        name=name,
        spec=spec,
        told=told,
        folder=study.path,
        outcomes=tuple(_outcome(each, spec, runs, told.budget) for each in told.reported),
        claims=judge_claims(told, spec, study.path, runs),
        n_done=sum(run.state == "done" for run in runs),
        n_runs=len(runs),
        seconds=sum(map(_seconds, runs)),
        data=data["source"],
        digest=data["digest"],
        is_lossy=spec.data.source.startswith(_LOSSLESS) and "JPEG" in data["source"],
        environment=first,
        problems=tuple(_problems(study, runs, spec)),
    )


def _readable(run: StudyRun, told: Sequence[Reported]) -> StudyRun:
    """The run; where it is finished, and something that is asked of it cannot be read, as one that failed."""
    if run.state != "done":
        return run
    try:
        opened = run.open()
        opened.environment["data"]["source"], opened.environment["data"]["digest"]
        opened.spec  # noqa: B018 (as what stands above: it is read)
        for each in told:
            if each.metric != EXACT:
                figure(opened, each.metric)
    except DAMAGED as error:
        return replace(run, state="failed", message=damage(run.open(), error))
    return run


def _seconds(run: StudyRun) -> float:
    try:
        return float(run.open().history.seconds.sum()) if run.open().has(HISTORY) else 0.0
    except DAMAGED:
        return 0.0


def _problems(study: Study, runs: Sequence[StudyRun], spec: StudySpec) -> Iterator[str]:
    if different := study.spec.differences(spec):
        yield f"these runs were made with other settings than the study has now ({', '.join(different)})"
    yield from (f"{run.path.name} {run.state}: {run.message}" for run in runs if run.message)


def _outcome(told: Reported, spec: StudySpec, runs: Sequence[StudyRun], budget: str) -> Outcome:
    interval = proportion(round(told.value * told.n), told.n) if told.is_share and told.n else _NOTHING
    if told.metric == EXACT:
        return _counted(told, spec)
    mine = [run for run in runs if matches(spec.run_spec(run.settings, run.seed), told.at)]
    done = [run for run in mine if run.state == "done"]
    if not done:
        verdict: Verdict = "unfinished" if any(run.state == "unfinished" for run in mine) else "not run"
        return Outcome(told, interval, n_missing=len(mine), verdict=verdict)
    values, n_images = _by_seed(done, told.metric)
    found, difference = estimate(values, n_images, told)
    n_settings = len({run.number for run in done})
    verdict = verdict_of(difference) if told.is_share else "not compared"
    if budget == SMOKE:
        verdict = "not compared"
    elif any(run.state in ("waiting", "unfinished") for run in mine):
        verdict = "unfinished"  # a mean over some of its settings is another figure
    return Outcome(told, interval, found, difference, len(values), n_settings, len(mine) - len(done), n_images, verdict)


def _by_seed(runs: Sequence[StudyRun], metric: str) -> tuple[list[float], int]:
    """Of each seed the mean over its settings; and on how many images."""
    of_seed: dict[int, list[float]] = defaultdict(list)
    figures = [figure(run.open(), metric) for run in runs]
    for run, (value, _) in zip(runs, figures, strict=True):
        of_seed[run.seed].append(value)
    most = max(map(len, of_seed.values()))
    whole = [sum(each) / len(each) for each in of_seed.values() if len(each) == most]
    return whole, figures[0][1]


def estimate(values: Sequence[float], n_images: int, told: Reported) -> tuple[Estimate, Estimate]:
    """Our mean with its interval, and its difference from the reported figure with the interval of that.

    Two sources of chance are joined as independent ones: the seed (Student's t over our seeds; the report's single run is
    taken to vary as ours do, so that it counts 1 beside our 1/n) and the choice of test images (binomial, on both sides). Of a
    single seed the first is unknown and left out: the interval is then that of these two runs alone.
    """
    found = summary(values)
    mean = sum(values) / len(values)
    t = float(special.stdtrit(len(values) - 1, 0.975)) if found.deviation is not None else 0.0
    seeds = t * (found.deviation or 0.0)
    ours, theirs = (_image_error(p, n) for p, n in ((mean, n_images), (told.value, told.n)))
    if not told.is_share:
        return found.mean, Estimate(mean - told.value, None, None)
    own = math.hypot(seeds / math.sqrt(len(values)), _Z * ours)
    between = math.hypot(seeds * math.sqrt(1 + 1 / len(values)), _Z * math.hypot(ours, theirs))
    gap = mean - told.value
    of_ours = Estimate(mean, max(0.0, mean - own), min(1.0, mean + own))
    return of_ours, Estimate(gap, max(-1.0, gap - between), min(1.0, gap + between))


def _image_error(p: float, n: int | None) -> float:
    """Standard error of a share, with one image added on either side, so that it is not 0 at a share of 1."""
    if not n or not 0 <= p <= 1:
        return 0.0
    p = (p * n + 1) / (n + 2)
    return math.sqrt(p * (1 - p) / n)


def verdict_of(difference: Estimate) -> Verdict:
    """In a word, what the interval of a difference (ours less reported) says.

    Example:
        >>> verdict_of(Estimate(-0.05, -0.07, -0.03))
        'lower'
    """
    _, low, high = difference.figures
    if low > 0:
        return "higher"
    if high < 0:
        return "lower"
    return "agrees" if max(-low, high) <= CLOSE else "cannot be told"


def _counted(told: Reported, spec: StudySpec) -> Outcome:
    """Parameters, which need no run: the network is built without its weights."""
    # also of a setting that a smaller budget leaves out
    count = parameters_of(spec.run_spec({**spec.example, **told.at}, spec.run_seeds[0]))
    if count is None:
        return Outcome(told)
    gap = count - told.value
    found, difference = Estimate(float(count), None, None), Estimate(gap, None, None)
    return Outcome(
        told, found=found, difference=difference, n_seeds=1, n_settings=1, verdict="differs" if gap else "equal"
    )


def parameters_of(spec: RunSpec) -> int | None:
    """Parameters of a catalogue's network for the images that it was made for; None of one that cannot be built here."""
    own = spec.net
    if code_in(own) is not None:  # the study's folder may be somebody else's
        return None
    one = {"classes": 1} if spec.task == "sigmoid" else {}
    try:
        with torch.device("meta"):
            net = build_net(own.name, head=own.head, replaces=own.replaces, **{**one, **own.options})
    except (ConvscopeError, NotImplementedError):
        return None
    return sum(parameter.numel() for parameter in net.parameters())
