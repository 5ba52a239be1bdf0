"""The page of a comparison: verdicts, figures as dots and bars, images that only one gets right, confusion; and its picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convscope import __version__
from convscope.data import ImageSet
from convscope.draw import Picture, chart_picture, moved, panel, picture, png
from convscope.errors import RequestError, SettingError
from convscope.report.mistakes import orders
from convscope.report.page import fill, static
from convscope.report.subject import thumbnail
from convscope.runs import write_whole
from convscope.scans import Estimate
from convscope.study import Compared, ComparedRun, setting_in_words, written_p

_SENTENCES = 6
_MOST_ALONE = {2: 24}  # images on the sheet of a run, by how many runs there are
_FEW_ALONE = 12
_OWN_UNIT = {"overfit_percent": 2, "loss": 4}  # figures that are no shares, with the digits they are written with


def write_comparison(compared: Compared, path: Path) -> Path:
    """The path of what was written: a page (.html) that opens offline, or the pictures alone (.png).

    Raises:
        SettingError: the file is to be neither.
        RequestError: pictures are asked for, and the runs did not answer the same test images.
        RunFolderError: the data of the runs has changed.
    """
    check_comparison_file(path)
    images: ImageSet | None = compared.runs[0].run.load_data().test if compared.same_images else None
    if path.suffix == ".html":
        write_whole(path, comparison_page(compared, images))
    elif images is None:
        raise RequestError(
            f"{path}: these runs answered other test images, so there is nothing to show; give an .html file"
        )
    else:
        write_whole(path, comparison_picture(compared, images))
    return path


def check_comparison_file(path: Path) -> None:
    """Says at once what could not be written."""
    if path.suffix not in {".html", ".png"}:
        raise SettingError(f"--out {path}: expected a page, such as compared.html, or a picture, such as compared.png")


def comparison_page(compared: Compared, images: ImageSet | None) -> str:
    """The page's HTML; without pictures where there are no images that all runs answered."""
    return fill(
        "compare.html",
        compared=compared,
        sentences=[pair for pair in compared.pairs if len(compared.pairs) <= _SENTENCES],
        over_seeds=compared.over_seeds,
        settings=[
            (k, [setting_in_words(run.settings.get(k, "–")) for run in compared.runs]) for k in compared.settings
        ],
        panels=_panels(compared),
        groups=_groups(compared),
        pairs=[*compared.over_seeds, *compared.pairs],
        written_p=written_p,
        alone=[] if images is None else _alone(compared, images),
        matrices=[] if images is None else _matrices(compared),
        version=__version__,
        style=static("report.css") + static("compare.css"),
        script=static("tables.js") + static("report.js"),
    )


def _panels(compared: Compared) -> list[dict[str, Any]]:
    """For each figure an axis, and every run's value with its interval on it."""
    panels = []
    for (metric, name), group in compared.figures().groupby(["metric", "name"], sort=False):
        rows = [(row["run"], Estimate(row["value"], row["low"], row["high"]), ()) for row in group.to_dict("records")]
        panels.append(_panel(str(name), rows, _OWN_UNIT.get(str(metric))))
    return panels


def _groups(compared: Compared) -> list[dict[str, Any]]:
    """The same for means over seeds, with each seed's value; none where no group has several."""
    if all(len(group.values) < 2 for group in compared.groups):
        return []
    figures = {
        "validation accuracy": [(g.label, g.val_accuracy.mean, tuple(g.val.values())) for g in compared.groups],
        "test accuracy": [(g.label, g.accuracy.mean, tuple(g.values.values())) for g in compared.groups],
    }
    return [_panel(name, rows) for name, rows in figures.items()]


def _panel(
    name: str, rows: Iterable[tuple[str, Estimate, tuple[float, ...]]], own_digits: int | None = None
) -> dict[str, Any]:
    """Places on an axis as shares of its length, and what is written beside them.

    Args:
        rows: who, what, and single values that lie behind it.
        own_digits: of figures that are no shares; shares are written in percent.
    """
    scale, unit, digits = (100, " %", 2) if own_digits is None else (1, "", own_digits)
    scaled = [(who, one.scaled(scale), [scale * v for v in single]) for who, one, single in rows]
    values = [
        v for _, one, single in scaled for v in (one.value, one.low, one.high, *single) if v is not None and v == v
    ]
    ticks = axis_ticks(min(values), max(values))
    low, high = min(ticks[0], *values), max(ticks[-1], *values)
    coarse = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))

    def at(value: float) -> float:
        return round((value - low) / (high - low), 5)

    panel_rows = []
    for who, one, single in scaled:
        is_bounded = one.low is not None and one.high is not None and one.low == one.low
        bounds = one.figures[1:] if is_bounded else ()
        panel_rows.append({
            "who": who, "at": at(one.figures[0]), "single": [at(v) for v in single], "interval": [at(v) for v in bounds],
            "value": f"{_written(one.figures[0], digits)}{unit}",
            "limits": " to ".join(_written(v, digits) for v in bounds),
        })  # fmt: skip
    return {"name": name, "ticks": [(at(tick), _written(tick, coarse)) for tick in ticks], "rows": panel_rows}


