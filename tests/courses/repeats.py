"""A small study that repeats an invented report, in the place of the shipped ones, and its runs with chosen figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from convscope.courses import find_reproduction, folder_of
from convscope.runs import ENVIRONMENT, METRICS
from convscope.study import dump_study
from convscope.study.folder import STUDY, run_of
from tests.conftest import write_spots
from tests.report.made import make_run

NAME = "two-widths"

TEXT = """
about: Two widths on bright spots
data: {source}
net: {{name: net1, width: 18, multiplier: 2.0, kernel: 3}}
recipe: {{epochs: 3, batch: 24}}
sweep:
  net.width: [4, 8]
seeds: [0, 1, 2]
reproduces:
  report: B
  reported:
    - {{what: the narrow one, metric: test_accuracy, value: 0.8, n: 1000, at: {{net.width: 4}}}}
    - {{what: both, metric: test_accuracy, value: 0.8, n: 1000}}
    - {{what: the wide one, train, metric: train_accuracy, value: 0.8, n: 1000, at: {{net.width: 8}}}}
    - {{what: "both, mean of epochs", metric: mean_val_accuracy, value: 0.5, n: 1000}}
    - {{what: overfit %, metric: overfit_percent, value: 4.5}}
    - {{what: parameters, metric: parameters, value: 173026, at: {{net.width: 18}}}}
    - {{what: parameters as misprinted, metric: parameters, value: 173027, at: {{net.width: 18}}}}
    - {{what: a width that no run has, metric: test_accuracy, value: 0.8, n: 1000, at: {{net.width: 64}}}}
  budgets:
    smoke: {{data.limit: 90, recipe.epochs: 1, seeds: [0]}}
    laptop: {{recipe.epochs: 2, seeds: [0, 1]}}
  looks:
    - {{lens: filters, layer: conv1, about: The filters of the first layer}}
    - {{lens: saliency, image: 3, at: {{net.width: 4}}, about: Pixels that matter to the narrow one}}
    - {{lens: filters, layer: conv9, about: A layer that is not there}}
    - {{lens: filters, layer: conv1, at: {{net.width: 64}}, about: A run that is not there}}
  otherwise:
    - spots stand in for photographs
  disagrees:
    - the report counts one parameter too many
""".replace("the wide one, train,", '"the wide one, train",')


def ship(folder: Path, monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    """The study is the only shipped one that repeats a report, but for `others`: name → text."""
    source = folder / "spots.npz"
    if not source.exists():
        write_spots(source, 120, side=16)
    texts = {NAME: TEXT.format(source=source), "plain": f"data: {source}\nnet: net1\n", **others}
    ship_texts(monkeypatch, texts)


def ship_texts(monkeypatch: pytest.MonkeyPatch, texts: Mapping[str, str]) -> None:
    """These are the shipped studies: name → YAML."""
    for room in ("study.run", "courses.reported"):
        monkeypatch.setattr(f"convscope.{room}.shipped_texts", lambda: texts)


def begin(out: Path, budget: str = "full") -> Path:
    """The study's folder with what was asked and no runs."""
    folder = folder_of(out, budget, NAME)
    folder.mkdir(parents=True)
    (folder / STUDY).write_text(dump_study(find_reproduction(NAME, budget)))
    return folder


def add(folder: Path, number: int, seed: int, accuracy: float, n: int = 1000, **more: Any) -> Path:
    """A run of setting `number` with that test accuracy; its other figures follow from it as in tests.report.made."""
    width = {1: 4, 2: 8}[number]
    run = make_run(run_of(folder, number, seed).path, accuracy + 0.01, seed=seed, width=width, **more)
    figures = {"images": n, "overfit_percent": {"value": 100 * accuracy - 75, "low": None, "high": None}}
    _add_to(run / METRICS, {**figures, "heads": {"angle": {"accuracy": {"value": 0.25, "low": 0.2, "high": 0.3}}}})
    images = {"train": 4 * n, "val": 2 * n, "test": n}
    data = {"name": "spots", "source": "spots.npz", "digest": "ab" * 32, "images": images}
    machine = {"gpu": None, "processor": "A processor", "cores": 2, "python": "3.11.1", "system": "Linux"}
    _add_to(run / ENVIRONMENT, {**machine, "data": data, "packages": {"torch": "2.9.1"}})
    return run


def _add_to(path: Path, more: Mapping[str, Any]) -> None:
    """Of a run that was never evaluated there is no such file."""
    if path.exists():
        path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
