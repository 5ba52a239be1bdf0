"""Whether a trained run underfits, in words, and what to try next: each only where the run's figures carry it."""

from __future__ import annotations

import pandas as pd

from convscope.data import LINES, DataBundle
from convscope.runs import Run
from convscope.scans import kept_epoch

_LOW, _CLOSE = 0.9, 0.05
_FALLS = 0.97  # times the loss of the epoch before, or less


def underfitting(run: Run, data: DataBundle) -> str:
    """A sentence on a run that underfits and what to try next, in order; '' for all others.

    A run underfits whose accuracy is below 90 % on the training images and on the validation images, and on the training
    images by at most 5 points above that on the validation images, both at the epoch whose weights were kept.

    Args:
        run: trained; its history, spec and number of parameters are looked at.
        data: of the run.
    """
    row = kept_epoch(run)
    train, val = float(row["train_accuracy"]), float(row["val_accuracy"])
    if max(train, val) >= _LOW or train - val > _CLOSE:
        return ""
    steps = [step for step in (_longer(run), _wider(run), _pretrained(run, data), _larger(data)) if step]
    said = f"The network underfits: train accuracy is {100 * train:.1f} %, validation accuracy {100 * val:.1f} %"
    return f"{said}. Try, in this order: {'; '.join(steps)}." if steps else f"{said}."


def _longer(run: Run) -> str:
    """More epochs, where the training loss fell to the end; of a schedule that anneals, until the rate was below half its peak.

    While a rate is annealed the loss falls however long the training is.
    """
    rows, recipe = run.history, run.spec.recipe.parts[-1]
    if "stage" in rows:
        rows = rows[rows["stage"] == rows["stage"].iloc[-1]]
    if len(rows) < recipe.epochs:  # patience ended it
        return ""
    if len(rows) == 1:
        return "more epochs (there was only one)"
    high = rows["rate"] >= 0.5 * rows["rate"].max()
    losses = rows["train_loss"][: _last(high) + 1]
    if len(losses) < 2 or losses.iloc[-1] > _FALLS * losses.iloc[-2]:
        return ""
    annealed = "" if len(losses) == len(rows) else " before the rate was annealed"
    return f"more epochs (the training loss was still falling{annealed})"


def _last(chosen: pd.Series) -> int:
    """The place of the last row that is chosen."""
    return int(chosen.to_numpy().nonzero()[0][-1])


def _wider(run: Run) -> str:
    if _is_pretrained(run):
        return ""
    return f"a wider network (this one has {run.environment['parameters']:,} parameters)"


def _pretrained(run: Run, data: DataBundle) -> str:
    """For photographs and other images in colour: what the weights of most libraries were trained on."""
    if _is_pretrained(run) or data.spec.source == LINES or data.input_shape[0] != 3 or data.repeats_grey:
        return ""
    return f"a pretrained network (there are {len(data.train):,} training images in colour)"


def _is_pretrained(run: Run) -> bool:
    return bool(run.spec.net.options.get("pretrained"))


def _larger(data: DataBundle) -> str:
    side = min(data.input_shape[1:])
    if data.own_side is None or data.own_side <= side:
        return ""
    return f"a larger data.image_size (it is {side}, the median shorter side of the images {data.own_side} px)"
