"""Runs to be compared: opened and checked, their settings side by side, and what they answered to each test image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from convscope.base.bounded import flattened
from convscope.errors import RequestError, RunFolderError
from convscope.runs import (
    ANSWERS,
    GIVEN,
    METRICS,
    MODEL,
    OUTCOME,
    PREDICTIONS,
    Run,
    RunOrFolder,
    RunSpec,
    open_run,
    read_tensors,
)
from convscope.study.facts import without_fold
from convscope.study.folder import DAMAGED

MISSING = "–"
"""Stands where a run's spec does not have a setting, so that the network's own default holds."""


@dataclass(frozen=True, eq=False)
class AnswersOfRun:
    """What a run answered to the test images; with several heads an answer is that of all of them.

    Attributes:
        true, predicted: class of each image, by head.
        probability: of the answer, in [0, 1]; the product over heads.
        of_true: likewise, of the true classes.
    """

    true: Int[Tensor, "N heads"]
    predicted: Int[Tensor, "N heads"]
    probability: Float[Tensor, " N"]
    of_true: Float[Tensor, " N"]

    @property
    def right(self) -> Bool[Tensor, " N"]:
        return (self.true == self.predicted).all(1)


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One of the runs that are compared.

    Attributes:
        name: its folder's name, or its path where two folders have one name.
        run: trained and evaluated.
        settings: its spec by dotted keys: {"recipe.rate": 0.01}.
        digest: of the data that its predictions are on.
    """

    name: str
    run: Run
    settings: dict[str, Any]
    digest: str

    @property
    def accuracy(self) -> float:
        """Share of the test images that every head gets right."""
        return float(self.run.metrics["accuracy"]["value"])

    @cached_property
    def answers(self) -> AnswersOfRun:
        """From the stored predictions."""
        stored, answers = self.run.predictions, []
        try:
            for head in self.run.task.heads:
                shares = head.logits(stored["logits"]).softmax(1)
                best, true = shares.max(1), stored[f"target.{head.target}"]
                answers.append((true, best.indices, best.values, shares.gather(1, true[:, None])[:, 0]))
        except (KeyError, RuntimeError, IndexError):
            path = self.run.path / PREDICTIONS
            raise RunFolderError(
                f"{path} is not what this run answers; delete it, and {self.run.command('evaluate')}"
            ) from None
        true, predicted, probability, of_true = (torch.stack(part, 1) for part in zip(*answers, strict=True))
        return AnswersOfRun(true, predicted, probability.prod(1), of_true.prod(1))

    @cached_property
    def image_names(self) -> list[str]:
        """Of the test images; none where an older version evaluated the run."""
        path = self.run.path / ANSWERS
        return pd.read_parquet(path, columns=["name"])["name"].tolist() if path.is_file() else []

    def named(self, classes: Int[Tensor, " heads"]) -> str:
        """Names of one class of each head."""
        heads = zip(self.run.task.heads, classes.tolist(), strict=True)
        return ", ".join(head.classes[k] for head, k in heads)


def runs_to_compare(runs: Sequence[RunOrFolder]) -> list[ComparedRun]:
    """The runs, opened, each with its settings.

    Raises:
        RequestError: fewer than two, one of them twice, or runs of other classes.
        RunFolderError: one is no run, not trained to its end, or not evaluated.
    """
    opened = [open_run(run) for run in runs]
    if len(opened) < 2:
        raise RequestError(f"compare: expected two or more runs, such as runs/a runs/b; given {len(opened)}")
    places = [run.path.resolve() for run in opened]
    if twice := [run for run, place in zip(opened, places, strict=True) if places.count(place) > 1]:
        raise RequestError(f"compare: {twice[0].path} is given twice; give each run once")
    for run in opened:
        _check_evaluated(run)
    first = opened[0]
    for run in opened:
        if run.card.classes != first.card.classes:
            raise RequestError(
                f"compare: {run.path} tells {_in_words(run)} apart, and {first.path} {_in_words(first)}; "
                "give runs of the same classes"
            )
    names = [run.name for run in opened]
    names = names if len(set(names)) == len(names) else [str(run.path) for run in opened]
    return [ComparedRun(name, run, _settings(run), _digest(run)) for name, run in zip(names, opened, strict=True)]


def differing(runs: Sequence[ComparedRun]) -> list[str]:
    """Dotted keys of the settings in which runs differ; none of the data's where all have the same images in each split."""
    parts = list(RunSpec.model_fields)  # what one run alone states comes beside what all state
    keys = sorted(dict.fromkeys(k for run in runs for k in run.settings), key=lambda k: parts.index(k.split(".")[0]))
    same_data = len({run.digest for run in runs}) == 1
    return [
        key
        for key in keys
        if not (same_data and key.startswith("data."))
        and any(run.settings.get(key, MISSING) != runs[0].settings.get(key, MISSING) for run in runs)
    ]


def evaluated_beside(runs: Sequence[ComparedRun]) -> list[Path]:
    """All evaluated runs of the same data in the folders where the runs lie, they included: looks at the test images."""
    digests = {run.digest for run in runs}
    paths = {run.run.path.resolve() for run in runs}
    for folder in {path.parent for path in paths}:
        for path in folder.iterdir():
            with suppress(*DAMAGED):  # a damaged neighbour is not what was asked about
                if (path / METRICS).exists() and Run(path).environment["data"]["digest"] in digests:
                    paths.add(path.resolve())
    return sorted(paths)


def _check_evaluated(run: Run) -> None:
    if run.has(OUTCOME):
        outcome = run.read_json(OUTCOME)
        raise RunFolderError(
            f"{run.path} did not come to its end: {outcome.get('state', 'failed')}, so it has no test figures "
            f"({outcome.get('message', 'no reason is known')}); leave it out"
        )
    evaluate = run.command("evaluate")
    if not run.is_trained:
        raise RunFolderError(
            f"{run.path} is not trained to its end: {run.command('train --resume')} takes it there, then {evaluate}"
        )
    if not (run.has(METRICS) and run.has(PREDICTIONS)):
        raise RunFolderError(f"{run.path} has no test figures yet: {evaluate} makes them")
    accuracy = run.metrics.get("accuracy")
    if not (isinstance(accuracy, dict) and isinstance(accuracy.get("value"), int | float)):
        raise RunFolderError(f"{run.path / METRICS} is damaged: it has no accuracy; {evaluate}")


def _in_words(run: Run) -> str:
    heads = [f"{len(names)} of {target!r} ({names[0]} …)" for target, names in run.card.classes.items()]
    return " and ".join(heads)


def _settings(run: Run) -> dict[str, Any]:
    """The spec by dotted keys. A module of the user's own has no name, so its tensors stand for it."""
    spec = run.spec.model_dump(mode="json", exclude={"format", "about"})
    settings = without_fold({key: value for key, value in flattened(spec) if value != {}})
    if run.spec.net.name == GIVEN:
        tensors = read_tensors(run.path / MODEL)[0]
        shapes = hashlib.sha256("".join(f"{name} {tuple(t.shape)}\n" for name, t in tensors.items()).encode())
        numbers = sum(t.numel() for t in tensors.values())
        settings["net.tensors"] = f"{len(tensors)} of {numbers:,} numbers ({shapes.hexdigest()[:6]})"
    return settings


def _digest(run: Run) -> str:
    """Of the data that the predictions are on, as their file says."""
    card = read_tensors(run.path / PREDICTIONS)[1]
    return str(card.get("data") or run.environment["data"]["digest"])
