"""What came out beside what was reported: figures, their intervals and verdicts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from convscope.courses import Outcome, Reported, folder_of, reproduced
from convscope.courses.outcomes import estimate, figure, verdict_of
from convscope.runs import MODEL, make_spec
from convscope.scans import Estimate
from convscope.study import open_study, run_study
from convscope.training import Silent
from tests.conftest import write_spots
from tests.courses.repeats import NAME, TEXT, add, begin, ship, ship_texts
from tests.report.made import EPOCHS

ACCURACIES = {(1, 0): 0.70, (1, 1): 0.72, (1, 2): 0.71, (2, 0): 0.80, (2, 1): 0.84, (2, 2): 0.85}
ENOUGH = 10**12  # images with which chance by images is nothing


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ship(tmp_path, monkeypatch)
    return tmp_path / "runs"


@pytest.fixture
def done(out: Path) -> Path:
    """All six runs of the budget "full", with chosen accuracies."""
    folder = begin(out)
    for (number, seed), accuracy in ACCURACIES.items():
        add(folder, number, seed, accuracy)
    return out


def _told(value: float, n: int | None = 1000, metric: str = "test_accuracy") -> Reported:
    return Reported(what="a figure", metric=metric, value=value, n=n)


def _outcomes(out: Path, budget: str | None = None) -> dict[str, Outcome]:
    [found] = reproduced(out, [NAME], budget)
    return {outcome.reported.what: outcome for outcome in found.outcomes}


# intervals


@pytest.mark.parametrize("values", [[0.7, 0.72], [0.81, 0.8, 0.84], [0.5, 0.51, 0.49, 0.52, 0.47]])
def test_without_chance_by_images_it_is_students_mean_and_prediction(values: list[float]) -> None:
    found, difference = estimate(values, ENOUGH, _told(0.75, ENOUGH))
    line = sm.OLS(np.array(values), np.ones(len(values))).fit().get_prediction(np.ones((1, 1)))
    low, high = line.conf_int(obs=False, alpha=0.05)[0]
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high), abs=1e-5)
    low, high = line.conf_int(obs=True, alpha=0.05)[0]  # where the report's one run is to be expected
    assert (difference.low, difference.high) == pytest.approx((low - 0.75, high - 0.75), abs=1e-5)
    assert difference.value == pytest.approx(np.mean(values) - 0.75)


@pytest.mark.parametrize(("p", "n"), [(0.5, 4000), (0.87, 10_000), (0.998, 28_000)])
def test_of_one_seed_it_is_that_of_proportions(p: float, n: int) -> None:
    found, difference = estimate([p], n, _told(0.9, 10_000))
    assert (found.low, found.high) == pytest.approx(proportion_confint(p * n, n, method="normal"), abs=2e-4)
    wald = confint_proportions_2indep(round(p * n), n, 9000, 10_000, method="wald", compare="diff")
    assert (difference.low, difference.high) == pytest.approx(wald, abs=2e-4)


def test_equal_seeds_leave_the_chance_by_images() -> None:
    for one, several in zip(estimate([0.8], 1000, _told(0.7)), estimate([0.8] * 4, 1000, _told(0.7)), strict=True):
        assert several.figures == pytest.approx(one.figures)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_of_all_has_an_interval_within_what_can_be(share: float) -> None:
    found, difference = estimate([share], 100, _told(share, 100))
    low, high = proportion_confint(100 * share, 100, method="wilson")
    assert found.low == 0 if share == 0 else found.high == 1
    assert found.high - found.low == pytest.approx(high - low, rel=0.5)
    assert difference.low < 0 < difference.high


@pytest.mark.parametrize(
    ("n_seeds", "spread", "n_images"),
    [(1, 0.0, 1000), (2, 0.01, 2000), (3, 0.01, 10_000), (5, 0.02, 300)],
)
def test_the_intervals_hold_a_planted_truth_as_often_as_they_say(n_seeds: int, spread: float, n_images: int) -> None:
    """Seeds on both sides vary alike, each side has test images of its own, and ours are the same for all our seeds."""
    generator = np.random.default_rng(n_seeds)
    ours, theirs, n_theirs, repeats = 0.80, 0.78, 1500, 800
    held = np.zeros((repeats, 2))
    for place in range(repeats):
        by_images = generator.binomial(n_images, ours) / n_images - ours
        values = ours + by_images + generator.normal(0, spread, n_seeds)
        told = theirs + generator.normal(0, spread)
        reported = _told(float(generator.binomial(n_theirs, told) / n_theirs), n_theirs)
        found, gap = estimate(values.tolist(), n_images, reported)
        held[place] = found.low <= ours <= found.high, gap.low <= ours - theirs <= gap.high
    chance = 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert (held.mean(0) >= 0.95 - chance).all(), held.mean(0)
    widest = {1: 0.95, 2: 1.0, 3: 0.99, 5: 0.98}[n_seeds]  # the sum of t and normal parts is wider for few seeds
    assert (held.mean(0) <= widest + chance).all(), held.mean(0)


def test_other_figures_have_no_image_chance_and_no_interval_of_the_difference() -> None:
    found, difference = estimate([20.0, 24.0], 1000, _told(24.5, None, "overfit_percent"))
    low, high = stats.t.interval(0.95, 1, loc=22, scale=2)
    assert (found.value, found.low, found.high) == pytest.approx((22, low, high), rel=1e-6)
    assert difference == Estimate(-2.5, None, None)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.5, "higher"), (-0.5, -0.001, "lower"), (-0.03, 0.03, "agrees"), (-0.031, 0.01, "cannot be told"),
        (-0.01, 0.031, "cannot be told"), (0.0, 0.02, "agrees"), (-0.02, 0.0, "agrees"), (-0.4, 0.4, "cannot be told"),
    ],
)  # fmt: skip
def test_the_verdict_is_what_the_interval_says(low: float, high: float, verdict: str) -> None:
    assert verdict_of(Estimate((low + high) / 2, low, high)) == verdict


# folders


def test_a_figure_of_one_setting_is_the_mean_of_its_seeds(done: Path) -> None:
    found = _outcomes(done)["the narrow one"]
    assert found.found.value == pytest.approx(0.71)
    assert (found.n_seeds, found.n_settings, found.n_missing, found.n_images) == (3, 1, 0, 1000)
    mean, difference = estimate([0.70, 0.72, 0.71], 1000, _told(0.8))
    assert found.found.figures == pytest.approx(mean.figures)
    assert found.difference.figures == pytest.approx(difference.figures)
    assert found.verdict == "lower"
    wilson = proportion_confint(800, 1000, method="wilson")
    assert (found.reported_interval.low, found.reported_interval.high) == pytest.approx(wilson)


def test_a_figure_of_several_settings_is_of_each_seed_their_mean(done: Path) -> None:
    found = _outcomes(done)["both"]
    by_seed = [(0.70 + 0.80) / 2, (0.72 + 0.84) / 2, (0.71 + 0.85) / 2]
    assert found.found.value == pytest.approx(np.mean(by_seed))
    assert (found.n_seeds, found.n_settings) == (3, 2)
    assert found.difference.figures == pytest.approx(estimate(by_seed, 1000, _told(0.8))[1].figures)
    assert found.verdict == "cannot be told"  # −2 points, give or take 10


def test_each_metric_is_that_of_the_run_folder(done: Path) -> None:
    run = open_study(folder_of(done, "full", NAME)).runs[0].open()
    val = 0.71  # what tests.report.made makes of a test accuracy of 0.70
    assert figure(run, "test_accuracy") == (0.70, 1000)
    assert figure(run, "train_accuracy") == (pytest.approx(val), 4000)
    steps = [val * (epoch + 1) / EPOCHS for epoch in range(EPOCHS)]
    assert figure(run, "mean_val_accuracy") == (pytest.approx(np.mean(steps)), 2000)
    assert figure(run, "overfit_percent")[0] == pytest.approx(-5)
    assert figure(run, "heads.angle.accuracy") == (0.25, 1000)


def test_every_metric_of_a_run_that_was_trained(tmp_path: Path) -> None:
    given = {"data": str(write_spots(tmp_path / "spots.npz")), "net": "c4b f8", "recipe": {"epochs": 2, "batch": 24}}
    reported = run_study(make_spec(given), tmp_path / "run", device="cpu", watcher=Silent())
    epochs, metrics, images = reported.history, reported.metrics, reported.environment["data"]["images"]
    assert figure(reported, "test_accuracy") == (metrics["accuracy"]["value"], images["test"])
    assert figure(reported, "train_accuracy") == (epochs.train_accuracy.iloc[-1], images["train"])
    assert figure(reported, "mean_val_accuracy") == (pytest.approx(np.mean(epochs.val_accuracy)), images["val"])
    overfit = 100 * (metrics["train_accuracy"]["value"] - metrics["accuracy"]["value"])
    assert figure(reported, "overfit_percent")[0] == pytest.approx(overfit)
    [head] = metrics["heads"]
    assert figure(reported, f"heads.{head}.accuracy")[0] == metrics["heads"][head]["accuracy"]["value"]


def test_counts_need_no_run_and_are_equal_or_differ(out: Path) -> None:
    found = _outcomes(out)
    assert (found["parameters"].found.value, found["parameters"].verdict) == (173_026, "equal")
    misprinted = found["parameters as misprinted"]
    assert (misprinted.verdict, misprinted.difference.value) == ("differs", -1)


def test_overfitting_is_shown_and_not_judged(done: Path) -> None:
    found = _outcomes(done)["overfit %"]
    assert found.found.value == pytest.approx(100 * np.mean(list(ACCURACIES.values())) - 75)
    assert (found.verdict, found.reported_interval) == ("not compared", Estimate(None, None, None))


def test_before_the_first_run_nothing_came_out(out: Path) -> None:
    [found] = reproduced(out, [NAME])
    assert (found.budget, found.n_runs, found.environment) == ("full", 0, None)
    told = {outcome.reported.what: outcome.verdict for outcome in found.outcomes}
    assert set(told.values()) == {"not run", "equal", "differs"}
    begin(out)
    [found] = reproduced(out, [NAME])
    assert (found.n_done, found.n_runs) == (0, 6)
    assert {outcome.reported.what: outcome.verdict for outcome in found.outcomes} == told
    assert found.outcomes[0].n_missing == 3


def test_while_runs_are_to_come_no_verdict_is_given(out: Path) -> None:
    folder = begin(out)
    (add(folder, 1, 0, 0.7) / MODEL).unlink()
    found = _outcomes(out)
    assert (found["the narrow one"].verdict, found["the narrow one"].found.value) == ("unfinished", None)
    assert found["the wide one, train"].verdict == "not run"
    add(folder, 1, 1, 0.72)
    narrow = _outcomes(out)["the narrow one"]
    assert (narrow.verdict, narrow.found.value, narrow.n_missing) == ("unfinished", 0.72, 2)


def test_a_seed_of_which_settings_are_missing_is_left_out_of_a_mean_over_settings(out: Path) -> None:
    folder = begin(out)
    for (number, seed), accuracy in ACCURACIES.items():
        if (number, seed) != (2, 2):
            add(folder, number, seed, accuracy)
    both = _outcomes(out)["both"]
    assert both.found.value == pytest.approx((0.75 + 0.78) / 2)  # with the third's 0.71 it would be lower
    assert (both.n_seeds, both.n_missing, both.verdict) == (2, 1, "unfinished")


def test_a_run_that_failed_is_a_problem_and_the_others_are_judged(out: Path) -> None:
    folder = begin(out)
    for (number, seed), accuracy in ACCURACIES.items():
        gone = {"state": "diverged", "message": "the loss is infinite"} if (number, seed) == (1, 2) else {}
        add(folder, number, seed, accuracy - 0.2, **gone)
    [found] = reproduced(out, [NAME])
    assert found.problems == ("0001-s2 diverged: the loss is infinite",)
    narrow = found.outcomes[0]
    assert narrow.found.value == pytest.approx(0.51)
    assert (narrow.n_seeds, narrow.n_missing) == (2, 1)
    assert narrow.verdict == "lower"  # not "unfinished": no run is to come


def test_settings_that_have_changed_since_are_a_problem(done: Path) -> None:
    assert reproduced(done, [NAME])[0].problems == ()
    asked = folder_of(done, "full", NAME) / "study.yaml"
    asked.write_text(asked.read_text().replace("epochs: 3", "epochs: 4"))
    [problem] = reproduced(done, [NAME])[0].problems
    assert problem == "these runs were made with other settings than the study has now (recipe)"


def test_the_largest_budget_with_a_finished_run_is_shown(out: Path) -> None:
    add(begin(out, "smoke"), 1, 0, 0.5)
    begin(out, "laptop")
    assert reproduced(out, [NAME])[0].budget == "smoke"
    add(folder_of(out, "laptop", NAME), 1, 0, 0.6)
    assert reproduced(out, [NAME])[0].budget == "laptop"
    assert reproduced(out, [NAME], "smoke")[0].outcomes[0].found.value == 0.5
    assert reproduced(out, [NAME], "full")[0].n_runs == 0


def test_the_smoke_budget_judges_nothing_and_laptop_does(out: Path) -> None:
    for budget, seeds in (("smoke", [0]), ("laptop", [0, 1])):
        folder = begin(out, budget)
        for seed in seeds:
            add(folder, 1, seed, 0.5)
    assert _outcomes(out, "smoke")["the narrow one"].verdict == "not compared"
    assert _outcomes(out, "laptop")["the narrow one"].verdict == "lower"


def test_time_images_and_where_they_came_from(done: Path) -> None:
    [found] = reproduced(done, [NAME])
    assert (found.n_done, found.n_runs) == (6, 6)
    assert found.seconds == pytest.approx(6 * EPOCHS * 0.5)
    assert (found.data, found.digest, found.is_lossy) == ("spots.npz", "ab" * 32, False)


@pytest.mark.parametrize(
    ("source", "copy", "expected"),
    [("cifar10", "copy in CONVSCOPE_DATA, JPEG", True), ("cifar10", "hub, PNG", False), ("cats-dogs", "JPEG", False)],
)
def test_a_copy_in_jpeg_of_a_set_without_loss_is_lossy(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, copy: str, expected: bool
) -> None:
    ship_texts(monkeypatch, {NAME: TEXT.format(source=source)})
    for path in folder_of(done, "full", NAME).glob("runs/*/environment.json"):
        known = json.loads(path.read_text())
        path.write_text(json.dumps({**known, "data": {**known["data"], "source": copy}}))
    assert reproduced(done, [NAME])[0].is_lossy == expected
