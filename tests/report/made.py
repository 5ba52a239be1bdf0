"""Run folders as a study leaves them, with figures that are chosen; nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from convscope.data import DataSpec
from convscope.nets import NetSpec
from convscope.runs import ENVIRONMENT, HISTORY, METRICS, MODEL, OUTCOME, SPEC, Recipe, RunSpec, dump_spec

EPOCHS = 4


def make_run(
    folder: Path, val: float, *, train: float | None = None, seed: int = 0, rate: float = 0.01, state: str = "finished",
    parameters: int = 1000, message: str = "", loss: float = 1.0, first_loss: float = 1.75,
    images: tuple[int, ...] | None = None, split: Any = None, **options: Any,
) -> Path:  # fmt: skip
    """A run whose accuracies rise to `val` and `train`, its losses going from `first_loss` to `loss`.

    One that did not finish has two epochs and an outcome. `images` are those of each class, for validation as for the test.
    """
    folder.mkdir(parents=True)
    net, recipe = NetSpec(name="net1", **options), Recipe(rate=rate, epochs=EPOCHS, seed=seed)
    data_spec = DataSpec(source="mnist", split=split)
    (folder / SPEC).write_text(dump_spec(RunSpec(data=data_spec, net=net, recipe=recipe)))
    data = {"name": "mnist", "digest": "0" * 64} | ({"images": {"val": sum(images)}} if images else {})
    (folder / ENVIRONMENT).write_text(json.dumps({"parameters": parameters, "convscope": "0.1.0", "data": data}))
    ended = state == "finished"
    _history(val, val if train is None else train, first_loss, loss).head(EPOCHS if ended else 2).to_parquet(
        folder / HISTORY
    )
    if ended:
        figure = {"value": val - 0.01, "low": val - 0.02, "high": val}
        losses = {"value": loss + 0.1, "low": loss, "high": loss + 0.2}
        (folder / METRICS).write_text(json.dumps({"accuracy": figure, "loss": losses, "heads": _heads(images)}))
        (folder / MODEL).touch()
    else:
        (folder / OUTCOME).write_text(json.dumps({"state": state, "message": message, "attempts": 1}))
    return folder


def _heads(images: tuple[int, ...] | None) -> dict[str, Any]:
    """Of a network that takes every image for the first class."""
    confusion = [[n, *[0] * (len(images) - 1)] for n in images] if images else None
    return {"class": {"kind": "softmax", "confusion": confusion}} if confusion else {}


def _history(val: float, train: float, first_loss: float, loss: float) -> pd.DataFrame:
    losses = [first_loss + (loss - first_loss) * epoch / (EPOCHS - 1) for epoch in range(EPOCHS)]
    steps = [(epoch + 1) / EPOCHS for epoch in range(EPOCHS)]
    return pd.DataFrame({
        "epoch": range(1, EPOCHS + 1),
        "train_loss": losses, "train_accuracy": [train * step for step in steps],
        "val_loss": losses, "val_accuracy": [val * step for step in steps],
        "rate": 0.01, "seconds": 0.5, "images_per_s": 100.0,
    })  # fmt: skip
