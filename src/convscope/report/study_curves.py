"""Learning curves of a study as small panels: one for each value of the settings that matter most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from convscope.draw import cost, run_curves, spread
from convscope.report.study_results import SettingGroup, StudyResults, largest_near
from convscope.runs import ANATOMY, object_in

_MOST_PANELS = 24
_MOST_VALUES = 8  # of a setting


def panels(results: StudyResults) -> dict[str, Any]:
    """Accuracy and loss by epoch, of the values of the two most important settings; a line a run. No panel where no run has
    an epoch.

    Returns:
        panels: of each combination of values its `label`, how many `runs` have an epoch to show, and its `charts` by name.
        over: settings whose values are not told apart in them. reach: measure → from where to where its axis goes, the same
        in all panels. beyond: runs some of whose losses lie above the reach.
    """
    history = results.runs.histories().replace([np.inf, -np.inf], np.nan)
    by = [key for key in results.by_importance if len(results.runs.groups([key])) <= _MOST_VALUES][:2]
    if len(results.runs.groups(by)) > _MOST_PANELS:  # of two settings
        by = by[:1]
    if history.empty:
        return {"panels": []}
    highest = history.groupby("run")[["train_loss", "val_loss"]].max().max(axis=1)
    reach = {"accuracy": _reach_of_shares(history), "loss": reach_of_losses(highest.tolist())}
    curve_panels: list[dict[str, Any]] = []
    for values, members in results.runs.groups(by):
        matching = history[history.run.isin(results.rows.run.iloc[members])]
        if len(matching):
            charts = {
                f"curves-{len(curve_panels)}-{name}": run_curves(
                    matching[["run", "epoch", f"train_{name}", f"val_{name}"]], name, reach[name]
                )
                for name in reach
            }
            curve_panels.append({"label": results.label(values), "runs": matching.run.nunique(), "charts": charts})
    return {
        "panels": curve_panels,
        "over": [key for key in results.settings if key not in by],
        "reach": reach,
        "beyond": int((highest > reach["loss"][1]).sum()),
    }


def reach_of_losses(highest: Sequence[float]) -> tuple[float, float]:
    """From 0 to above the highest loss of all runs but those whose highest is more than three times their median.

    A run whose loss explodes would otherwise press all others to the ground; the median stays where it is as long as fewer
    than half of the runs do.

    Args:
        highest: loss of each run.
    """
    top = largest_near(highest)
    step = 10.0 ** np.floor(np.log10(top)) / 2 if top > 0 else 1.0
    return 0.0, float(max(top, np.ceil(top / step) * step))


def _reach_of_shares(history: pd.DataFrame) -> tuple[float, float]:
    """From below the lowest to above the highest accuracy, in tenths."""
    values = history[["train_accuracy", "val_accuracy"]].to_numpy(np.float64)
    low, high = np.nanmin(values), np.nanmax(values)
    return float(np.floor(10 * low) / 10), float(np.ceil(10 * high) / 10)


_MOST_SHOWN = 60  # settings, for a row each
_COSTS = {"parameters": "parameters", "multiply_adds": "multiply-adds", "seconds": "seconds of training"}


def spread_of(results: StudyResults) -> dict[str, Any] | None:
    """The chart of all settings, the best first; None for a single one."""
    groups, metric = results.by_metric[:_MOST_SHOWN], results.metric
    if len(groups) < 2:
        return None
    runs = [
        {"setting": group.label, "run": run, "value": value}
        for group in groups
        for run, value in group.runs[["run", metric.name]].dropna().itertuples(index=False)
    ]
    means = pd.DataFrame([_mean(results, group) for group in groups])
    table = pd.DataFrame(runs)
    highest = 1.0 if metric.is_share else largest_near(table["value"].tolist())
    return spread(means, table, metric.words, highest, percent=metric.is_share)


def fronts(results: StudyResults) -> list[dict[str, Any]]:
    """The metric against each cost that is known and differs; of settings all whose runs ended, where there are any.

    `cost` in words; `chart`, a dot a setting; `settings` of the Pareto front, the cheapest first: no other costs as little or
    less and is as good or better; and `n` settings whose cost is known.
    """
    cost_fronts = []
    for key, words in _COSTS.items():
        rows = [
            {**_mean(results, group), key: value} for group in results.whole if (value := _cost(results, group, key))
        ]
        if len({row[key] for row in rows}) < 2:
            continue
        ahead = pareto([(row[key], results.metric.sign * row["value"]) for row in rows])
        table = pd.DataFrame(rows).assign(front=[place in ahead for place in range(len(rows))])
        names = [rows[place]["setting"] for place in ahead]
        chart = cost(table, key, words, results.metric.words, percent=results.metric.is_share)
        cost_fronts.append({"cost": words, "chart": chart, "settings": names, "n": len(rows)})
    return cost_fronts


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
    summary = group.summary(results.metric.name)
    return {
        "setting": group.label, "value": summary.mean.value, "low": summary.mean.low, "high": summary.mean.high,
        "n": summary.n,
    }  # fmt: skip


def _cost(results: StudyResults, group: SettingGroup, key: str) -> float | None:
    if key != "multiply_adds":
        return group.summary(key).mean.value
    stated = (object_in(results.runs.folder / run / ANATOMY).get(key) for run in group.runs.run)
    return next((value for value in stated if value and isinstance(value, int)), None)
