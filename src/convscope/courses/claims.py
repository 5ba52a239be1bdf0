"""What a report claims of its networks, tested on ours: runs that differ in one thing, or a figure of one network."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from convscope.analyses import open_subject
from convscope.base.bounded import is_within
from convscope.courses.figures import EPOCH_SECONDS, figure, matches
from convscope.courses.measured import MEASUREMENTS
from convscope.courses.reported import SMOKE, Claim, Reproduces
from convscope.errors import ConvscopeError
from convscope.runs import object_in, write_whole
from convscope.scans import UNDEFINED, Estimate, mean_of, proportion
from convscope.study import DAMAGED, Study, StudyRun, StudySpec, compare, compare_seeds

_MEASURED = "claims.json"
_Z = 1.959963984540054
_ENOUGH = 5
"""From this many pairs of settings on, their spread shows what chance does; with fewer, Student's interval says nothing."""


ClaimVerdict = Literal["confirmed", "contradicted", "cannot be told", "not compared", "unfinished", "not run"]


@dataclass(frozen=True)
class JudgedClaim:
    """A claim and what our runs say of it.

    Attributes:
        claim: the sentence and its test.
        difference: the sum that the claim says is above 0 (or no further from 0 than `claim.within`), with its 95 % interval;
            in the metric's unit.
        basis: what the interval is over, in words.
        verdict: "confirmed" or "contradicted" where the interval says so, else "cannot be told"; "unfinished" while runs that
            belong to it are to come, "not run" before the first, "not compared" at the budget "smoke".
    """

    claim: Claim
    difference: Estimate = UNDEFINED
    basis: str = ""
    verdict: ClaimVerdict = "not run"


def judge_claims(told: Reproduces, spec: StudySpec, folder: Path, runs: Sequence[StudyRun]) -> tuple[JudgedClaim, ...]:
    """What the finished runs of a study's folder say of each claim of its report."""
    measured = object_in(folder / _MEASURED)
    judged = [
        _of_network(claim, measured) if claim.metric in MEASUREMENTS else _of_runs(claim, spec, runs)
        for claim in told.claims
    ]
    if told.budget == SMOKE:  # shows that all parts work, and says nothing
        judged = [replace(each, verdict="not compared") if each.basis else each for each in judged]
    return tuple(judged)


def measure_networks(study: Study, told: Reproduces) -> None:
    """Measure what claims say of one network, on the study's best run, into its claims.json; what is there already is kept."""
    metrics = [claim.metric for claim in told.claims if claim.metric in MEASUREMENTS]
    ranking = study.ranking()
    if not metrics or not ranking:
        return
    run = next(run for run in study.runs if run.number == ranking[0].number and run.state == "done")
    entries = object_in(study.path / _MEASURED).items()
    measured = {name: each for name, each in entries if isinstance(each, dict) and each.get("run") == run.path.name}
    for name in metrics:
        if name not in measured:
            estimate, basis = MEASUREMENTS[name](open_subject(run.path).scope, run.open().load_data().test)
            measured[name] = {**estimate.to_json(), "basis": basis, "run": run.path.name}
            write_whole(study.path / _MEASURED, json.dumps(measured, indent=1))


def _of_network(claim: Claim, measured: Mapping[str, Any]) -> JudgedClaim:
    try:
        entry = measured[claim.metric]
        difference = Estimate(*(None if entry[key] is None else float(entry[key]) for key in ("value", "low", "high")))
        return JudgedClaim(
            claim, difference, f"run {entry['run']}, {entry['basis']}", verdict_of_claim(claim, difference)
        )
    except (KeyError, TypeError, ValueError, OverflowError):  # the folder may be somebody else's
        return JudgedClaim(claim)


def _of_runs(claim: Claim, spec: StudySpec, runs: Sequence[StudyRun]) -> JudgedClaim:
    groups = _alike(claim, spec, runs)
    if any(run.state in ("waiting", "unfinished") for group in groups for run in group):
        return JudgedClaim(claim, verdict="unfinished")
    done = [group for group in groups if all(run.state == "done" for run in group)]
    if not done:
        return JudgedClaim(claim)
    try:
        difference, basis = _difference(claim, done)
    except (*DAMAGED, ConvscopeError):
        return JudgedClaim(claim)
    return JudgedClaim(claim, difference, basis, verdict_of_claim(claim, difference))


