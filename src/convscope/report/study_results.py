"""What a study's report is about: its runs, grouped by their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from convscope.errors import RequestError
from convscope.study import ENDED, Importance, Metric, Runs, Summary, metric_of, setting_in_words, summary_of

SHOWN = ("val_accuracy", "test_accuracy", "train_accuracy", "val_loss", "test_loss", "train_loss")
"""Figures of the table, as far as the runs have them."""
_FAR = 3.0
_NO_SETTING = "all runs"


@dataclass(frozen=True, eq=False)
class SettingGroup:
    """The runs of equal settings, which differ in their seed alone.

    Attributes:
        label: the settings in short, "width 18, rate 0.01".
        values: of each setting, by dotted key.
        runs: rows of the table: those that came to their end; of copies that are the same to the bit, one.
        not_finished: how many did not.
        overlap: of folds, see `overlap_of`.
    """

    label: str
    values: dict[str, Any]
    runs: pd.DataFrame
    not_finished: int
    overlap: float = 0.0

    def summary(self, metric: str) -> Summary:
        """Mean, interval and number of a metric over the runs; the interval stays within what the metric can be."""
        return summary_of(metric, self.runs[metric].astype(float).tolist(), self.overlap)


class StudyResults:
    """The runs below a folder, with what several parts of the report ask for.

    Attributes:
        metric: what settings are compared by and chosen by.
        shown: the figures of the table; test figures only where runs have them.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.settings = runs.settings
        self.metric: Metric = metric_of(runs.folder)
        self.shown = tuple(Metric(name) for name in SHOWN if name in runs.metrics)
        self.rows = runs.rows([one.name for one in self.shown])

    @cached_property
    def ended(self) -> pd.DataFrame:
        """Rows of the runs that came to their end, copies of others left out."""
        return self.rows[self.runs.counted]

    @cached_property
    def groups(self) -> list[SettingGroup]:
        """In the order of the settings' values."""
        groups = []
        for values, members in self.runs.groups(self.settings):
            rows = self.rows.iloc[members]
            missing, overlap = int((~rows.state.isin(ENDED)).sum()), self.runs.overlap(members)
            groups.append(SettingGroup(self.label(values), values, rows[self.runs.counted[members]], missing, overlap))
        return groups

    def label(self, values: dict[str, Any]) -> str:
        """Some settings in short."""
        return ", ".join(f"{self.short(key)} {value_in_words(value)}" for key, value in values.items()) or _NO_SETTING

    def short(self, key: str) -> str:
        """The last part of a dotted key, where no other setting ends alike."""
        last = key.rpartition(".")[2]
        alike = [other for other in self.settings if other.rpartition(".")[2] == last]
        return key if len(alike) > 1 else last

    @cached_property
    def whole(self) -> list[SettingGroup]:
        """Groups with figures whose runs all came to their end; where there are none, all with figures. The best first.

        A mean over those that are left when others diverged or were pruned would flatter a setting.
        """
        groups = self.by_metric
        return [group for group in groups if not group.not_finished] or groups

    @cached_property
    def by_metric(self) -> list[SettingGroup]:
        """All groups with figures, the best mean first; of equal ones that whose first run comes first."""

        def rank(group: SettingGroup) -> tuple[float, int]:
            return -self.metric.sign * group.summary(self.metric.name).mean.figures[0], int(group.runs.index[0])

        return sorted((group for group in self.groups if group.summary(self.metric.name).n), key=rank)

    @property
    def best(self) -> SettingGroup | None:
        """Chosen on validation."""
        return self.whole[0] if self.whole else None

    @cached_property
    def importance(self) -> Importance | str:
        """Which settings matter for the metric; or why these runs cannot tell."""
        try:
            return self.runs.importance(metrics=[self.metric.name])
        except RequestError as error:
            return str(error)

    @cached_property
    def by_importance(self) -> list[str]:
        """The settings, the most important first."""
        if isinstance(self.importance, str):
            return list(self.settings)
        ranked = [term.settings[0] for term in self.importance.terms if len(term.settings) == 1]
        return ranked + [key for key in self.settings if key not in ranked]

    def by_value(self, key: str) -> dict[Any, pd.DataFrame]:
        """By each value of a setting, in order, the runs that came to their end."""
        groups = self.runs.groups([key])
        return {values[key]: self.ended[self.ended.index.isin(members)] for values, members in groups}


def largest_near(losses: Sequence[float]) -> float:
    """The largest of some losses that is at most three times their median; 1 without any.

    Up to half of the runs may explode, and the scale on which all are drawn stays that of the others.
    """
    finite = np.array([loss for loss in losses if np.isfinite(loss)] or [1.0])
    return float(finite[finite <= _FAR * np.median(finite)].max())


def value_in_words(value: Any) -> str:
    """A setting's value as YAML has it; "–" where a run does not state it."""
    if value is None:
        return "–"
    return setting_in_words(value.item() if isinstance(value, np.generic) else value)
