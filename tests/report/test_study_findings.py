"""Findings of a study appear where they were planted, and not on noise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from convscope.report.study_findings import Finding, _more_often, chance_of, never_left_chance, step, study_findings
from convscope.report.study_results import StudyResults
from convscope.study import Runs, compare_seeds, written_p
from tests.report.made import make_run

WIDTHS, RATES, SEEDS = (4, 8, 16, 32), (0.01, 0.1), range(4)


def _planted(
    folder: Path, val: Callable[[int, float], float], gap: float = 0.0, diverged: bool = False, seed: int = 0
) -> StudyResults:
    """A grid of widths and rates with a little noise; the last rate diverges where it is said."""
    generator = np.random.default_rng(seed)
    for number, (width, rate) in enumerate((w, r) for w in WIDTHS for r in RATES):
        for run in SEEDS:
            found = val(width, rate) + float(generator.normal(0, 0.004))
            state = "diverged" if diverged and rate == RATES[-1] and run else "finished"
            train = found + gap + float(generator.normal(0, 0.004))
            make_run(folder / f"{number:04d}-s{run}", found, train=train, seed=run, rate=rate, width=width, state=state)
    return StudyResults(Runs(folder))


def _of(results: StudyResults) -> dict[str, Finding]:
    return {one.kind: one for one in study_findings(results)}


def test_a_width_of_diminishing_returns(tmp_path: Path) -> None:
    results = _planted(tmp_path, lambda width, rate: 0.7 + {4: 0.0, 8: 0.1}.get(width, 0.14))
    found = _of(results)
    assert set(found) == {"importance", "returns"}
    assert found["importance"].words == "Only net.width clearly matters for validation accuracy."
    assert found["returns"].words.startswith("net.width has diminishing returns: up to 16 each step gains")
    ended = results.ended.set_index(["net.width", "recipe.rate", "seed"]).val_accuracy
    gain = ended[8] - ended[4]
    t = stats.ttest_1samp(gain.to_numpy(float), 0).confidence_interval()
    assert (
        f"4 → 8: {100 * gain.mean():+.1f} points (95 %: {100 * t.low:+.1f} to {100 * t.high:+.1f})"
        in found["returns"].evidence
    )
    assert "n = 8 pairs of runs" in found["returns"].evidence


def test_a_loss_that_falls_has_diminishing_returns_too(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    for number, width in enumerate(WIDTHS):
        for seed in range(8):
            loss = {4: 0.9, 8: 0.5}.get(width, 0.4) + float(generator.normal(0, 0.01))
            val = 0.7 + float(generator.normal(0, 0.004))  # accuracy shows nothing
            make_run(tmp_path / f"{number:04d}-s{seed}", val, seed=seed, width=width, loss=loss)
    assert _of(StudyResults(Runs(tmp_path))) == {}
    (tmp_path / "study.yaml").write_text("metric: val_loss\n")
    results = StudyResults(Runs(tmp_path))
    found = _of(results)
    assert set(found) == {"importance", "returns"}
    assert found["importance"].words == "Only net.width clearly matters for validation loss."
    assert found["returns"].words.startswith("net.width has diminishing returns: up to 16 each step gains")
    ended = results.ended.set_index(["net.width", "seed"]).val_loss
    fall = ended[8] - ended[4]
    t = stats.ttest_1samp(fall.to_numpy(float), 0).confidence_interval()
    figures = [f"{figure:+.4f}".replace("-", "−") for figure in (fall.mean(), t.low, t.high)]
    assert f"4 → 8: {figures[0]} nats (95 %: {figures[1]} to {figures[2]})" in found["returns"].evidence


def test_a_gain_that_goes_on_does_not_diminish(tmp_path: Path) -> None:
    assert set(_of(_planted(tmp_path, lambda width, rate: 0.6 + 0.05 * np.log2(width)))) == {"importance"}


def test_overfitting(tmp_path: Path) -> None:
    found = _of(_planted(tmp_path, lambda width, rate: 0.7, gap=0.12))
    assert set(found) == {"overfitting"}
    assert "6 of 6 values of the settings" in found["overfitting"].evidence


def test_a_small_gap_is_no_overfitting_however_clear(tmp_path: Path) -> None:
    assert _of(_planted(tmp_path, lambda width, rate: 0.7, gap=0.03)) == {}


@pytest.mark.parametrize(("are_folds", "found"), [(False, {"overfitting"}), (True, set())])
def test_a_gap_over_folds_has_the_wider_interval_of_runs_that_share_images(
    tmp_path: Path, are_folds: bool, found: set[str]
) -> None:
    gaps = (0.01, 0.03, 0.06, 0.09, 0.11)  # t(4) over √5: from 0.01; over folds from −0.02
    for fold, gap in enumerate(gaps):
        split = {"folds": 5, "fold": fold} if are_folds else None
        make_run(tmp_path / f"0001-s{fold}", 0.7, train=0.7 + gap, seed=fold, split=split)
    low = stats.t(4, np.mean(gaps), np.std(gaps, ddof=1) * np.sqrt(1 / 5 + are_folds / 4)).ppf(0.025)
    assert (low > 0) is not are_folds
    assert set(_of(StudyResults(Runs(tmp_path)))) == found


def test_runs_that_diverge_at_the_high_rate(tmp_path: Path) -> None:
    found = _of(_planted(tmp_path, lambda width, rate: 0.7, diverged=True))
    p = stats.fisher_exact([[12, 4], [0, 16]], alternative="greater").pvalue
    assert p < 0.0001
    assert found["instability"].evidence == (
        "There 12 diverged and 0 never left chance, of 16 runs; below it 0 diverged and 0 never left chance, of 16 runs; "
        "Fisher's exact test, p < 0.0001"
    )
    assert found["instability"].words.endswith("on more runs diverge.")


EVEN = (100,) * 10  # images of each class: guessing is right on 0.1, with a loss of ln 10 = 2.303


def _rates(folder: Path, ends: dict[float, tuple[float, float]], images: tuple[int, ...] | None = EVEN) -> StudyResults:
    """Six seeds at each rate, which end at that validation accuracy and loss."""
    generator = np.random.default_rng(5)
    for number, (rate, (val, loss)) in enumerate(ends.items()):
        for seed in range(6):
            noise = float(generator.normal(0, 0.003))
            make_run(folder / f"{number:04d}-s{seed}", val + noise, loss=loss, seed=seed, rate=rate, images=images)
    return StudyResults(Runs(folder))


def test_runs_that_never_leave_chance_are_unstable_as_those_that_diverge(tmp_path: Path) -> None:
    _rates(tmp_path, {0.01: (0.8, 0.6), 0.1: (0.82, 0.5), 1.0: (0.1, 2.303)})
    for seed in (6, 7):
        make_run(tmp_path / f"0002-s{seed}", 0.1, seed=seed, rate=1.0, state="diverged", images=EVEN)
    found = _of(StudyResults(Runs(tmp_path)))["instability"]
    assert found.words.endswith("from recipe.rate 1.0 on more runs diverge or stay at chance.")
    p = min(1.0, 2 * stats.fisher_exact([[8, 0], [0, 12]], alternative="greater").pvalue)
    assert found.evidence == (
        "There 2 diverged and 6 never left chance, of 8 runs; below it 0 diverged and 0 never left chance, of 12 runs; "
        f"Fisher's exact test, {written_p(p)}, corrected for 2 cuts"
    )


@pytest.mark.parametrize(
    ("val", "loss", "images"),
    [
        (0.14, 2.25, EVEN),  # Wilson's interval of 140 of 1,000: 0.12 to 0.16, clearly above 0.1
        (0.1, 1.9, EVEN),  # the loss has left chance
        (0.1, 2.303, None),  # a run that does not tell its classes
    ],
)
def test_a_run_that_has_learned_a_little_is_not_at_chance(
    tmp_path: Path, val: float, loss: float, images: tuple[int, ...] | None
) -> None:
    results = _rates(tmp_path, {0.01: (0.8, 0.6), 1.0: (val, loss)}, images)
    assert "instability" not in _of(results)


def test_chance_is_the_most_frequent_class(tmp_path: Path) -> None:
    """0.7 of three classes is guessing where one is 0.7 of all, with the entropy of the shares as its loss."""
    uneven = (700, 200, 100)
    found = chance_of(make_run(tmp_path / "one", 0.7, images=uneven))
    assert found is not None
    assert (found.accuracy, found.n_val) == (0.7, 1000)
    assert found.loss == pytest.approx(stats.entropy([0.7, 0.2, 0.1]))
    results = _rates(tmp_path / "runs", {0.01: (0.95, 0.2), 1.0: (0.7, 0.81)}, uneven)
    assert never_left_chance(results).tolist() == [False] * 6 + [True] * 6
    assert "0 diverged and 6 never left chance, of 6 runs" in _of(results)["instability"].evidence


@pytest.mark.parametrize("seed", range(3))
def test_chance_at_every_rate_is_no_sign_of_high_ones(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for number, rate in enumerate((0.01, 0.1, 1.0)):
        for run in range(6):
            stuck = bool(generator.random() < 0.4)
            val, loss = (0.1, 2.303) if stuck else (0.8, 0.6)
            make_run(tmp_path / f"{number:04d}-s{run}", val, loss=loss, seed=run, rate=rate, images=EVEN)
    assert never_left_chance(StudyResults(Runs(tmp_path))).any()
    assert "instability" not in _of(StudyResults(Runs(tmp_path)))


@pytest.mark.parametrize("seed", range(4))
def test_noise_shows_nothing(tmp_path: Path, seed: int) -> None:
    assert _of(_planted(tmp_path, lambda width, rate: 0.7, seed=seed)) == {}


@pytest.mark.parametrize("table", [(3, 1, 0, 4), (0, 5, 2, 3), (5, 0, 5, 0), (0, 4, 0, 4), (7, 2, 1, 9)])
def test_fishers_p_is_scipys(table: tuple[int, int, int, int]) -> None:
    a, b, c, d = table
    above, below = np.repeat([True, False], [a, b]), np.repeat([True, False], [c, d])
    assert _more_often(above, below) == pytest.approx(
        stats.fisher_exact([[a, b], [c, d]], alternative="greater").pvalue, rel=1e-9
    )


def test_a_step_pairs_runs_that_differ_in_one_setting_alone(tmp_path: Path) -> None:
    results = _planted(tmp_path, lambda width, rate: 0.5 + rate + 0.01 * width)
    found = step(results, "net.width", 4, 8)
    rows = results.rows.set_index(["recipe.rate", "seed"])
    sides = [
        {key: float(v) for key, v in enumerate(rows[rows["net.width"] == width].sort_index().val_accuracy)}
        for width in (8, 4)
    ]
    assert found is not None
    assert found.difference.value == pytest.approx(compare_seeds(*sides).difference.value)
    assert found.p == pytest.approx(compare_seeds(*sides).p)
