"""Runs of a study that came to their end and never left chance."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from convscope.report.study_results import ENDED, StudyResults
from convscope.runs import ENVIRONMENT, METRICS, object_in
from convscope.scans import proportion

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
    found = results.rows[["run", "state", "val_accuracy", "val_loss"]].to_dict("records")
    return np.array([row["state"] in ENDED and _at_chance(results.runs.folder, row) for row in found], bool)


def _at_chance(folder: Path, row: dict[Hashable, Any]) -> bool:
    chance, accuracy, loss = chance_of(folder / row["run"]), float(row["val_accuracy"]), float(row["val_loss"])
    if chance is None or not np.isfinite([accuracy, loss]).all():
        return False
    found = proportion(round(accuracy * chance.n_val), chance.n_val)
    return found.figures[1] <= chance.accuracy and loss >= _NEAR * chance.loss


def chance_of(run: Path) -> Chance | None:
    """What guessing comes to for a run of one question; the classes are as frequent as among its test images."""
    metrics, environment = object_in(run / METRICS), object_in(run / ENVIRONMENT)
    try:
        [head], n_val = metrics["heads"].values(), int(environment["data"]["images"]["val"])
        counts = np.array([sum(row) for row in head["confusion"]], np.float64)
        is_one = head["kind"] == "softmax"
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if not is_one or not n_val or not counts.sum():
        return None
    shares = counts[counts > 0] / counts.sum()
    return Chance(float(shares.max()), -math.fsum(shares * np.log(shares)), n_val)
