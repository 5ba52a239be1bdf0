"""Findings of a study appear where they were planted, and not on noise."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from convscope.report.study_findings import Finding, _more_often, step, study_findings
from convscope.report.swept import Swept
from convscope.study import Runs, compare_seeds
from tests.report.made import make_run

WIDTHS, RATES, SEEDS = (4, 8, 16, 32), (0.01, 0.1), range(4)


def _planted(
    folder: Path, val: Callable[[int, float], float], gap: float = 0.0, diverged: bool = False, seed: int = 0
) -> Swept:
    """A grid of widths and rates with a little noise; the last rate diverges where it is said."""
    generator = np.random.default_rng(seed)
    for number, (width, rate) in enumerate((w, r) for w in WIDTHS for r in RATES):
        for run in SEEDS:
            found = val(width, rate) + float(generator.normal(0, 0.004))
            state = "diverged" if diverged and rate == RATES[-1] and run else "finished"
            train = found + gap + float(generator.normal(0, 0.004))
            make_run(folder / f"{number:04d}-s{run}", found, train=train, seed=run, rate=rate, width=width, state=state)
    return Swept(Runs(folder))


def _of(swept: Swept) -> dict[str, Finding]:
    return {one.kind: one for one in study_findings(swept)}


def test_a_width_of_diminishing_returns(tmp_path: Path) -> None:
    swept = _planted(tmp_path, lambda width, rate: 0.7 + {4: 0.0, 8: 0.1}.get(width, 0.14))
    found = _of(swept)
    assert set(found) == {"importance", "returns"}
    assert found["importance"].words == "Only net.width clearly matters for validation accuracy."
    assert found["returns"].words.startswith("net.width has diminishing returns: up to 16 each step gains")
    ended = swept.ended.set_index(["net.width", "recipe.rate", "seed"]).val_accuracy
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
    assert _of(Swept(Runs(tmp_path))) == {}
    (tmp_path / "study.yaml").write_text("metric: val_loss\n")
    swept = Swept(Runs(tmp_path))
    found = _of(swept)
    assert set(found) == {"importance", "returns"}
    assert found["importance"].words == "Only net.width clearly matters for validation loss."
    assert found["returns"].words.startswith("net.width has diminishing returns: up to 16 each step gains")
    ended = swept.ended.set_index(["net.width", "seed"]).val_loss
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


def test_runs_that_diverge_at_the_high_rate(tmp_path: Path) -> None:
    found = _of(_planted(tmp_path, lambda width, rate: 0.7, diverged=True))
    p = stats.fisher_exact([[12, 4], [0, 16]], alternative="greater").pvalue
    assert p < 0.0001
    assert found["instability"].evidence == (
        "12 of 16 runs diverged there, 0 of 16 runs below; Fisher's exact test, p < 0.0001"
    )


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
    swept = _planted(tmp_path, lambda width, rate: 0.5 + rate + 0.01 * width)
    found = step(swept, "net.width", 4, 8)
    rows = swept.rows.set_index(["recipe.rate", "seed"])
    sides = [
        {key: float(v) for key, v in enumerate(rows[rows["net.width"] == width].sort_index().val_accuracy)}
        for width in (8, 4)
    ]
    assert found is not None
    assert found.difference.value == pytest.approx(compare_seeds(*sides).difference.value)
    assert found.p == pytest.approx(compare_seeds(*sides).p)
