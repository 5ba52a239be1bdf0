"""`compare`: how runs differ, which is better, and how far that can be said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int64
from numpy import ndarray

from convscope.base.words import counted
from convscope.errors import SettingError, UnknownNameError
from convscope.runs import RunOrFolder
from convscope.scans import Estimate, kept_epoch, proportion
from convscope.study.compared_runs import MISSING, ComparedRun, differing, evaluated_beside, runs_to_compare
from convscope.study.facts import SEED
from convscope.study.metric import summary_of
from convscope.study.statistics import Summary, compare_images, compare_seeds, holm, overlap_of
from convscope.study.verdicts import Comparison, basis, differs, verdict
from convscope.study.words import setting_in_words

_MOST_LABEL = 48  # letters of settings that still read as a name
_FIGURES = {
    "val_accuracy": "validation accuracy",
    "accuracy": "test accuracy",
    "top5": "test accuracy, top 5",
    "loss": "test loss, nats",
    "overfit_percent": "overfit, points",
    "calibration_error": "calibration error",
}
_OF_FIRST_HEAD = ("top5", "calibration_error")


@dataclass(frozen=True)
class Pair:
    """Two runs or two groups, compared in test accuracy.

    Attributes:
        a, b: their names.
        compared: A less B, see `compare_images` and `compare_seeds`.
        p: Holm-corrected, where several pairs were compared; else None.
        n_open: how many of the pairs are not told apart.
    """

    a: str
    b: str
    compared: Comparison
    p: float | None = None
    n_open: int = 1

    @property
    def told_apart(self) -> bool:
        return differs(self.compared, self.p)

    @property
    def verdict(self) -> str:
        """One sentence, see `verdict`."""
        return verdict(self.a, self.b, self.compared, p=self.p, n_open=self.n_open)

    @property
    def basis(self) -> str:
        """What it rests on."""
        return basis(self.compared)

    def to_json(self) -> dict[str, Any]:
        conclusion = {"told_apart": self.told_apart, "verdict": self.verdict, "basis": self.basis}
        return {"a": self.a, "b": self.b, **asdict(self.compared), "p_holm": self.p, **conclusion}


@dataclass(frozen=True)
class Group:
    """Runs of the same settings but the seed.

    Attributes:
        label: the settings in which it differs from the other groups.
        runs: their names.
        values: test accuracy of each seed; the mean where a seed was run several times.
        val: validation accuracy likewise.
        overlap: of folds, see `overlap_of`.
    """

    label: str
    runs: tuple[str, ...]
    values: dict[int, float]
    val: dict[int, float]
    overlap: float = 0.0

    @property
    def accuracy(self) -> Summary:
        """Test accuracy over seeds; its interval, Student's, is cut off at 0 and 1."""
        return summary_of("test_accuracy", list(self.values.values()), self.overlap)

    @property
    def val_accuracy(self) -> Summary:
        return summary_of("val_accuracy", list(self.val.values()), self.overlap)


