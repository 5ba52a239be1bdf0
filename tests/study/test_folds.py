"""Cross-validation: a run a fold, and intervals that know that the folds share their training images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from convscope.errors import SettingError
from convscope.report.study import write_study_report
from convscope.runs import open_run
from convscope.study import compare, compare_seeds, overlap_of, read_study, summary, table
from convscope.study.spec import make_study
from tests.conftest import write_spots
from tests.study.sweeps import worked


@pytest.fixture
def validated(tmp_path: Path) -> Path:
    """Two settings, three folds of 60 images, divided twice."""
    write_spots(tmp_path / "spots.npz", 60)
    text = f"""
data: {{source: {tmp_path / "spots.npz"}, split: {{folds: 3}}}}
net: c4b M f8
recipe: {{epochs: 1, batch: 12}}
sweep: {{recipe.rate: [0.001, 0.01]}}
seeds: [0, 1]
"""
    worked(tmp_path / "study", text)
    return tmp_path / "study"


def test_each_setting_is_trained_once_a_fold_and_division(validated: Path) -> None:
    runs = [open_run(path) for path in sorted((validated / "runs").iterdir())]

    assert len(runs) == 2 * 2 * 3
    tested: dict[tuple[float, int], list[str]] = {}
    for run in runs:
        split = run.spec.data.split
        assert split.fold == run.spec.recipe.seed % 3  # type: ignore[union-attr]
        assert run.spec.data.seed == run.spec.recipe.seed // 3
        test = run.load_data().test
        place = (run.spec.recipe.rate or 0.0, run.spec.data.seed)
        tested.setdefault(place, []).extend(test.name(i) for i in range(len(test)))
    assert len(tested) == 4
    for names in tested.values():
        assert len(names) == len(set(names)) == 60  # every image is a test image once
    divisions = {run.environment["data"]["digest"] for run in runs}
    assert len(divisions) == 6  # each seed divides anew, and the settings share the divisions


def test_the_table_takes_folds_for_runs_of_one_setting(validated: Path) -> None:
    rows = table(validated)
    assert [key for key in rows if "." in key] == ["recipe.rate"]

    grouped = table(validated, by=["recipe.rate"], metrics=["test_accuracy"])

    values = rows[rows["recipe.rate"] == 0.001]["test_accuracy"]
    assert grouped["test_accuracy"][0] == pytest.approx(values.mean())
    half = stats.t.ppf(0.975, 5) * math.sqrt((1 / 6 + 1 / 2) * values.var())
    low, high = max(0.0, values.mean() - half), min(1.0, values.mean() + half)
    assert [grouped["test_accuracy_low"][0], grouped["test_accuracy_high"][0]] == pytest.approx([low, high])
    notes = " ".join(grouped.attrs["notes"])
    assert "Nadeau & Bengio" in notes
    assert "data sets" not in notes
    write_study_report(validated)


def test_settings_are_compared_fold_by_fold(validated: Path) -> None:
    found = compare(sorted((validated / "runs").iterdir()))
    assert len(found.groups) == 2
    (pair,) = found.over_seeds
    assert pair.compared.n_a == 6
    assert "corrected for the training images they share" in pair.basis or not pair.compared.deviation


def test_the_variance_of_a_mean_over_folds_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.9, 0.02, 10), rng.normal(0.88, 0.02, 10)
    difference = a - b
    error = math.sqrt((1 / 10 + 1 / 9) * difference.var(ddof=1))  # equation 9 with n2 / n1 = 1 / 9
    overlap = overlap_of({"data.split.folds": 10})

    found = compare_seeds(dict(enumerate(a)), dict(enumerate(b)), overlap=overlap)

    assert found.p == pytest.approx(2 * stats.t.sf(abs(difference.mean() / error), 9))
    half = stats.t.ppf(0.975, 9) * error
    assert found.difference.figures[1:] == pytest.approx([difference.mean() - half, difference.mean() + half])
    assert overlap_of({"data.split": "60/40"}) == 0


def test_the_interval_over_repeated_folds_holds_what_it_says() -> None:
    """A nearest-mean classifier on two clouds, 10 × 5 folds of 60 points; its accuracy elsewhere is known by simulation."""
    rng, n, dims, shift = np.random.default_rng(1), 60, 8, 0.35

    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(size) % 2
        return rng.normal(0, 1, (size, dims)) + shift * (2 * labels[:, None] - 1), labels

    def accuracy(x: np.ndarray, y: np.ndarray, at: np.ndarray, truth: np.ndarray) -> float:
        means = np.stack([x[y == k].mean(0) for k in (0, 1)])
        return float((((at[:, None] - means) ** 2).sum(2).argmin(1) == truth).mean())

    elsewhere = draw(20_000)
    truth = np.mean([accuracy(*draw(n * 4 // 5), *elsewhere) for _ in range(300)])
    held = {"folds": 0, "as if independent": 0}
    for _ in range(200):
        x, y = draw(n)
        values = []
        for _ in range(10):
            parts = np.array_split(rng.permutation(n), 5)
            for part in parts:
                rest = np.setdiff1d(np.arange(n), part)
                values.append(accuracy(x[rest], y[rest], x[part], y[part]))
        for name, overlap in (("folds", overlap_of({"data.split.folds": 5})), ("as if independent", 0.0)):
            mean = summary(values, overlap=overlap).mean
            held[name] += mean.figures[1] <= truth <= mean.figures[2]
    assert held["folds"] / 200 > 0.92
    assert held["as if independent"] / 200 < 0.75


def test_a_study_of_folds_alone_and_what_does_not_go() -> None:
    alone = make_study({"data": {"source": "lines", "split": {"folds": 5}}, "net": "net1"})
    assert alone.run_seeds == (0, 1, 2, 3, 4)
    assert alone.n_runs == 5
    assert alone.run_spec({}, 3).data.split.fold == 3  # type: ignore[union-attr]
    assert make_study(alone).run_seeds == alone.run_seeds
    chosen = {"data": {"source": "lines", "split": {"folds": 5, "fold": 1}}, "net": "net1"}
    with pytest.raises(SettingError, match="nothing to sweep"):
        make_study(chosen)
    with pytest.raises(SettingError, match=r"line 1: data\.split.folds"):
        read_study("data: {source: lines, split: {folds: 1}}\nnet: net1\n", "cv.yaml")
