"""What a study's runs show, in words with the evidence beside each; said only where the statistics carry it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from convscope.base.words import counted
from convscope.report.study_results import StudyResults, value_in_words
from convscope.runs import ENVIRONMENT, METRICS, object_in
from convscope.scans import proportion
from convscope.study import (
    ENDED,
    Metric,
    SeedComparison,
    compare_seeds,
    differs,
    holm,
    importance_in_words,
    summary,
    written_p,
)

_LARGE_GAP = 0.05  # of train over validation accuracy
_RATE = "recipe.rate"
_MOST_STEPS = 20  # between values of a numeric setting
_LEVEL = 0.95


@dataclass(frozen=True)
class Finding:
    """One thing that the runs show.

    Attributes:
        kind: "importance", "instability", "overfitting" or "returns".
        words: the sentence.
        evidence: figures, p and n.
    """

    kind: str
    words: str
    evidence: str


def study_findings(results: StudyResults) -> list[Finding]:
    """All that is clear; nothing where nothing is."""
    findings = [_importance(results), _instability(results), _overfitting(results)]
    findings += [_diminishing(results, key) for key in results.settings]
    return [finding for finding in findings if finding is not None]


def _importance(results: StudyResults) -> Finding | None:
    importance = results.importance
    if isinstance(importance, str) or not importance.matter:
        return None
    first = max(importance.matter, key=lambda term: term.share)
    words = f"{first.name} matters most" if len(importance.matter) > 1 else f"Only {first.name} clearly matters"
    terms = counted(len(importance.terms), "term")
    evidence = f"{importance_in_words(importance)}; analysis of variance, Holm's correction for {terms}"
    return Finding("importance", f"{words} for {results.metric.words}.", evidence)


def _instability(results: StudyResults) -> Finding | None:
    """A rate from which on more runs diverge, or never leave chance, than below it; the clearest cut of all."""
    counted = results.rows.state.isin((*ENDED, "diverged")).to_numpy(bool)
    rows = results.rows[counted]
    if _RATE not in results.settings or not _numeric(rows[_RATE]):
        return None
    rates, diverged = rows[_RATE].to_numpy(np.float64), (rows.state == "diverged").to_numpy(bool)
    stuck = never_left_chance(results)[counted]
    unstable, cuts = diverged | stuck, np.unique(rates)[1:]
    if not unstable.any():
        return None
    ps = [_more_often(unstable[rates >= cut], unstable[rates < cut]) for cut in cuts]
    if not ps or min(ps) * len(ps) >= 1 - _LEVEL:
        return None
    cut = cuts[int(np.argmin(ps))]
    above, below = (
        f"{diverged[part].sum()} diverged and {stuck[part].sum()} never left chance, of {part.sum()} runs"
        for part in (rates >= cut, rates < cut)
    )
    kinds = " or ".join(words for words, some in (("diverge", diverged), ("stay at chance", stuck)) if some.any())
    return Finding(
        "instability",
        f"Training is unstable at high rates: from {_RATE} {value_in_words(cut)} on more runs {kinds}.",
        f"There {above}; below it {below}; Fisher's exact test, {written_p(min(1.0, min(ps) * len(ps)))}"
        f"{f', corrected for {len(ps)} cuts' if len(ps) > 1 else ''}",
    )


def _more_often(above: Bool[np.ndarray, " A"], below: Bool[np.ndarray, " B"]) -> float:
    """Fisher's one-sided p: so many or more of all unstable runs are above, were chance alone at work."""
    from scipy.stats import hypergeom  # takes half a second to load, so only where runs are unstable

    n, unstable = len(above) + len(below), int(above.sum() + below.sum())
    return float(hypergeom.sf(int(above.sum()) - 1, n, unstable, len(above)))


def _overfitting(results: StudyResults) -> Finding | None:
    """Values of settings at which the gap is large, its interval widened for having looked at all of them."""
    cases = list(_by_value(results)) or [("", None, results.ended)]
    level = 1 - (1 - _LEVEL) / len(cases)
    large = []
    for key, value, rows in cases:
        overlap = results.runs.overlap(rows.index)
        gaps = (rows.train_accuracy - rows.val_accuracy).to_numpy(np.float64)
        gap = summary(gaps.tolist(), level, lowest=-1.0, highest=1.0, overlap=overlap)
        if gap.mean.low is not None and gap.mean.low > 0 and gap.mean.figures[0] > _LARGE_GAP:
            large.append((gap.mean.figures[0], key, value, gap))
    if not large:
        return None
    _, key, value, most = max(large, key=lambda one: one[0])
    where = f", most with {key} {value_in_words(value)}" if key else ""
    n = f"{len(large)} of {len(cases)} values of the settings have a clear gap of more than 5 points; " if key else ""
    return Finding(
        "overfitting",
        f"The networks overfit{where}: they are right on {100 * most.mean.figures[0]:.1f} points more of the training images "
        "than of those for validation.",
        f"{n}{Metric('val_accuracy').change(most.mean)}, n = {most.n} runs"
        f"{f', interval widened for having looked at {len(cases)}' if len(cases) > 1 else ''}",
    )


