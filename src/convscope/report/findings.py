"""Findings in words, each said only where its figures carry it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from convscope.data import LINES, DataBundle
from convscope.report.subject import ReportedRun
from convscope.runs import Recipe, Run
from convscope.scans import imbalance_in_words, kept_epoch, of_last_stage, proportion


def findings(subject: ReportedRun) -> list[str]:
    """Sentences about the run, the most important first."""
    recipe, gap = subject.run.spec.recipe, subject.metrics["overfit_percent"]
    imbalance = imbalance_in_words(subject.metrics, recipe)
    # said only where train accuracy is that of the images as they are, and not shown to be above test accuracy
    fit = "" if _other_images(recipe) or gap["low"] > 0.5 else underfitting(subject.run, subject.data)
    sentences = [_accuracy(subject), *imbalance, _overfitting(subject), fit]
    heads = subject.metrics["heads"]
    for target, head in heads.items():
        about = f"{target.capitalize()}: " if len(heads) > 1 else ""
        sentences += [about + s for s in (_classes(head), _confusion(head), _calibration(head)) if s]
    return [sentence for sentence in [*sentences, "" if fit else _course(subject), _data(subject)] if sentence]


def _accuracy(subject: ReportedRun) -> str:
    metrics = subject.metrics
    figure = metrics["accuracy"]
    targets = torch.stack([subject.data.test.targets_of(target) for target in metrics["heads"]])
    most = int(targets.unique(dim=1, return_counts=True)[1].max())
    answer = "class" if len(targets) == 1 else "combination of classes"
    return (
        f"Test accuracy is {_percent(figure)} on {metrics['images']:,} images; "
        f"always predicting the most frequent {answer} would give {100 * most / metrics['images']:.1f} %."
    )


def _overfitting(subject: ReportedRun) -> str:
    recipe = subject.run.spec.recipe
    if images := _other_images(recipe):
        return f"Train accuracy is that of {images}: its difference from test accuracy does not show overfitting."
    gap = subject.metrics["overfit_percent"]
    if gap["low"] > 0.5:
        degree = "overfits" if gap["value"] > 5 else "overfits a little"
        return (
            f"The network {degree}: train accuracy is {gap['value']:.1f} points above test accuracy "
            f"(95 % interval {gap['low']:.1f} to {gap['high']:.1f})."
        )
    if gap["high"] < -0.5:
        used = {
            "augmentation makes the training images harder, ": any(
                not part.augmentation.is_off for part in recipe.parts
            ),
            "dropout leaves out units, ": any(layer.kind == "dropout" for layer in subject.anatomy.layers),
        }
        why = "".join(words for words, is_used in used.items() if is_used)
        return (
            f"Test accuracy is {-gap['value']:.1f} points above train accuracy: {why}{'and ' * bool(why)}the running average "
            "includes earlier weights."
        )
    told = "There is no sign of overfitting" if gap["high"] <= 5 else "Whether the network overfits cannot be told"
    value, low, high = (f"{gap[key]:z.1f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{told}: train accuracy less test accuracy is {value} points (95 % interval {low} to {high})."


def _other_images(recipe: Recipe) -> str:
    """Of which images train accuracy is, where these are not the training images as they are."""
    if recipe.mixup or recipe.cutmix:
        return "training images that are mixed in pairs"
    return "class-balanced draws of the training images" if recipe.sampling == "balanced" else ""


def _classes(head: dict[str, Any]) -> str:
    """Names the extremes only where their intervals stay apart when widened for having looked at all classes."""
    rows = [row for row in head["per_class"] if row["images"]]
    if len(rows) < 2 or all(row["recall"]["value"] == 1 for row in rows):
        return ""
    worst, best = (pick(rows, key=lambda row: row["recall"]["value"]) for pick in (min, max))
    low, high = (_widened(row["recall"]["value"], row["images"], len(rows)) for row in (worst, best))
    if low[1] >= high[0]:
        return "The recall of no class differs significantly from that of the others."
    return (
        f"Recall differs between classes: it is lowest for {_name(worst)}, {_percent(worst['recall'])}, "
        f"and highest for {_name(best)}, {_percent(best['recall'])}."
    )


def _widened(share: float, images: int, looks: int) -> tuple[float, float]:
    """The interval of a share of some images, widened for so many looks: at 1 - 0.05 / looks (Bonferroni)."""
    _, low, high = proportion(round(share * images), images, 1 - 0.05 / looks).figures
    return low, high


def _confusion(head: dict[str, Any]) -> str:
    matrix, names = head["confusion"], head["classes"]
    pairs = [(matrix[i][j] + matrix[j][i], i, j) for i in range(len(names)) for j in range(i)]
    wrong = sum(n for n, _, _ in pairs)
    if not wrong:
        return "No test image is misclassified."
    n, i, j = max(pairs, key=lambda pair: pair[0])
    alike = sum(pair[0] == n for pair in pairs)
    if alike > 1:
        return (
            f"{alike:,} pairs of classes are confused most often, {_times(n)} each; there are {wrong:,} errors in all."
        )
    if matrix[j][i] > matrix[i][j]:
        i, j = j, i
    one, other = f"“{names[i]}”", f"“{names[j]}”"
    pair = f"{one} was predicted as {other} {_times(matrix[i][j])}, {other} as {one} {_times(matrix[j][i])}"
    if len(names) == 2:
        return f"{pair}."
    if wrong == 1:
        return f"One test image is misclassified: {one} was predicted as {other}."
    return f"The most confused pair: {pair}; together {100 * n / wrong:.0f} % of {wrong:,} errors."


def _calibration(head: dict[str, Any]) -> str:
    error, bins = head["calibration_error"], head["reliability"]
    images = sum(b["images"] for b in bins)
    confidence, accuracy = (sum(b["images"] * b[key] for b in bins) / images for key in ("confidence", "accuracy"))
    figure, bias = f"the calibration error is {100 * error['value']:.1f} points", confidence - accuracy
    if error["high"] < 0.02:
        return f"The probabilities are well calibrated: {figure}."
    if _apart(confidence, accuracy, images) and abs(bias) >= 0.5 * error["value"]:
        return f"The network is {'over' if bias > 0 else 'under'}confident: {figure}."
    if any(_apart(b["confidence"], b["accuracy"], b["images"], len(bins)) for b in bins):
        return f"The probabilities are not calibrated: {figure}."
    return f"Whether the probabilities are calibrated cannot be told from {images:,} test image{'s' * (images > 1)}: {figure}."


def _apart(confidence: float, accuracy: float, images: int, looks: int = 1) -> bool:
    """Whether a confidence lies outside the interval of the accuracy."""
    low, high = _widened(accuracy, images, looks)
    return not low <= confidence <= high


def _course(subject: ReportedRun) -> str:
    history, recipe = subject.run.history, subject.run.spec.recipe.parts[-1]
    rows = of_last_stage(history)
    losses = rows["val_loss"]
    best = int(losses.argmin())
    if len(rows) < 3 or recipe.patience is not None:
        return ""
    if best <= len(rows) - 3 and losses.iloc[-1] > 1.05 * losses.iloc[best]:
        course = (
            f"The validation loss was lowest in epoch {rows['epoch'].iloc[best]} of {len(history)} and rose afterwards"
        )
        before, after = (100 * rows["val_accuracy"].iloc[place] for place in (best, -1))
        if after > before:
            return f"{course}, while validation accuracy went from {before:.1f} to {after:.1f} %."
        return f"{course}: patience would have helped."
    anneals = recipe.schedule in {"one-cycle", "cosine"}  # there the loss falls to the end, whatever the length
    if losses.iloc[-1] < 0.97 * losses.iloc[-2] and not anneals:
        return "The validation loss was still falling when the training ended: more epochs may help."
    return ""


def _data(subject: ReportedRun) -> str:
    left_out = {
        "training image{} with the pixels of a test image": subject.data.duplicates,
        "file{} that could not be read": len(subject.data.left_out),
    }
    notes = [f"{n:,} {what.format('s' * (n > 1))}" for what, n in left_out.items() if n]
    return f"Left out of the data: {' and '.join(notes)}." if notes else ""


def _name(row: dict[str, Any]) -> str:
    return f"“{row['class']}”"


def _percent(figure: dict[str, float]) -> str:
    digits = 2 if figure["high"] - figure["low"] < 0.005 else 1
    value, low, high = (f"{100 * figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} % ({low} to {high})"


def _times(n: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n:,} times")


_LOW, _CLOSE = 0.9, 0.05
_FALLS = 0.97  # times the loss of the epoch before, or less
_FEW_STEPS = 10  # in an epoch


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
    sentence = f"The network underfits: train accuracy is {100 * train:.1f} %, validation accuracy {100 * val:.1f} %"
    steps = "; ".join(_advice(run, data))
    return f"{sentence}. Try, in this order: {steps}." if steps else f"{sentence}."


def _advice(run: Run, data: DataBundle) -> Iterator[str]:
    """What to try against underfitting, the first first."""
    images, is_pretrained = min(run.spec.recipe.batch, len(data.train)), bool(run.spec.net.options.get("pretrained"))
    steps = len(data.train) // images
    if steps < _FEW_STEPS:
        yield f"a smaller recipe.batch (an epoch has {steps} step{'s' if steps > 1 else ''} of {images:,} images)"
    if longer := _longer(run):
        yield longer
    if not is_pretrained:
        yield f"a wider network (this one has {run.environment['parameters']:,} parameters)"
    # photographs and other images in colour are what the weights of most libraries were trained on
    in_colour = data.spec.source != LINES and data.input_shape[0] == 3 and not data.repeats_grey
    if in_colour and not is_pretrained:
        yield f"a pretrained network (there are {len(data.train):,} training images in colour)"
    side = min(data.input_shape[1:])
    if data.own_side is not None and data.own_side > side:
        yield f"a larger data.image_size (it is {side}, the median shorter side of the images {data.own_side} px)"


def _longer(run: Run) -> str:
    """More epochs, where the training loss fell to the end; of a schedule that anneals, until the rate was below half its peak.

    While a rate is annealed the loss falls however long the training is.
    """
    rows, recipe = of_last_stage(run.history), run.spec.recipe.parts[-1]
    if len(rows) < recipe.epochs:  # patience ended it
        return ""
    if len(rows) == 1:
        return "more epochs (there was only one)"
    high = rows["rate"] >= 0.5 * rows["rate"].max()
    losses = rows["train_loss"][: int(high.to_numpy().nonzero()[0][-1]) + 1]
    if len(losses) < 2 or losses.iloc[-1] > _FALLS * losses.iloc[-2]:
        return ""
    annealed = "" if len(losses) == len(rows) else " before the rate was annealed"
    return f"more epochs (the training loss was still falling{annealed})"
