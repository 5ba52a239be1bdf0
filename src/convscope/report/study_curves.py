"""Learning curves of a study as small panels: one for each value of the settings that matter most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from convscope.draw import run_curves
from convscope.report.swept import Swept

_MOST_PANELS = 24
_MOST_VALUES = 8  # of a setting


@dataclass(frozen=True, eq=False)
class Panel:
    """The runs of one combination of values.

    Attributes:
        label: the values in short.
        runs: how many runs have an epoch to show.
        charts: name → chart.
    """

    label: str
    runs: int
    charts: dict[str, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Panels:
    """All panels; `over` are settings whose values are not told apart in them."""

    by: tuple[str, ...]
    over: tuple[str, ...]
    panels: tuple[Panel, ...]


def panels(swept: Swept) -> Panels:
    """Accuracy by epoch, of the values of the two most important settings; a line a run. None where no run has an epoch."""
    history = swept.runs.histories()
    by = _shown_by(swept)
    over = tuple(key for key in swept.settings if key not in by)
    if history.empty:
        return Panels(by, over, ())
    reach = _reach(history)
    found: list[Panel] = []
    for values in _combinations(swept, by):
        mine = history[[row == values for row in _keys(history, by)]]
        if len(mine):
            chart = {f"curves-{len(found)}": run_curves(mine[_columns()], "accuracy", reach)}
            found.append(Panel(swept.label(dict(zip(by, values, strict=True))), mine.run.nunique(), chart))
    return Panels(by, over, tuple(found))


def _columns() -> list[str]:
    return ["run", "epoch", "train_accuracy", "val_accuracy"]


def _shown_by(swept: Swept) -> tuple[str, ...]:
    """Two settings, or one where two would make too many panels."""
    few = [key for key in swept.by_importance if len(swept.values_of(key)) <= _MOST_VALUES]
    pair = tuple(few[:2])
    return pair if len(_combinations(swept, pair)) <= _MOST_PANELS else pair[:1]


def _combinations(swept: Swept, by: tuple[str, ...]) -> list[tuple[Any, ...]]:
    if not by:
        return [()]
    return list(swept.runs.grouped(by)[list(by)].itertuples(index=False, name=None))


def _keys(history: pd.DataFrame, by: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return list(history[list(by)].itertuples(index=False, name=None)) if by else [()] * len(history)


def _reach(history: pd.DataFrame) -> tuple[float, float]:
    """From below the lowest to above the highest accuracy, in tenths."""
    values = history[["train_accuracy", "val_accuracy"]].to_numpy(np.float64)
    low, high = np.nanmin(values), np.nanmax(values)
    return float(np.floor(10 * low) / 10), float(np.ceil(10 * high) / 10)