def _alike(claim: Claim, spec: StudySpec, runs: Sequence[StudyRun]) -> list[list[StudyRun]]:
    """Groups of runs that differ in what the claim is about alone: of each group the run of each term, in their order."""
    about = {key for _, settings in claim.terms for key in settings}
    groups: dict[str, dict[int, StudyRun]] = defaultdict(dict)
    for run in runs:
        rest = {
            key: value
            for key, value in run.settings.items()
            if not any(is_within(key, each) or is_within(each, key) for each in about)
        }
        run_spec = spec.run_spec(run.settings, run.seed)
        for place, (_, settings) in enumerate(claim.terms):
            if matches(run_spec, settings):
                groups[json.dumps([rest, run.seed], default=str)][place] = run
    return [[group[k] for k in range(len(claim.terms))] for group in groups.values() if len(group) == len(claim.terms)]


def _difference(claim: Claim, groups: Sequence[Sequence[StudyRun]]) -> tuple[Estimate, str]:
    factors = np.array([factor for factor, _ in claim.terms])
    if claim.metric == EPOCH_SECONDS:
        epochs = [zip(*(run.open().history.seconds for run in group), strict=False) for group in groups]
        sums = [float(factors @ seconds) for group in epochs for seconds in group]
        return _over(sums), f"{len(sums)} epochs"
    figures = [[figure(run.open(), claim.metric) for run in group] for group in groups]
    values, n = np.array([[value for value, _ in group] for group in figures]), figures[0][0][1]
    sums = (values @ factors).tolist()
    count = f"{len(groups)} {'pair' if len(factors) == 2 else 'group'}{'s' * (len(groups) > 1)}"
    if len(groups) >= _ENOUGH or len({run.seed for group in groups for run in group}) > 1:
        return _over(sums), count
    if claim.metric == "test_accuracy":
        return _on_images(factors, groups), f"{count}, {n:,} test images"
    mean = fmean(sums)
    if not claim.metric.endswith("accuracy"):
        return Estimate(mean, None, None), count
    errors = [math.hypot(*(factors * [_error(value, n) for value in group])) for group in values]
    half = _Z * fmean(errors)  # as wide as if all groups erred alike, for they are shown the same images
    return Estimate(mean, mean - half, mean + half), f"{count}, {n:,} images"


def _on_images(factors: Float64[np.ndarray, " T"], groups: Sequence[Sequence[StudyRun]]) -> Estimate:
    """Mean over the groups of the sum, image by image, with Student's interval over the test images."""
    runs = compare([run.path for group in groups for run in group]).runs
    right = np.stack([run.answers.right.numpy() for run in runs]).reshape(len(groups), len(factors), -1)
    return mean_of((factors @ right).mean(0).tolist())


def _over(sums: Sequence[float]) -> Estimate:
    """The mean with Student's interval; without one where the sums do not spread."""
    return compare_seeds(dict(enumerate(sums)), dict.fromkeys(range(len(sums)), 0.0)).difference


def _error(share: float, n: int) -> float:
    """Standard error of a share of n images, from Wilson's interval, which is never 0."""
    _, low, high = proportion(round(share * n), n).figures
    return (high - low) / (2 * _Z)


def verdict_of_claim(claim: Claim, difference: Estimate) -> ClaimVerdict:
    """What the interval says of the claim.

    Example:
        >>> claim = Claim(says="a is higher", metric="test_accuracy", terms=[(1, {"net.width": 8}), (-1, {"net.width": 4})])
        >>> verdict_of_claim(claim, Estimate(0.02, 0.01, 0.03))
        'confirmed'
    """
    low, high, most = difference.low, difference.high, claim.within or 0.0
    if low is None or high is None:
        return "cannot be told"
    if claim.within is None:
        return "confirmed" if low > 0 else "contradicted" if high < 0 else "cannot be told"
    if -most < low and high < most:
        return "confirmed"
    return "contradicted" if low > most or high < -most else "cannot be told"
