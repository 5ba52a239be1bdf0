"""`evaluate`: the test images, looked at once; what comes out is kept in the run folder. And what a review leaves of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from convscope.base.console import progress_bar
from convscope.base.words import shape_text
from convscope.compute import Executor, choose_device, evaluation_batch, executor_in_use, value_of
from convscope.data import DataBundle, ImageSet, Normalizer, batches, check_bundle
from convscope.errors import ReadOnlyError, RequestError, RunFolderError, shortened
from convscope.nets import Head, Task
from convscope.runs import (
    ANSWERS,
    METRICS,
    MODEL,
    PREDICTIONS,
    Run,
    RunOrFolder,
    moved,
    open_run,
    read_review,
    read_tensors,
)
from convscope.scans.intervals import UNDEFINED, Estimate, difference, f_score, mean_over_classes, proportion
from convscope.scans.metrics import AllRight, Calibration, Confusion, Loss, Predictions, TopK
from convscope.scans.scan import BatchOutputs, Scan, checked, feed, feed_stored, merge_parts


def evaluate(run: RunOrFolder, data: DataBundle | None = None, device: str = "auto") -> dict[str, Any]:
    """The metrics of a run on its test images, each with a 95 % interval; also kept as metrics.json.

    The answer to each image stands in predictions.parquet, for other tools.

    Of a run in a read-only folder nothing is kept but in `run` itself.

    The network sees the test images once: its predictions are stored, and used again as long as weights and data are the same.

    Args:
        run: a trained run, or its folder.
        data: its data set, loaded where not given.
        device: see convscope.compute.choose_device.
    Returns:
        `split`, `images`; `loss` (nats), `accuracy` (every head right), `overfit_percent` (100 × (train - test accuracy));
        of the first head `top5`, `precision`, `recall`, `f1` (means over classes) and `calibration_error`; and `heads`, with
        the same for each head, a row a class, the confusion matrix (rows true, columns predicted), `most_frequent`, the
        class with the most test images and their share, which always predicting it would get right, and `train_images` of
        each class.
        A figure is {"value", "low", "high"}, all null where it is not defined. A mean over classes is one over the classes
        that have the figure (recall: with test images; precision: ever predicted; F1: either), and `left_out` says how many
        have not; see `mean_over_classes`. With `sampling: balanced` the train accuracy is over other shares of the classes
        than the test accuracy, and their difference shows no overfitting.
    Raises:
        RunFolderError: the training is not finished, or the data has changed.
        RequestError: other data was given, of other classes or of another shape.
        FailedError: the network answers with NaN or infinity.
    """
    run = open_run(run)
    data = run.load_data() if data is None else data
    check_bundle(data)
    if data.digest != run.environment["data"]["digest"]:
        _check_alike(run, data)
    loss, right = Loss(run.task.heads), AllRight(run.task)
    of_heads = [_scans_of(head) for head in run.task.heads]
    scans: list[Scan] = [loss, right, *(each for by_name in of_heads for each in by_name.values())]
    key = {"model": _digest(run), "data": data.digest, "split": "test"}
    stored = _stored(run, key)
    if stored is None:
        predictions = Predictions(run.task)
        feed_set(run, data.test, [predictions, *scans], device)
        tensors = predictions.result()
        with suppress(OSError):  # so that after a kill none of earlier images stay beside the new predictions
            (run.path / ANSWERS).unlink()
        with _kept_in_memory(run, "predictions", tensors):
            run.write_tensors(PREDICTIONS, tensors, key)
    else:
        run.__dict__.pop("predictions", None)
        feed_stored(stored, scans)
    if stored is None or not run.has(ANSWERS):
        with suppress(ReadOnlyError):
            run.write_table(ANSWERS, _answers(run.task, run.predictions, data.test))
    heads = {
        head.target: _summary_of_head(head, by_name, class_counts(data.train, head))
        for head, by_name in zip(run.task.heads, of_heads, strict=True)
    }
    metrics = {"split": "test", "images": len(data.test), **_summary(run, loss.result(), right.result(), heads)}
    with _kept_in_memory(run, "metrics", metrics):
        run.write_json(METRICS, metrics)
    return metrics


def _check_alike(run: Run, data: DataBundle) -> None:
    """Refuses images of other classes, whose numbers would mean others of the run's, or of another shape."""
    for head in run.task.heads:
        if (classes := data.test.classes.get(head.target)) != head.classes:
            raise RequestError(
                f"{data.name}: its classes of {head.target!r} are {shortened(classes)}, and {run.path} knows "
                f"{shortened(head.classes)}; evaluate images of the same classes, in the same order"
            )
    if data.input_shape != run.input_shape:
        theirs, own = (shape_text(shape) for shape in (data.input_shape, run.input_shape))
        raise RequestError(f"{data.name}: its images are {theirs}, and {run.path} takes {own}; load them in that shape")


