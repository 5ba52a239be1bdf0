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
    parameters: int = 1000, message: str = "", **options: Any,
) -> Path:  # fmt: skip
    """A run whose accuracies rise to `val` and `train`; one that did not finish has two epochs and an outcome."""
    folder.mkdir(parents=True)
    net, recipe = NetSpec(name="net1", **options), Recipe(rate=rate, epochs=EPOCHS, seed=seed)
    (folder / SPEC).write_text(dump_spec(RunSpec(data=DataSpec(source="mnist"), net=net, recipe=recipe)))
    data = {"name": "mnist", "digest": "0" * 64}
    (folder / ENVIRONMENT).write_text(json.dumps({"parameters": parameters, "convscope": "0.1.0", "data": data}))
    ended = state == "finished"
    _history(val, val if train is None else train).head(EPOCHS if ended else 2).to_parquet(folder / HISTORY)
    if ended:
        figure = {"value": val - 0.01, "low": val - 0.02, "high": val}
        (folder / METRICS).write_text(json.dumps({"accuracy": figure}))
        (folder / MODEL).touch()
    else:
        (folder / OUTCOME).write_text(json.dumps({"state": state, "message": message, "attempts": 1}))
    return folder


def _history(val: float, train: float) -> pd.DataFrame:
    steps = [(epoch + 1) / EPOCHS for epoch in range(EPOCHS)]
    return pd.DataFrame({
        "epoch": range(1, EPOCHS + 1),
        "train_loss": [2 - step for step in steps], "train_accuracy": [train * step for step in steps],
        "val_loss": [2 - step for step in steps], "val_accuracy": [val * step for step in steps],
        "rate": 0.01, "seconds": 0.5, "images_per_s": 100.0,
    })  # fmt: skip
