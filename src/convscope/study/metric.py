"""`Metric`: a figure that settings are compared by; which way is better, and how it is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from convscope.base.bounded import load_yaml, settings_text
from convscope.errors import SettingError, shortened
from convscope.scans import Estimate
from convscope.study.statistics import Summary, summary

CHOSEN_BY = ("val_accuracy", "val_loss")
"""What a study may choose its best setting by; the first unless it says otherwise."""

SHARES = ("accuracy", "top5", "precision", "recall", "f1", "calibration_error")
"""Endings of the names of figures that are shares, from 0 to 1."""

_STUDY = "study.yaml"
_IMAGES = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Metric:
    """An accuracy or a loss.

    Attributes:
        name: its column: images and measure, such as "val_loss".

    Example:
        >>> Metric("val_loss").words, Metric("val_loss").sign, Metric("val_accuracy").written(0.9)
        ('validation loss', -1, '90.00 %')
    """

    name: str

    @property
    def measure(self) -> str:
        """ "accuracy" or "loss"."""
        return self.name.rpartition("_")[2]

    @property
    def words(self) -> str:
        """ "validation loss"."""
        return f"{_IMAGES[self.name.partition('_')[0]]} {self.measure}"

    @property
    def unit(self) -> str:
        """ "%" or "nats"."""
        return "%" if self.is_share else "nats"

    @property
    def is_share(self) -> bool:
        """Whether it is written in percent: an accuracy, not a loss."""
        return {"accuracy": True, "loss": False}[self.measure]

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.is_share else -1

    @property
    def best(self) -> str:
        """ "highest" or "lowest"."""
        return "highest" if self.is_share else "lowest"

    def gain(self, change: Estimate) -> Estimate:
        """A change of the metric, turned so that more is better."""
        return change.scaled(self.sign)

    def written(self, value: float | None, digits: int | None = None) -> str:
        """ "90.00 %" or "0.3456"; "–" for None."""
        if value is None:
            return "–"
        return f"{self.number(value, digits)}{' %' if self.is_share else ''}"

    def number(self, value: float, digits: int | None = None) -> str:
        """The same without its unit."""
        default = 2 if self.is_share else 4
        return f"{(100 if self.is_share else 1) * value:.{default if digits is None else digits}f}"

    def interval(self, found: Estimate, digits: int | None = None) -> str:
        """ "88.1 to 91.9"; nothing without limits."""
        if found.low is None or found.high is None:
            return ""
        return f"{self.number(found.low, digits)} to {self.number(found.high, digits)}"

    def change(self, found: Estimate) -> str:
        """ "+1.2 points (95 %: +0.4 to +2.0)" or "−0.0300 nats"."""
        scale, unit, digits = (100, "points", 1) if self.is_share else (1, "nats", 4)
        figures = [
            f"{scale * figure:+.{digits}f}".replace("-", "−")
            for figure in (found.value, found.low, found.high)
            if figure is not None
        ]
        return f"{figures[0]} {unit}" + (f" (95 %: {figures[1]} to {figures[2]})" if len(figures) == 3 else "")


def metric_of(folder: Path) -> Metric:
    """What the settings of a folder of runs are chosen by: as its study.yaml says, else validation accuracy.

    Raises:
        SettingError: study.yaml cannot be read, or its metric is none to choose by.
    """
    name = _study_of(folder).get("metric", CHOSEN_BY[0])
    if name not in CHOSEN_BY:
        raise SettingError(f"{folder / _STUDY}: metric {name!r}: expected {' or '.join(CHOSEN_BY)}")
    return Metric(name)


def swept_values(folder: Path) -> dict[str, Any]:
    """The keys that a study's runs were asked to differ in, and their values; none where the folder is no study's.

    Raises:
        SettingError: study.yaml cannot be read, or its sweep has no keys.
    """
    sweep = _study_of(folder).get("sweep") or {}
    if not isinstance(sweep, dict):
        raise SettingError(
            f"{folder / _STUDY}: sweep: {shortened(sweep)}: expected keys with a list of values each, "
            "such as net.width: [6, 12]"
        )
    return sweep


def _study_of(folder: Path) -> dict[str, Any]:
    """The mapping in a folder's study.yaml, unchecked; an empty one where there is none."""
    path = folder / _STUDY
    try:  # not by runs.parse_mapping, which would load PyTorch for a table
        study = load_yaml(settings_text(path)) if path.is_file() else None
    except yaml.YAMLError as error:
        raise SettingError(f"{path}: this is no YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise SettingError(f"{path} cannot be read: it is no text") from None
    if not isinstance(study, dict | None):
        raise SettingError(f"{path}: expected the keys of a study; found {type(study).__name__}")
    return study or {}


def summary_of(name: str, values: list[float], overlap: float = 0.0) -> Summary:
    """Mean and interval of some runs' values of a metric; Student knows no bounds, so shares end at 0 and 1, all else but
    overfit % at 0. For `overlap` see `overlap_of`."""
    lowest, highest = (-math.inf if name == "overfit_percent" else 0.0), (1.0 if name.endswith(SHARES) else math.inf)
    return summary(values, lowest=lowest, highest=highest, overlap=overlap)