def feed_set(run: Run, images: ImageSet, scans: Sequence[Scan], device: str = "auto") -> None:
    """Shows a run's outputs for all images of a set to scans.

    Raises:
        FailedError: the network answers with NaN or infinity.
    """
    size = evaluation_batch(run.input_shape, choose_device(device), run.spec.recipe.batch)
    executor = executor_in_use()
    if executor is None or not executor.is_remote:
        executor = Executor()
    else:
        device = "auto"  # a node has devices of its own
        run.net, run.card, run.spec  # noqa: B018 (so that they travel, and no folder is needed there)
    work = partial(_fed, executor.put(images), executor.put(run), list(scans), size, device)
    steps = range(-(-len(images) // size))
    with progress_bar("evaluating", len(images)) as advance:
        parts = executor.map_partitions(work, steps, lambda n: advance(min(size, len(images) - n * size)))
    merge_parts(scans, parts)


def _fed(images: Any, run: Any, scans: list[Scan], size: int, device: str, steps: Iterator[int]) -> list[Scan]:
    """The scans after they have seen the batches of these numbers, which follow one another; here, or on a node."""
    if (first := next(steps, None)) is None:
        return scans
    run, where = value_of(run), choose_device(device)
    mean, std = run.normalization
    normalize = Normalizer(mean, std, where)
    of_steps = batches(value_of(images), size, device=where, first_step=first)
    # the numbers are drawn one at a time, so that the progress bar behind them follows the work
    source = (batch for _, batch in zip(chain([first], steps), of_steps, strict=False))
    with moved(run.net, where) as net:
        feed(net, lambda images: (net(normalize(images)), {}), source, scans, lambda n: None)
    return scans


def _answers(task: Task, predictions: dict[str, Tensor], images: ImageSet) -> pd.DataFrame:
    """A row a test image: `split`, `name`, and for each head its `target`, `predicted` class and `p(CLASS)`; of several heads
    these begin with the head's target."""
    columns: dict[str, Any] = {"split": "test", "name": [images.name(i) for i in range(len(images))]}
    for head in task.heads:
        prefix, class_prefix = (f"{head.target} ", f"{head.target}=") if len(task.heads) > 1 else ("", "")
        probabilities = head.probabilities(predictions["logits"].float())
        for name, places in (("target", predictions[f"target.{head.target}"]), ("predicted", probabilities.argmax(1))):
            columns[f"{prefix}{name}"] = pd.Categorical.from_codes(places.tolist(), pd.Index(head.classes))
        columns |= {
            f"p({class_prefix}{class_name})": probabilities[:, k].numpy() for k, class_name in enumerate(head.classes)
        }
    return pd.DataFrame(columns)


@contextmanager
def _kept_in_memory(run: Run, part: str, values: dict[str, Any]) -> Iterator[None]:
    """Forgets what was read of a part before; of a run in a read-only folder the new values are its part from now on."""
    run.__dict__.pop(part, None)
    try:
        yield
    except ReadOnlyError:
        run.__dict__[part] = values


def _digest(run: Run) -> str:
    return hashlib.sha256((run.path / MODEL).read_bytes()).hexdigest() if run.is_trained else ""


def _stored(run: Run, key: dict[str, str]) -> BatchOutputs | None:
    """The predictions of the same weights on the same data, if the run has them."""
    try:
        tensors, card = read_tensors(run.path / PREDICTIONS)
    except RunFolderError:
        return None
    if not isinstance(card, dict) or any(card.get(name) != value for name, value in key.items()):
        return None
    targets = {head.target: tensors[f"target.{head.target}"] for head in run.task.heads}
    return checked(BatchOutputs(tensors["index"], tensors["logits"], targets))


def kept_epoch(run: Run) -> pd.Series:
    """The row of a run's history in which its weights were kept: under patience the best one (of the last stage), else
    the last."""
    rows, recipe = of_last_stage(run.history), run.spec.recipe
    if recipe.patience is None:
        return rows.iloc[-1]
    column = rows[recipe.watch]
    return rows.iloc[int(column.argmax() if recipe.watch == "val_accuracy" else column.argmin())]


def of_last_stage(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of a history's last stage; all where it has no stages."""
    return history[history["stage"] == history["stage"].iloc[-1]] if "stage" in history else history


def _scans_of(head: Head) -> dict[str, Any]:
    """Those of one head, by name."""
    scans = {"confusion": Confusion(head), "loss": Loss((head,)), "calibration": Calibration(head)}
    return scans | ({"top5": TopK(head)} if len(head.classes) > 5 else {})


def _summary(run: Run, loss: Estimate, accuracy: Estimate, heads: dict[str, dict[str, Any]]) -> dict[str, Any]:
    # as recorded while the kept weights' epoch ran: augmented, with dropout
    n_train = int(run.environment["data"]["images"]["train"])
    train_accuracy = proportion(round(float(kept_epoch(run)["train_accuracy"]) * n_train), n_train)
    overfit = difference(train_accuracy, accuracy).to_json()
    first = heads[run.task.heads[0].target]
    return {
        "loss": loss.to_json(),
        "accuracy": accuracy.to_json(),
        "train_accuracy": train_accuracy.to_json(),
        "overfit_percent": {name: None if value is None else 100 * value for name, value in overfit.items()},
        **{name: first[name] for name in ("top5", "precision", "recall", "f1", "calibration_error")},
        "heads": heads,
    }


def class_counts(images: ImageSet, head: Head) -> list[int]:
    """How many images each class of a head has in a set."""
    return images.targets_of(head.target).bincount(minlength=len(head.classes)).tolist()


def _summary_of_head(head: Head, scans: dict[str, Any], train_images: list[int]) -> dict[str, Any]:
    results = {name: each.result() for name, each in scans.items()}
    matrix, calibration = results["confusion"].numpy(), results["calibration"]
    right, images, predicted = (counts.tolist() for counts in (matrix.diagonal(), matrix.sum(1), matrix.sum(0)))
    shares = {
        "precision": list(map(proportion, right, predicted)),
        "recall": list(map(proportion, right, images)),
        "f1": list(map(f_score, right, predicted, images)),
    }
    unknown = sum(n > 0 and not p for n, p in zip(images, predicted, strict=True))
    most = max(range(len(images)), key=images.__getitem__)
    bins = zip(
        *(each.tolist() for each in (calibration.count, calibration.accuracy, calibration.confidence)), strict=True
    )
    return {
        "kind": head.kind,
        "classes": list(head.classes),
        "loss": results["loss"].to_json(),
        "accuracy": proportion(sum(right), sum(images)).to_json(),
        "most_frequent": {"class": head.classes[most], "share": proportion(images[most], sum(images)).value},
        "train_images": train_images,
        "top5": results.get("top5", UNDEFINED).to_json(),
        "precision": _mean_json(shares["precision"], unknown=unknown),
        "recall": _mean_json(shares["recall"]),
        "f1": _mean_json(shares["f1"], 2),
        "calibration_error": calibration.error.to_json(),
        "per_class": [
            {"class": name, "images": images[k], **{key: shares[key][k].to_json() for key in shares}}
            for k, name in enumerate(head.classes)
        ],
        "confusion": matrix.tolist(),
        "reliability": [{"images": n, "accuracy": a, "confidence": c} for n, a, c in bins if n],
    }


def _mean_json(shares: list[Estimate], classes_per_error: int = 1, unknown: int = 0) -> dict[str, float | None]:
    mean = mean_over_classes(shares, classes_per_error, unknown)
    return {**mean.to_json(), "left_out": sum(share.value is None for share in shares)}


@dataclass(frozen=True)
class ReviewedAccuracy:
    """Accuracy on the test images, and what a review leaves of it.

    Attributes:
        all_images: on all of them, with Wilson's interval.
        without_wrong_labels: without those whose label is said to be wrong.
        without_doubtful: without these and those that are said to be ambiguous.
        n_images, n_wrong_labels, n_ambiguous, n_model: how many there are, and of each verdict.
    """

    all_images: Estimate
    without_wrong_labels: Estimate
    without_doubtful: Estimate
    n_images: int
    n_wrong_labels: int
    n_ambiguous: int
    n_model: int


def reviewed_accuracy(run: RunOrFolder) -> ReviewedAccuracy:
    """The accuracy of a run's first head, with and without the images that its review calls in question.

    As a rule only mistakes are reviewed. What is left out then is wrong in the network's eyes alone: the accuracy without it
    is an upper bound, for among the images that are right some labels may be wrong too.

    Args:
        run: evaluated, or its folder; see `convscope.runs.write_verdict`.
    Raises:
        RunFolderError: the run has not been evaluated, or its review is damaged.
    """
    run = open_run(run)
    head = run.task.heads[0]
    right = head.logits(run.predictions["logits"]).argmax(1) == run.predictions[f"target.{head.target}"]
    review = read_review(run)
    review = review[review["image"] < len(right)]

    def accuracy(*left_out: str) -> Estimate:
        mask = torch.ones(len(right), dtype=torch.bool)
        mask[torch.tensor(review["image"][review["verdict"].isin(left_out)].to_numpy(copy=True))] = False
        return proportion(int(right[mask].sum()), int(mask.sum()))

    counts = (int((review["verdict"] == verdict).sum()) for verdict in ("label", "ambiguous", "model"))
    return ReviewedAccuracy(accuracy(), accuracy("label"), accuracy("label", "ambiguous"), len(right), *counts)
