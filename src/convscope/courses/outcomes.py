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
from convscope.scans import UNDEFINED, Estimate, proportion
from convscope.study import DAMAGED, STUDY, Study, StudyRun, StudySpec, damage, open_study, summary

Verdict = Literal[
    "agrees", "higher", "lower", "cannot be told", "equal", "differs", "not compared", "not run", "unfinished"
]

CLOSE = 0.03
"""Two accuracies agree when the interval of their difference holds 0 and does not reach further than this to either side."""

_Z = 1.959963984540054
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
    reported_interval: Estimate = UNDEFINED
    found: Estimate = UNDEFINED
    difference: Estimate = UNDEFINED
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
    budgets = [FULL, *reversed(reproduces(find_reproduction(name), name).budgets)]
    begun = [each for each in budgets if (folder_of(out, each, name) / STUDY).is_file()]
    done = (each for each in begun if _is_done(folder_of(out, each, name)))
    return next(done, begun[0] if begun else FULL)


def _is_done(folder: Path) -> bool:
    """Whether a study's folder has a finished run; a damaged one has none."""
    try:
        return any(run.state == "done" for run in open_study(folder).runs)
    except ConvscopeError:
        return False


def _reproduction(out: Path, name: str, budget: str) -> Reproduction:
    spec = find_reproduction(name, budget)
    report = reproduces(spec, name)
    folder = folder_of(out, report.budget, name)
    problems: tuple[str, ...] = ()
    if (folder / STUDY).is_file():
        try:
            return read_reproduction(open_study(folder), name, spec)
        except ConvscopeError as error:  # one such study must not spoil the others
            problems = (str(error),)
    outcomes = tuple(_outcome(each, spec, [], report.budget) for each in report.reported)
    claims = tuple(map(JudgedClaim, report.claims))
    return Reproduction(name, spec, report, folder, outcomes, claims, problems=problems)


def read_reproduction(study: Study, name: str, spec: StudySpec) -> Reproduction:
    """What came out in a study's folder.

    Args:
        study: the folder.
        name: of the shipped study.
        spec: it, at the folder's budget; figures and words are taken from here.
    """
    report = reproduces(spec, name)
    runs = [_readable(run, report.reported) for run in study.runs]
    first = next((run.open().environment for run in runs if run.state == "done"), None)
    data = first["data"] if first else {"source": "", "digest": ""}
    return Reproduction(
        name=name,
        spec=spec,
        told=report,
        folder=study.path,
        outcomes=tuple(_outcome(each, spec, runs, report.budget) for each in report.reported),
        claims=judge_claims(report, spec, study.path, runs),
        n_done=sum(run.state == "done" for run in runs),
        n_runs=len(runs),
        seconds=sum(map(_seconds, runs)),
        data=data["source"],
        digest=data["digest"],
        is_lossy=spec.data.source.startswith(_LOSSLESS) and "JPEG" in data["source"],
        environment=first,
        problems=tuple(_problems(study, runs, spec)),
    )


def _readable(run: StudyRun, reported: Sequence[Reported]) -> StudyRun:
    """The run; where it is finished but a figure of it cannot be read, as one that failed."""
    if run.state != "done":
        return run
    try:
        opened = run.open()
        opened.environment["data"]["source"], opened.environment["data"]["digest"]
        opened.spec  # noqa: B018 (as what stands above: it is read)
        for each in reported:
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


def _outcome(reported: Reported, spec: StudySpec, runs: Sequence[StudyRun], budget: str) -> Outcome:
    if reported.metric == EXACT:
        return _counted(reported, spec)
    interval = (
        proportion(round(reported.value * reported.n), reported.n) if reported.is_share and reported.n else UNDEFINED
    )
    matching = [run for run in runs if matches(spec.run_spec(run.settings, run.seed), reported.at)]
    done = [run for run in matching if run.state == "done"]
    if not done:
        verdict: Verdict = "unfinished" if any(run.state == "unfinished" for run in matching) else "not run"
        return Outcome(reported, interval, n_missing=len(matching), verdict=verdict)
    values, n_images = _by_seed(done, reported.metric)
    ours, difference = estimate(values, n_images, reported)
    n_settings = len({run.number for run in done})
    verdict = verdict_of(difference) if reported.is_share else "not compared"
    if budget == SMOKE:
        verdict = "not compared"
    elif any(run.state in ("waiting", "unfinished") for run in matching):
        verdict = "unfinished"  # a mean over some of its settings is another figure
    return Outcome(
        reported, interval, ours, difference, len(values), n_settings, len(matching) - len(done), n_images, verdict
    )


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
    seed_summary, n = summary(values), len(values)
    mean = sum(values) / n
    gap = mean - told.value
    if not told.is_share or told.n is None:
        return seed_summary.mean, Estimate(gap, None, None)
    deviation = seed_summary.deviation
    seeds = 0.0 if deviation is None else float(special.stdtrit(n - 1, 0.975)) * deviation
    our_error, their_error = _image_error(mean, n_images), _image_error(told.value, told.n)
    half = math.hypot(seeds / math.sqrt(n), _Z * our_error)
    gap_half = math.hypot(seeds * math.sqrt(1 + 1 / n), _Z * math.hypot(our_error, their_error))
    ours = Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))
    return ours, Estimate(gap, max(-1.0, gap - gap_half), min(1.0, gap + gap_half))


def _image_error(p: float, n: int) -> float:
    """Standard error of a share, with one image added on either side, so that it is not 0 at a share of 1."""
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


def _counted(reported: Reported, spec: StudySpec) -> Outcome:
    """Parameters, which need no run: the network is built without its weights."""
    # also of a setting that a smaller budget leaves out
    count = parameters_of(spec.run_spec({**spec.example, **reported.at}, spec.run_seeds[0]))
    if count is None:
        return Outcome(reported)
    gap = count - reported.value
    ours, difference = Estimate(float(count), None, None), Estimate(gap, None, None)
    return Outcome(
        reported, found=ours, difference=difference, n_seeds=1, n_settings=1, verdict="differs" if gap else "equal"
    )


def parameters_of(spec: RunSpec) -> int | None:
    """Parameters of a catalogue's network for the images that it was made for; None of one that cannot be built here."""
    net_spec = spec.net
    if code_in(net_spec) is not None:  # the study's folder may be somebody else's
        return None
    options = ({"classes": 1} if spec.task == "sigmoid" else {}) | net_spec.options
    try:
        with torch.device("meta"):
            net = build_net(net_spec.name, head=net_spec.head, replaces=net_spec.replaces, **options)
    except (ConvscopeError, NotImplementedError):
        return None
    return sum(parameter.numel() for parameter in net.parameters())
