"""A comparison as one picture: sheets of the images that only one run gets right, and how confusion differs."""

from __future__ import annotations

import numpy as np
import torch

from convscope.data import ImageSet
from convscope.draw import Picture, chart_picture, moved, panel, picture, png
from convscope.study import Compared, ComparedRun

_MOST, _COLUMNS, _SIDE = 18, 6, 112
_LETTERS = 24  # below an image; with longer names there are fewer in a row


def comparison_picture(compared: Compared, images: ImageSet) -> bytes:
    """A PNG file: for each run a sheet, then the confusion matrix of the first less that of the second, head by head."""
    only = compared.only_right()
    sheets = [_sheet(compared, run, images, only[run.name].tolist()) for run in compared.runs]
    a, b = compared.names[:2]
    for target, change in compared.confusion_change().items():
        head = compared.runs[0].run.metrics["heads"][target]
        about = f" about {target}" if len(compared.runs[0].run.task.heads) > 1 else ""
        chart = chart_picture(moved(change.tolist(), head["classes"]))
        sheets.append(panel([("", chart)], f"confusion matrix{about}: images of {a} less those of {b}", side=1))
    return png(_stacked(sheets))


def _sheet(compared: Compared, run: ComparedRun, images: ImageSet, rows: list[int]) -> Picture:
    heading = f"only {run.name} is right: {len(rows):,} of {len(images):,} test images"
    if not rows:
        return panel([("", picture(torch.ones(3, 1, 1)))], heading, side=1)
    others = [other for other in compared.runs if other is not run]
    parts = []
    for row in rows[:_MOST]:
        said = ", ".join(dict.fromkeys(other.named(other.answers.predicted[row]) for other in others))
        line = f"{run.named(run.answers.true[row])}, not {said}"
        parts.append((line, picture(images[row][0])))
    columns = _COLUMNS if max(len(line) for line, _ in parts) <= _LETTERS else _COLUMNS // 2
    shown = f"the {_MOST} clearest; " if len(rows) > _MOST else ""
    note = f"{shown}below each its class, and what the other{'s say' if len(others) > 1 else ' says'}"
    return panel(parts, heading, side=_SIDE, columns=columns, note=note)


def _stacked(sheets: list[Picture]) -> Picture:
    width = max(one.shape[1] for one in sheets)
    return np.concatenate(
        [np.pad(one, ((0, 12), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in sheets]
    )