@dataclass(frozen=True, eq=False)
class Compared:
    """Runs side by side.

    Attributes:
        runs: in the order given.
        settings: dotted keys in which they differ.
        groups: the runs, those that differ in the seed alone put together.
        pairs: each two runs with the same test images, by those images. It tells these runs apart, not their settings.
        over_seeds: each two groups, where one has several seeds. This tells settings apart.
        looks: evaluated runs of the same data in the folders where the runs lie.
    """

    runs: tuple[ComparedRun, ...]
    settings: tuple[str, ...]
    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]
    over_seeds: tuple[Pair, ...]
    looks: tuple[Path, ...]

    @property
    def same_images(self) -> bool:
        """Whether all runs answered the same test images."""
        return len({run.digest for run in self.runs}) == 1

    @property
    def names(self) -> list[str]:
        return [run.name for run in self.runs]

    def figures(self) -> pd.DataFrame:
        """A row for each metric of each run: run, metric, name (in words), value, low, high."""
        by_run = {run.name: _figures_of(run) for run in self.runs}
        metrics = dict.fromkeys(key for figures in by_run.values() for key in figures)
        rows = [
            {"run": run, "metric": key, "name": _FIGURES.get(key, key), **figures[key].to_json()}
            for key in metrics
            for run, figures in by_run.items()
            if key in figures
        ]
        return pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})

    def only_right(self) -> dict[str, Int64[ndarray, " n"]]:
        """Places of the test images that only this one of the runs gets right, the clearest first; by name of the run.

        Empty where the runs did not answer the same images.
        """
        if not self.same_images:
            return {}
        right = torch.stack([run.answers.right for run in self.runs])
        of_true = torch.stack([run.answers.of_true for run in self.runs])
        places = {}
        for index, run in enumerate(self.runs):
            rows = torch.nonzero(right[index] & (right.sum(0) == 1)).flatten()
            others = torch.cat([of_true[:index], of_true[index + 1 :]])[:, rows]
            margin = of_true[index, rows] - others.amax(0)  # how much more probable it finds the true class
            places[run.name] = rows[margin.argsort(descending=True, stable=True)].numpy()
        return places

    def confusion_change(self, a: int = 0, b: int = 1) -> dict[str, Int64[ndarray, "K K"]]:
        """Confusion matrix of run `a` less that of run `b`, of each head: rows true classes, columns predicted ones."""
        first, second = (self.runs[place].run.metrics["heads"] for place in (a, b))
        return {
            target: (torch.tensor(head["confusion"]) - torch.tensor(second[target]["confusion"])).numpy()
            for target, head in first.items()
        }

    def notes(self) -> list[str]:
        """What one has to know to read the comparison, in sentences."""
        notes = []
        if len(self.pairs) < len(self.runs) * (len(self.runs) - 1) // 2:
            which = "Some of these runs" if self.pairs else "These runs"
            notes.append(
                f"{which} cannot be compared on the same test images: their data differ in content, size or split."
            )
        if len(self.groups) == 1:
            notes.append("They differ in the seed alone: what lies between them is chance, not a better recipe.")
        elif not self.over_seeds:
            notes.append(
                "There is one seed of each: this tells these runs apart, not their recipes; for that, give several seeds."
            )
        where = " and ".join(f"{name}/" for name in sorted({path.parent.name for path in self.looks}))
        return [
            *notes,
            f"These test images have been looked at for {counted(len(self.looks), 'run')} in {where}. Choose between runs by "
            "their validation figures: the best of many on the test images looks better there than it is.",
        ]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; confusion of the first run less each other, cells that differ alone."""
        only, names = self.only_right(), self.runs[0].image_names
        rows = sorted({row for places in only.values() for row in places.tolist()})
        return {
            "runs": [
                {"name": run.name, "path": str(run.run.path),
                 "settings": {key: run.settings[key] for key in self.settings if key in run.settings},
                 "figures": {key: figure.to_json() for key, figure in _figures_of(run).items()}}
                for run in self.runs
            ],
            "groups": [
                {"label": group.label, "runs": list(group.runs), "accuracy": _summary_json(group.accuracy),
                 "val_accuracy": _summary_json(group.val_accuracy)}
                for group in self.groups
            ],
            "over_seeds": [pair.to_json() for pair in self.over_seeds],
            "pairs": [pair.to_json() for pair in self.pairs],
            "only_right": {name: places.tolist() for name, places in only.items()},
            "image_names": {row: names[row] for row in rows if row < len(names)},  # as far as they are written down
            "confusion_change": [
                {"a": self.runs[0].name, "b": run.name, "cells": self.moved(0, place).to_dict("records")}
                for place, run in (enumerate(self.runs) if self.same_images else ()) if place
            ],
            "looks": len(self.looks),
            "notes": self.notes(),
        }  # fmt: skip

    def moved(self, a: int = 0, b: int = 1) -> pd.DataFrame:
        """Cells of the confusion matrix in which two runs differ, the largest first: head, true, predicted, images.

        Images are those of A less those of B.
        """
        rows = []
        for target, change in self.confusion_change(a, b).items():
            names = self.runs[a].run.metrics["heads"][target]["classes"]
            rows += [
                {"head": target, "true": names[i], "predicted": names[j], "images": int(change[i, j])}
                for i, j in zip(*change.nonzero(), strict=True)
            ]
        table = pd.DataFrame(rows, columns=["head", "true", "predicted", "images"])
        return table.sort_values("images", key=abs, ascending=False, kind="stable", ignore_index=True)


def compare(runs: Sequence[RunOrFolder], *, seeds_by: str = SEED) -> Compared:
    """How evaluated runs differ: settings, figures, each two on the same test images, and groups over seeds.

    Runs that differ in the seed alone are a group. Each two runs are compared by McNemar's exact test and the bootstrap of the
    difference, each two groups by a t test over seeds; p is Holm-corrected over the pairs of each kind.

    Args:
        runs: two or more, of the same classes; folders, or opened.
        seeds_by: the setting that counts as seed, a dotted key; its values are whole numbers.

    Raises:
        RequestError: fewer than two runs, one of them twice, or runs of other classes.
        RunFolderError: one is no run, not trained to its end, or not evaluated.
        UnknownNameError: the runs have no such setting.
        SettingError: that setting is no whole number.

    Example:
        >>> result = cs.compare(["runs/wide", "runs/narrow"])            # doctest: +SKIP
        >>> print(result.pairs[0].verdict)                               # doctest: +SKIP
    """
    opened = runs_to_compare(runs)
    groups = _groups(opened, seeds_by)
    on_images = [
        Pair(a.name, b.name, compare_images(a.answers.right.numpy(), b.answers.right.numpy()))
        for a, b in combinations(opened, 2)
        if a.digest == b.digest
    ]
    over_seeds = [
        Pair(a.label, b.label, compare_seeds(a.values, b.values, largest=1.0, overlap=max(a.overlap, b.overlap)))
        for a, b in combinations(groups, 2)
        if any(len(group.values) > 1 for group in groups)
    ]
    return Compared(
        tuple(opened),
        tuple(differing(opened)),
        tuple(groups),
        _corrected(on_images),
        _corrected(over_seeds),
        tuple(evaluated_beside(opened)),
    )


def _corrected(pairs: list[Pair]) -> tuple[Pair, ...]:
    if len(pairs) < 2:
        return tuple(pairs)
    ps = holm([pair.compared.p for pair in pairs])
    n_open = max(1, sum(p is not None and p >= 0.05 for p in ps))
    return tuple(replace(pair, p=p, n_open=n_open) for pair, p in zip(pairs, ps, strict=True))


def _groups(runs: Sequence[ComparedRun], seeds_by: str) -> list[Group]:
    groups: dict[str, list[ComparedRun]] = {}
    keys = [key for key in differing(runs) if key != seeds_by]
    for run in runs:
        groups.setdefault(json.dumps([run.settings.get(key, MISSING) for key in keys]), []).append(run)
    return [_group(members, keys, seeds_by) for members in groups.values()]


def _group(runs: list[ComparedRun], keys: Sequence[str], seeds_by: str) -> Group:
    figures = {
        "test": [run.accuracy for run in runs],
        "val": [_figures_of(run)["val_accuracy"].figures[0] for run in runs],
    }
    means = pd.DataFrame(figures, [_seed(run, seeds_by) for run in runs]).groupby(level=0).mean().to_dict()
    label = ", ".join(f"{key} {setting_in_words(runs[0].settings.get(key, MISSING))}" for key in keys)
    if not label or len(label) > _MOST_LABEL:
        label = runs[0].name if len(runs) == 1 else f"{runs[0].name} and its seeds"
    overlap = max(overlap_of(run.settings) for run in runs)
    return Group(label, tuple(run.name for run in runs), means["test"], means["val"], overlap)


def _seed(run: ComparedRun, key: str) -> int:
    if key not in run.settings:
        raise UnknownNameError("setting", key, run.settings, f"one of {run.name}'s")
    seed = run.settings[key]
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise SettingError(f"--seeds-by {key}: {run.name} has {seed!r}; expected whole numbers, as recipe.seed has")
    return seed


def _figures_of(run: ComparedRun) -> dict[str, Estimate]:
    """The validation accuracy of the kept weights, and the test figures that are defined; of several heads those of all, and
    the accuracy of each."""
    metrics, n = run.run.metrics, int(run.run.environment["data"]["images"]["val"])
    figures = {"val_accuracy": proportion(round(float(kept_epoch(run.run)["val_accuracy"]) * n), n)}
    heads = metrics["heads"] if len(metrics["heads"]) > 1 else {}
    keys = [key for key in _FIGURES if key in metrics and not (heads and key in _OF_FIRST_HEAD)]
    figures |= {key: Estimate(**metrics[key]) for key in keys}
    figures |= {f"accuracy of {name}": Estimate(**head["accuracy"]) for name, head in heads.items()}
    return {key: figure for key, figure in figures.items() if figure.value is not None}


def _summary_json(accuracy: Summary) -> dict[str, Any]:
    return {**accuracy.mean.to_json(), "deviation": accuracy.deviation, "n": accuracy.n}
