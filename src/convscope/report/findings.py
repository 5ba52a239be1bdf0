"""Findings in words, each said only where its figures carry it."""

from __future__ import annotations

import math
from typing import Any

from convscope.report.subject import Subject
from convscope.scans import proportion


def findings(subject: Subject) -> list[str]:
    """Sentences about the run, the most important first."""
    found = [_accuracy(subject), _overfitting(subject)]
    heads = subject.metrics["heads"]
    for target, head in heads.items():
        about = f"{target.capitalize()}: " if len(heads) > 1 else ""
        found += [about + s for s in (_classes(head), _confusion(head), _calibration(head)) if s]
    return [sentence for sentence in [*found, _course(subject), _data(subject)] if sentence]


def _accuracy(subject: Subject) -> str:
    metrics = subject.metrics
    figure = metrics["accuracy"]
    chance = math.prod(max(map(sum, head["confusion"])) / metrics["images"] for head in metrics["heads"].values())
    return (
        f"The network is right on {_percent(figure)} of {metrics['images']:,} test images it never saw; "
        f"always naming the most frequent class would be right on {100 * chance:.1f} %."
    )


def _overfitting(subject: Subject) -> str:
    gap = subject.metrics["overfit_percent"]
    if gap["low"] > 0.5:
        much = "It overfits" if gap["value"] > 5 else "It overfits a little"
        return (
            f"{much}: while training it was right {gap['value']:.1f} points more often than on the test images "
            f"(95 % interval {gap['low']:.1f} to {gap['high']:.1f})."
        )
    if gap["high"] < -0.5:
        return (
            f"It does better on the test images than it did while training, by {-gap['value']:.1f} points: augmentation and "
            "dropout make the training images harder, and the running average includes earlier weights."
        )
    return f"There is no sign of overfitting: train and test accuracy differ by {gap['value']:.1f} points."


def _classes(head: dict[str, Any]) -> str:
    """Names the extremes only where their intervals stay apart when widened for having looked at all classes."""
    rows = [row for row in head["per_class"] if row["images"]]
    if all(row["recall"]["value"] == 1 for row in rows):
        return ""
    worst, best = (pick(rows, key=lambda row: row["recall"]["value"]) for pick in (min, max))
    high, low = (_widened(row, len(rows)) for row in (worst, best))
    if high[1] >= low[0]:
        return "No class can be told from the others by how often it is recognised."
    return (
        f"Classes differ: {_name(worst)} is recognised least, in {_percent(worst['recall'])}; "
        f"{_name(best)} most, in {_percent(best['recall'])}."
    )


def _widened(row: dict[str, Any], classes: int) -> tuple[float, float]:
    """The interval of a class's recall at 1 - 0.05 / classes (Bonferroni)."""
    right = round(row["recall"]["value"] * row["images"])
    _, low, high = proportion(right, row["images"], 1 - 0.05 / classes).figures
    return low, high


def _confusion(head: dict[str, Any]) -> str:
    matrix, names = head["confusion"], head["classes"]
    pairs = [(matrix[i][j] + matrix[j][i], i, j) for i in range(len(names)) for j in range(i)]
    wrong = sum(n for n, _, _ in pairs)
    if not wrong:
        return "No test image was mistaken."
    n, i, j = max(pairs, key=lambda pair: pair[0])
    if matrix[j][i] > matrix[i][j]:
        i, j = j, i
    if len(names) == 2:
        return (
            f"{names[i]} was taken for {names[j]} {_times(matrix[i][j])}, the other way round {_times(matrix[j][i])}."
        )
    return (
        f"Most mistakes between two classes: {names[i]} taken for {names[j]}, {_times(matrix[i][j])}, "
        f"and {_times(matrix[j][i])} the other way round; together {100 * n / wrong:.0f} % of all {wrong:,} mistakes."
    )


def _calibration(head: dict[str, Any]) -> str:
    error = head["calibration_error"]
    images = sum(b["images"] for b in head["reliability"])
    bias = sum(b["images"] * (b["confidence"] - b["accuracy"]) for b in head["reliability"]) / images
    missed = f"miss the share of right answers by {100 * error['value']:.1f} points"
    if error["high"] < 0.02:
        return f"Its probabilities can be taken at their word: they {missed}."
    if abs(bias) < 0.5 * error["value"]:
        return f"Its probabilities are off in both directions: they {missed} on average."
    kind = "too sure of itself" if bias > 0 else "too modest"
    return f"It is {kind}: its probabilities {missed} on average."


def _course(subject: Subject) -> str:
    history, recipe = subject.run.history, subject.run.spec.recipe.parts[-1]
    losses = history["val_loss"]
    best = int(losses.argmin())
    if len(history) >= 3 and best <= len(history) - 3 and losses.iloc[-1] > 1.05 * losses.iloc[best]:
        course = f"was lowest in epoch {best + 1} of {len(history)} and rose afterwards"
        return f"The validation loss {course}: patience would have helped."
    anneals = recipe.schedule in {"one-cycle", "cosine"}  # there the loss falls to the end, whatever the length
    if len(history) >= 3 and losses.iloc[-1] < 0.97 * losses.iloc[-2] and recipe.patience is None and not anneals:
        return "The validation loss was still falling when the training ended: more epochs may help."
    return ""


def _data(subject: Subject) -> str:
    data, notes = subject.data, []
    if data.duplicates:
        notes.append(f"{data.duplicates:,} training images whose pixels equal those of a test image were left out")
    if data.left_out:
        notes.append(f"{len(data.left_out):,} files could not be read and were left out")
    return f"Of the data, {' and '.join(notes)}." if notes else ""


def _name(row: dict[str, Any]) -> str:
    return f"“{row['class']}”"


def _percent(figure: dict[str, float]) -> str:
    digits = 2 if figure["high"] - figure["low"] < 0.005 else 1
    value, low, high = (f"{100 * figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} % ({low} to {high})"


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n:,} times")
