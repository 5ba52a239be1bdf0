"""The files of a run folder: their names, and the JSON objects in them, which may be missing or damaged.

spec.yaml                what was asked for, every value stated
environment.json         versions, hardware, date, digest of the data
history.parquet          a row an epoch
checkpoint.safetensors   the training's last state; gone when it is finished
model.safetensors        the trained weights; with the card: classes, input shape, normalisation, task
predictions.safetensors  logits and targets of the test images, in order
predictions.parquet      the same for other tools: name, target, predicted class and probabilities of each test image
review.parquet           what somebody found of single test images: a verdict and its time
embeddings.parquet       test images as points, with their nearest others, for other viewers
metrics.json             what they come to, with intervals
anatomy.json             the table of the network's operations
rate.png                 the learning-rate range test, where it found the recipe's rate
report.html              the illustrated report
filters.html             every filter of every convolution, linked from the report
trackers.json            its numbers at MLflow and Weights & Biases, where it was tracked there
tensorboard              TensorBoard's event files, where it was tracked there
outcome.json             why a run of a study did not finish: its state, and a line about it
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

SPEC, ENVIRONMENT, HISTORY = "spec.yaml", "environment.json", "history.parquet"
CHECKPOINT, MODEL, PREDICTIONS = "checkpoint.safetensors", "model.safetensors", "predictions.safetensors"
ANSWERS = "predictions.parquet"
METRICS, ANATOMY, REPORT, FILTERS = "metrics.json", "anatomy.json", "report.html", "filters.html"
REVIEW, EMBEDDINGS = "review.parquet", "embeddings.parquet"
RATE, OUTCOME, TRACKERS, TENSORBOARD = "rate.png", "outcome.json", "trackers.json", "tensorboard"

GIVEN = "given-module"
"""Name of the network in the spec of a run that was trained from a module of the user's own."""

HISTORY_FIGURES = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
"""Columns that every history has, all of numbers."""


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError, ValueError, RecursionError: it is missing, or damaged.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("no object is in it")
    return value


def object_in(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where it is missing or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        return read_object(path)
    return {}