def _by_value(results: StudyResults) -> Iterator[tuple[str, Any, pd.DataFrame]]:
    for key in results.settings:
        by_value = results.by_value(key)
        for value, rows in by_value.items() if len(by_value) <= _MOST_STEPS else ():
            yield key, value, rows


def _diminishing(results: StudyResults, key: str) -> Finding | None:
    """A numeric setting with steps that clearly gain, up to one after which none can be told from nothing and each gains less
    than every one before.

    Less, that is: the intervals of what a step gains lie apart.
    """
    values = [value for value in results.by_value(key) if value is not None]
    if not 3 <= len(values) <= _MOST_STEPS or not _numeric(values):
        return None
    steps = [step(results, key, low, high) for low, high in pairwise(values)]
    comparisons = [one for one in steps if one is not None]
    if len(comparisons) < len(steps):
        return None
    ps = holm([one.p for one in comparisons])
    gains = [results.metric.gain(one.difference) for one in comparisons]
    gained = [differs(one, p) and gain.figures[0] > 0 for one, gain, p in zip(comparisons, gains, ps, strict=True)]
    n = gained.index(False) if False in gained else len(gained)
    early, late = gains[:n], gains[n:]
    if not early or not late or any(differs(one, p) for one, p in zip(comparisons[n:], ps[n:], strict=True)):
        return None
    lowest = min(-np.inf if gain.low is None else gain.low for gain in early)
    highest = max(np.inf if gain.high is None else gain.high for gain in late)
    if lowest <= highest:
        return None
    figures = [
        f"{value_in_words(low)} → {value_in_words(high)}: {results.metric.change(one.difference)}, {written_p(p)}, "
        f"n = {one.n_a}"
        for (low, high), one, p in zip(pairwise(values), comparisons, ps, strict=True)
    ]
    return Finding(
        "returns",
        f"{key} has diminishing returns: up to {value_in_words(values[n])} each step gains, beyond it no gain can be told "
        "apart from none.",
        f"{'; '.join(figures)} pairs of runs that differ in it alone; paired t tests, p after Holm",
    )


def step(results: StudyResults, key: str, low: Any, high: Any) -> SeedComparison | None:
    """How the metric changes from one value of a setting to the next, over pairs of runs that are equal but for it;
    None where there are not two such pairs."""
    sides = [_blocks(results, key, value) for value in (low, high)]
    shared = [block for block in sides[0] if block in sides[1]]
    if len(shared) < 2:
        return None
    before, after = ({place: side[block] for place, block in enumerate(shared)} for side in sides)
    overlap = results.runs.overlap(results.ended.index)
    return compare_seeds(after, before, largest=1.0 if results.metric.is_share else math.inf, overlap=overlap)


def _blocks(results: StudyResults, key: str, value: Any) -> dict[tuple[Any, ...], float]:
    """The metric at a value, by all other settings and the seed."""
    rows = results.by_value(key)[value].dropna(subset=[results.metric.name])
    others = [*(other for other in results.settings if other != key), "seed"]
    return dict(
        zip(rows[others].itertuples(index=False, name=None), map(float, rows[results.metric.name]), strict=True)
    )


def _numeric(values: Iterable[Any]) -> bool:
    return all(isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_) for v in values)


_NEAR = 0.95  # of the loss of guessing; a network that has learned anything of use is below it


@dataclass(frozen=True)
class Chance:
    """What guessing comes to.

    Attributes:
        accuracy: the share of the most frequent class.
        loss: of guessing each class as often as it is, in nats: ln K of K equal classes.
        n_val: validation images.
    """

    accuracy: float
    loss: float
    n_val: int


def never_left_chance(results: StudyResults) -> Bool[np.ndarray, " N"]:
    """Of each row of the table, whether the run ended at chance.

    That is: its validation accuracy is not clearly above the share of the most frequent class (Wilson's interval over the
    validation images holds it), and its loss is at least 0.95 of that of guessing. A run that does not tell its classes, or
    answers several questions, is not counted.
    """
    rows = results.rows[["run", "state", "val_accuracy", "val_loss"]].to_dict("records")
    return np.array([row["state"] in ENDED and _at_chance(results.runs.folder, row) for row in rows], bool)


def _at_chance(folder: Path, row: dict[Hashable, Any]) -> bool:
    chance, accuracy, loss = chance_of(folder / row["run"]), float(row["val_accuracy"]), float(row["val_loss"])
    if chance is None or not np.isfinite([accuracy, loss]).all():
        return False
    estimate = proportion(round(accuracy * chance.n_val), chance.n_val)
    return estimate.figures[1] <= chance.accuracy and loss >= _NEAR * chance.loss


def chance_of(run: Path) -> Chance | None:
    """What guessing comes to for a run of one question; the classes are as frequent as among its test images."""
    metrics, environment = object_in(run / METRICS), object_in(run / ENVIRONMENT)
    try:
        [head], n_val = metrics["heads"].values(), int(environment["data"]["images"]["val"])
        counts = np.array([sum(row) for row in head["confusion"]], np.float64)
        is_softmax = head["kind"] == "softmax"
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if not is_softmax or not n_val or not counts.sum():
        return None
    shares = counts[counts > 0] / counts.sum()
    return Chance(float(shares.max()), -math.fsum(shares * np.log(shares)), n_val)
