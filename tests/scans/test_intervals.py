import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from convscope.scans import (
    bootstrap,
    difference,
    f_score,
    mean,
    mean_of,
    mean_over_classes,
    paired_difference,
    proportion,
)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_proportion_is_wilsons_interval(counts: tuple[int, int]) -> None:
    right, n = counts
    found = proportion(right, n)
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert found.value == right / n
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


def test_a_share_of_nothing_is_not_defined() -> None:
    assert proportion(0, 0).value is None
    assert f_score(0, 0, 0).value is None


def test_f_score_is_scikit_learns() -> None:
    true, predicted = np.array([1, 1, 1, 1, 0, 0, 0, 1, 0, 0]), np.array([1, 0, 1, 1, 1, 0, 0, 1, 0, 1])
    right = int(((true == 1) & (predicted == 1)).sum())
    found = f_score(right, int(predicted.sum()), int(true.sum()))
    assert found.value == pytest.approx(f1_score(true, predicted))
    assert 0 < found.low < found.value < found.high < 1


@pytest.mark.parametrize("n", [2, 3, 4, 7, 30, 201, 202, 5000])
def test_the_mean_of_images_is_students_interval(n: int) -> None:
    """To 2e-7 of the width: beyond 200 degrees of freedom a series is used."""
    values = np.random.default_rng(n).exponential(size=n)
    found = mean_of(values.tolist())
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-7 * (high - low))


def test_the_mean_of_few_images() -> None:
    assert mean_of([]).value is None
    single = mean_of([0.3])
    assert (single.value, single.low, single.high) == (0.3, None, None)
    assert mean_of([0.0, 0.1, 0.9], 0, 1).low == 0
    assert mean_of([0.5, 0.5]).figures == (0.5, 0.5, 0.5)


def test_mean_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).exponential(size=400)
    found = mean(values.sum(), (values**2).sum(), len(values))
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_difference_is_newcombes_example() -> None:
    """Newcombe 1998, table II, (a): 56/70 - 48/80 = 0.2 with 0.0524 to 0.3339 by method 10."""
    found = difference(proportion(56, 70), proportion(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_bootstrap_of_a_share_agrees_with_scipys() -> None:
    counts = np.array([150, 50])
    found = bootstrap(counts, lambda tables: tables[:, 0] / tables.sum(1))
    data = (np.repeat([1.0, 0.0], counts),)
    expected = stats.bootstrap(data, np.mean, n_resamples=3000, method="percentile", rng=1).confidence_interval
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    """Of 300 samples of 200 images the 95 % interval must hold the true share in 95 %: 300 × 0.95 ± 4 standard errors."""
    draws = np.random.default_rng(7).binomial(200, 0.7, size=300)
    held = 0
    for right in draws:
        found = bootstrap(np.array([right, 200 - right]), lambda tables: tables[:, 0] / tables.sum(1))
        held += found.low <= 0.7 <= found.high
    assert 285 - 4 * (300 * 0.95 * 0.05) ** 0.5 <= held <= 300


def test_the_mean_of_one_class_has_the_classs_interval() -> None:
    one = proportion(7, 9)
    assert mean_over_classes([one]) == one


def test_a_mean_without_any_error_keeps_a_width() -> None:
    found = mean_over_classes([proportion(50, 50)] * 4)
    assert found.value == found.high == 1
    assert 0.95 < found.low < 0.99


@pytest.mark.parametrize("accuracy", [0.6, 0.95])
def test_means_over_classes_cover_the_truth_as_often_as_they_say(accuracy: float) -> None:
    """Confusion matrices of 4 classes × 60 images, drawn 400 times; recall's, precision's and F1's mean must be held."""
    generator = np.random.default_rng(5)
    chances = np.full((4, 4), (1 - accuracy) / 3)
    np.fill_diagonal(chances, accuracy)
    held = dict.fromkeys(("recall", "precision", "f1"), 0)
    for _ in range(400):
        matrix = np.stack([generator.multinomial(60, row) for row in chances])
        right, images, predicted = (c.tolist() for c in (matrix.diagonal(), matrix.sum(1), matrix.sum(0)))
        found = {
            "recall": mean_over_classes(list(map(proportion, right, images))),
            "precision": mean_over_classes(list(map(proportion, right, predicted))),
            "f1": mean_over_classes(list(map(f_score, right, predicted, images)), 2),
        }
        for key, estimate in found.items():  # by symmetry all three means are the accuracy
            held[key] += estimate.low <= accuracy <= estimate.high
    least = 380 - 4 * (400 * 0.95 * 0.05) ** 0.5
    assert all(count >= least for count in held.values()), held


def test_a_paired_difference_is_the_published_example() -> None:
    """Altman et al. 2000, "Statistics with Confidence", table 6.2: 0.122 with 0.011 to 0.226."""
    found = paired_difference(14, 5, 0, 22)
    assert [round(figure, 3) for figure in found.figures] == [0.122, 0.011, 0.226]


@given(st.tuples(*[st.integers(0, 60)] * 4))
def test_a_paired_difference_does_not_mind_which_way_is_first(counts: tuple[int, int, int, int]) -> None:
    both, first, second, neither = counts
    found, turned = paired_difference(both, first, second, neither), paired_difference(both, second, first, neither)
    wrong_for_right = paired_difference(neither, second, first, both)
    if not sum(counts):
        assert found.value is None
        return
    assert found.value == (first - second) / sum(counts)
    assert -1 - 1e-12 <= found.low <= found.value <= found.high <= 1 + 1e-12
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert wrong_for_right.figures == pytest.approx(turned.figures)


@pytest.mark.slow
def test_a_paired_difference_covers_the_truth_as_often_as_it_says() -> None:
    """Of all outcomes of 30 images, weighed by their probability: 95 % to within 2.5 %."""
    n, shares = 30, (0.6, 0.15, 0.05, 0.2)
    covered = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            for c in range(n + 1 - a - b):
                counts = (a, b, c, n - a - b - c)
                found = paired_difference(*counts)
                covered += (found.low <= 0.1 <= found.high) * float(stats.multinomial.pmf(counts, n, shares))
    assert 0.925 < covered < 0.975
