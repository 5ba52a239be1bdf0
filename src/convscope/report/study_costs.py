"""A study's settings against each other: spread over seeds, and the metric against what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from convscope.draw import cost, spread
from convscope.report.study_results import SettingGroup, StudyResults, largest_near
from convscope.runs import ANATOMY, object_in

_MOST_SHOWN = 60  # settings, for a row each
_COSTS = {"parameters": "parameters", "multiply_adds": "multiply-adds", "seconds": "seconds of training"}


@dataclass(frozen=True, eq=False)
class Front:
    """The metric against one cost.

    Attributes:
        cost: what it costs, in words.
        chart: a dot a setting.
        settings: of the Pareto front, the cheapest first: no other costs as little or less and is as good or better.
        n: settings whose cost is known.
    """

    cost: str
    chart: dict[str, Any]
    settings: tuple[str, ...]
    n: int


def spread_of(results: StudyResults) -> dict[str, Any] | None:
    """The chart of all settings, the best first; None for a single one."""
    shown, metric = results.by_metric[:_MOST_SHOWN], results.metric
    if len(shown) < 2:
        return None
    runs = [
        {"setting": group.label, "run": run, "value": value}
        for group in shown
        for run, value in group.runs[["run", metric.name]].dropna().itertuples(index=False)
    ]
    means = pd.DataFrame([_mean(results, group) for group in shown])
    table = pd.DataFrame(runs)
    highest = 1.0 if metric.is_share else largest_near(table["value"].tolist())
    return spread(means, table, metric.words, highest, percent=metric.is_share)


def fronts(results: StudyResults) -> list[Front]:
    """For each cost that is known and differs; of settings whose runs all came to their end, where there are such."""
    found = []
    for key, words in _COSTS.items():
        rows = [
            {**_mean(results, group), key: value} for group in results.whole if (value := _cost(results, group, key))
        ]
        if len({row[key] for row in rows}) < 2:
            continue
        ahead = pareto([(row[key], results.metric.sign * row["value"]) for row in rows])
        table = pd.DataFrame(rows).assign(front=[place in ahead for place in range(len(rows))])
        names = tuple(rows[place]["setting"] for place in ahead)
        found.append(Front(words, cost(table, key, words, percent=results.metric.is_share), names, len(rows)))
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, value) that no other betters: none costs less or as much and is worth more; the cheapest
    first, of equal ones the first."""
    front, highest = [], -math.inf
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if points[place][1] > highest:
            front.append(place)
            highest = points[place][1]
    return front


def _mean(results: StudyResults, group: SettingGroup) -> dict[str, Any]:
    found = group.summary(results.metric.name)
    return {
        "setting": group.label, "value": found.mean.value, "low": found.mean.low, "high": found.mean.high, "n": found.n,
    }  # fmt: skip


def _cost(results: StudyResults, group: SettingGroup, key: str) -> float | None:
    if key == "multiply_adds":
        return next(filter(None, (_multiply_adds(results, run) for run in group.runs.run)), None)
    return group.summary(key).mean.value


def _multiply_adds(results: StudyResults, run: str) -> int | None:
    """As the run keeps them, where it does."""
    value = object_in(results.runs.folder / run / ANATOMY).get("multiply_adds")
    return value if isinstance(value, int) else None
