"""A run of a repeated study: whether it has some settings, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convscope.base.bounded import value_at
from convscope.runs import Run, RunSpec
from convscope.scans import kept_epoch

EPOCH_SECONDS = "epoch_seconds"
"""A metric of a run with a value for each epoch: what it took."""


def figure(run: Run, metric: str) -> tuple[float, int]:
    """A run's figure, and the number of images that it was measured on."""
    n, images = int(run.metrics["images"]), run.environment["data"]["images"]
    if metric == "mean_val_accuracy":
        return float(run.history.val_accuracy.mean()), int(images["val"])
    if metric == "train_accuracy":
        return float(kept_epoch(run)["train_accuracy"]), int(images["train"])
    if metric.startswith("heads."):
        return float(run.metrics["heads"][metric.split(".")[1]]["accuracy"]["value"]), n
    return float(run.metrics[metric.removeprefix("test_")]["value"]), n


def matches(run: RunSpec, at: Mapping[str, Any]) -> bool:
    """Whether a run has these values at these dotted keys; `net: net4` is short for `net.name: net4`, as in the sweep."""
    spec = run.model_dump(mode="json")
    return all(_is(value_at(spec, key), value) for key, value in at.items())


def _is(own: Any, expected: Any) -> bool:
    if isinstance(own, Mapping) and isinstance(expected, Mapping):
        return all(_is(own.get(key), value) for key, value in expected.items())
    if isinstance(own, Mapping) and isinstance(expected, str):
        own = next(iter(own.values()), None)
    return bool(own == expected)
