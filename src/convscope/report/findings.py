"""Findings in words, each said only where its figures carry it."""

from __future__ import annotations

import math
from typing import Any

from convscope.report.subject import Subject


def findings(subject: Subject) -> list[str]:
    """Sentences about the run, the most important first."""
    found = [_accuracy(subject), _overfitting(subject), _classes(subject), _confusion(subject)]
    found += [_calibration(subject), _course(subject), _data(subject)]
    return [sentence for sentence in found if sentence]


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


def _classes(subject: Subject) -> str:
    rows = _first_head(subject)["per_class"]
    if all(row["recall"]["value"] == 1 for row in rows):
        return ""
    worst, best = (pick(rows, key=lambda row: row["recall"]["value"] or 0) for pick in (min, max))
    if worst["recall"]["value"] is None or worst["recall"]["high"] >= best["recall"]["low"]:
        return "No class can be told from the others by how often it is recognised."
    return (
        f"The hardest class is {_name(worst)}, recognised in {_percent(worst['recall'])}; "
        f"the easiest {_name(best)}, in {_percent(best['recall'])}."
    )


def _confusion(subject: Subject) -> str:
    head = _first_head(subject)
    errors = [(n, i, j) for i, row in enumerate(head["confusion"]) for j, n in enumerate(row) if i != j and n > 0]
    if not errors:
        return "No test image was mistaken."
    wrong = sum(n for n, _, _ in errors)
    n, i, j = max(errors, key=lambda error: error[0])
    names = head["classes"]
    back = head["confusion"][j][i]
    return (
        f"Most mistakes between two classes: {names[i]} taken for {names[j]}, {_times(n)}, "
        f"and {_times(back)} the other way round; together {100 * (n + back) / wrong:.0f} % of all {wrong:,} mistakes."
    )


def _calibration(subject: Subject) -> str:
    head = _first_head(subject)
    error = head["calibration_error"]
    images = sum(b["images"] for b in head["reliability"])
    bias = sum(b["images"] * (b["confidence"] - b["accuracy"]) for b in head["reliability"]) / images
    missed = f"miss the share of right answers by {100 * error['value']:.1f} points"
    if error["low"] < 0.01 or abs(bias) < 0.005:
        return f"Its probabilities can be taken at their word: they {missed}."
    kind = "too sure of itself" if bias > 0 else "too modest"
    return f"It is {kind}: its probabilities {missed} on average."


def _course(subject: Subject) -> str:
    history, recipe = subject.run.history, subject.run.spec.recipe
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


def _first_head(subject: Subject) -> dict[str, Any]:
    return next(iter(subject.metrics["heads"].values()))


def _name(row: dict[str, Any]) -> str:
    return f"“{row['class']}”"


def _percent(figure: dict[str, float]) -> str:
    digits = 2 if figure["high"] - figure["low"] < 0.005 else 1
    value, low, high = (f"{100 * figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} % ({low} to {high})"


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n:,} times")
