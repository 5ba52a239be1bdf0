"""Learning curves of a study as small panels: one for each value of the settings that matter most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from convscope.draw import run_curves
from convscope.report.study_results import StudyResults, largest_near

_MOST_PANELS = 24
_MOST_VALUES = 8  # of a setting


@dataclass(frozen=True, eq=False)
class Panel:
    """The runs of one combination of values.

    Attributes:
        label: the values in short.
        runs: how many runs have an epoch to show.
        charts: name → chart, of the accuracy and of the loss.
    """

    label: str
    runs: int
    charts: dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Panels:
    """All panels; `over` are settings whose values are not told apart in them.

    Attributes:
        reach: measure → from where to where its axis goes, the same in all panels.
        beyond: runs some of whose losses lie above the reach.
    """

    by: tuple[str, ...]
    over: tuple[str, ...]
    panels: tuple[Panel, ...]
    reach: dict[str, tuple[float, float]]
    beyond: int


def panels(results: StudyResults) -> Panels:
    """Accuracy and loss by epoch, of the values of the two most important settings; a line a run. No panel where no run has
    an epoch."""
    history = results.runs.histories().replace([np.inf, -np.inf], np.nan)
    by = _shown_by(results)
    over = tuple(key for key in results.settings if key not in by)
    if history.empty:
        return Panels(by, over, (), {}, 0)
    reach = {"accuracy": _reach_of_shares(history), "loss": reach_of_losses(_highest(history).tolist())}
    found: list[Panel] = []
    for values in _combinations(results, by):
        mine = history[[row == values for row in _keys(history, by)]]
        if len(mine):
            charts = {f"curves-{len(found)}-{name}": _chart(mine, name, reach[name]) for name in reach}
            found.append(Panel(results.label(dict(zip(by, values, strict=True))), mine.run.nunique(), charts))
    beyond = int((_highest(history) > reach["loss"][1]).sum())
    return Panels(by, over, tuple(found), reach, beyond)


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


def _highest(history: pd.DataFrame) -> pd.Series:
    """The highest loss of each run."""
    return history.groupby("run")[["train_loss", "val_loss"]].max().max(axis=1)


def _chart(history: pd.DataFrame, measure: str, reach: tuple[float, float]) -> dict[str, Any]:
    return run_curves(history[["run", "epoch", f"train_{measure}", f"val_{measure}"]], measure, reach)


def _shown_by(results: StudyResults) -> tuple[str, ...]:
    """Two settings, or one where two would make too many panels."""
    few = [key for key in results.by_importance if len(results.values_of(key)) <= _MOST_VALUES]
    pair = tuple(few[:2])
    return pair if len(_combinations(results, pair)) <= _MOST_PANELS else pair[:1]


def _combinations(results: StudyResults, by: tuple[str, ...]) -> list[tuple[Any, ...]]:
    if not by:
        return [()]
    return list(results.runs.grouped(by)[list(by)].itertuples(index=False, name=None))


def _keys(history: pd.DataFrame, by: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return list(history[list(by)].itertuples(index=False, name=None)) if by else [()] * len(history)


def _reach_of_shares(history: pd.DataFrame) -> tuple[float, float]:
    """From below the lowest to above the highest accuracy, in tenths."""
    values = history[["train_accuracy", "val_accuracy"]].to_numpy(np.float64)
    low, high = np.nanmin(values), np.nanmax(values)
    return float(np.floor(10 * low) / 10), float(np.ceil(10 * high) / 10)