def _written(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", "−")


def axis_ticks(low: float, high: float) -> list[float]:
    """About five round numbers, 1, 2 or 5 times a power of ten apart, from at or below `low` to at or above `high`."""
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * n for n in (1, 2, 5, 10) if 4 * power * n >= high - low - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * n for n in range(first, last + 1)]


def _alone(compared: Compared, images: ImageSet) -> list[dict[str, Any]]:
    """For each run the images that it alone gets right, the clearest first, with what the others answer."""
    most = _MOST_ALONE.get(len(compared.runs), _FEW_ALONE)
    only = compared.only_right()
    return [
        {
            "name": run.name,
            "n": len(only[run.name]),
            "images": [
                {
                    "called": images.called(row),
                    "picture": thumbnail(images, row),
                    "true": run.named(run.answers.true[row]),
                    "probability": float(run.answers.probability[row]),
                    "others": _others_said([other for other in compared.runs if other is not run], row),
                }
                for row in map(int, only[run.name][:most])
            ],
        }
        for run in compared.runs
    ]


def _others_said(others: list[ComparedRun], row: int) -> list[str]:
    """The other's answer with its probability; of several, each answer with how many give it, the most frequent first."""
    answers = [other.named(other.answers.predicted[row]) for other in others]
    if len(others) == 1:
        return [f"{answers[0]} {100 * float(others[0].answers.probability[row]):.0f} %"]
    return [f"{answer} ({n})" for answer, n in Counter(answers).most_common()]


def _matrices(compared: Compared) -> list[dict[str, Any]]:
    """For each head: the first run's matrix less each other's, and every run's own."""
    matrices = []
    for target, head in compared.runs[0].run.metrics["heads"].items():
        own = {run.name: run.run.metrics["heads"][target]["confusion"] for run in compared.runs}
        first = compared.runs[0].name
        views: dict[str, Any] = {
            f"{first} less {run.name}": {
                "matrix": compared.confusion_change(0, place)[target].tolist(), "of": [first, run.name],
            }
            for place, run in enumerate(compared.runs[1:], start=1)
        }  # fmt: skip
        views |= {f"{name} alone": {"matrix": matrix, "of": [name]} for name, matrix in own.items()}
        matrices.append({
            "target": target, "classes": head["classes"], "own": own, "views": views, "orders": orders(head["confusion"]),
            **next(iter(views.values())),
        })  # fmt: skip
    return matrices


_SHEET_MOST, _SHEET_COLUMNS, _SHEET_SIDE = 18, 6, 112
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
    width = max(one.shape[1] for one in sheets)
    padded = [np.pad(one, ((0, 12), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in sheets]
    return png(np.concatenate(padded))


def _sheet(compared: Compared, run: ComparedRun, images: ImageSet, rows: list[int]) -> Picture:
    heading = f"only {run.name} is right: {len(rows):,} of {len(images):,} test images"
    if not rows:
        return panel([("", picture(torch.ones(3, 1, 1)))], heading, side=1)
    others = [other for other in compared.runs if other is not run]
    parts = []
    for row in rows[:_SHEET_MOST]:
        answers = ", ".join(dict.fromkeys(other.named(other.answers.predicted[row]) for other in others))
        line = f"{run.named(run.answers.true[row])}, not {answers}"
        parts.append((line, picture(images[row][0])))
    columns = _SHEET_COLUMNS if max(len(line) for line, _ in parts) <= _LETTERS else _SHEET_COLUMNS // 2
    selection = f"the {_SHEET_MOST} clearest; " if len(rows) > _SHEET_MOST else ""
    note = f"{selection}below each its class, and what the other{'s say' if len(others) > 1 else ' says'}"
    return panel(parts, heading, side=_SHEET_SIDE, columns=columns, note=note)
