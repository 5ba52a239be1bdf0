import math
from dataclasses import astuple
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from convscope.errors import RequestError
from convscope.scans import Estimate
from convscope.study import compare_images, compare_seeds, differs, holm, mcnemar, summary

VALUES = st.lists(st.integers(-999, 999).map(lambda eighths: eighths / 8), min_size=2, max_size=8, unique=True)
PROBABILITIES = st.lists(st.floats(0, 1), max_size=12)


def within_4_errors(held: int, n: int, chance: float) -> bool:
    return abs(held - n * chance) <= 4 * math.sqrt(n * chance * (1 - chance))


def by_seed(values: list[float] | np.ndarray, first: int = 0) -> dict[int, float]:
    return {first + i: float(v) for i, v in enumerate(values)}


def answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    cells = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], cells), np.repeat([True, False, True, False], cells)


def test_a_summary_is_students_interval() -> None:
    values = [0.961, 0.957, 0.970, 0.949]
    found = summary(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.mean.value, found.deviation, found.n) == pytest.approx((np.mean(values), stats.tstd(values), 4))
    assert (found.mean.low, found.mean.high) == pytest.approx((expected.low, expected.high))


def test_a_summary_of_few_runs_says_what_it_lacks() -> None:
    none, one, diverged = summary([]), summary([0.9]), summary([0.9, math.nan, math.inf, 0.8])
    assert (none.mean.value, none.deviation, none.n) == (None, None, 0)
    assert (one.mean.value, one.mean.low, one.deviation, one.n) == (0.9, None, None, 1)
    assert (diverged.n, diverged.not_finite) == (2, 2)
    assert diverged.mean == summary([0.9, 0.8]).mean


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 3), (0, 6), (9, 1), (40, 25), (700, 612)])
def test_mcnemar_is_statsmodels(only_a: int, only_b: int) -> None:
    expected = statsmodels_mcnemar([[50, only_a], [only_b, 7]], exact=True).pvalue
    assert mcnemar(only_a, only_b) == pytest.approx(float(expected), rel=1e-9)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_a_two_sided_binomial(only_a: int, only_b: int) -> None:
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


def test_images_are_counted_in_four_cells() -> None:
    a = np.array([True, True, True, False, False, True])
    b = np.array([True, False, False, True, False, False])
    found = compare_images(a, b)
    assert (found.both, found.only_a, found.only_b, found.neither, found.n) == (1, 3, 1, 1, 6)
    assert found.difference.value == pytest.approx(2 / 6)
    assert found.p == pytest.approx(2 * (1 + 4) / 16)  # 0 or 1 of 4, either way


def test_the_interval_is_scipys_bootstrap_of_the_images() -> None:
    a, b = answers(700, 90, 50, 160)
    found = compare_images(a, b).difference
    data = (a.astype(float) - b,)
    expected = stats.bootstrap(data, np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.002)  # of a width of 0.046


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = answers(700, 90, 50, 160)
    assert compare_images(a, b) == compare_images(a, b)
    assert compare_images(a, b).difference.low != compare_images(a, b, seed=1, resamples=999).difference.low


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_swapped_classifiers_mirror_the_difference(cells: tuple[int, int, int, int]) -> None:
    a, b = answers(*cells)
    there, back = compare_images(a, b, resamples=2000), compare_images(b, a, resamples=2000)
    assert (there.only_a, there.only_b, there.p) == (back.only_b, back.only_a, back.p)
    low, high = there.difference.low, there.difference.high
    assert there.difference.value == -back.difference.value
    assert (-back.difference.high, -back.difference.low) == pytest.approx((low, high), abs=0.15 * (high - low))


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any), st.integers(0, 99))
def test_the_order_of_the_images_does_not_matter(cells: tuple[int, int, int, int], seed: int) -> None:
    a, b = answers(*cells)
    order = np.random.default_rng(seed).permutation(len(a))
    assert compare_images(a[order], b[order], resamples=50) == compare_images(a, b, resamples=50)


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_interval_holds_zero_where_the_test_cannot_tell(only_a: int, only_b: int) -> None:
    found = compare_images(*answers(900, only_a, only_b, 50), resamples=200)
    if found.p >= 0.05:
        assert found.difference.low <= 0 <= found.difference.high
        assert not differs(found)


def test_equal_answers_keep_a_width() -> None:
    found = compare_images(*answers(950, 0, 0, 50))
    assert (found.difference.value, found.p) == (0, 1)
    assert found.difference.low < 0 < found.difference.high


@pytest.mark.parametrize("cells", [(0.05, 0.03), (0.03, 0.03), (0.008, 0.002), (0.004, 0.0)])
def test_intervals_over_images_hold_the_truth_as_often_as_they_say(cells: tuple[float, float]) -> None:
    """400 pairs of classifiers on 1,000 images: held in 95 % less 4 standard errors, or more where images are few."""
    generator, held = np.random.default_rng(3), 0
    for _ in range(400):
        only_a, only_b, both, neither = generator.multinomial(1000, [*cells, 0.85, 0.15 - sum(cells)])
        found = compare_images(*answers(both, only_a, only_b, neither), resamples=500).difference
        held += found.low <= cells[0] - cells[1] <= found.high
    assert held >= 380 - 4 * math.sqrt(400 * 0.95 * 0.05)


def test_equally_good_classifiers_are_told_apart_in_at_most_5_percent() -> None:
    """The exact test is a discrete one: of 1,000 pairs with some 100 images between them it errs in 3 to 5 %."""
    generator, told = np.random.default_rng(4), 0
    for _ in range(1000):
        only_a, only_b, both, neither = generator.multinomial(1000, [0.05, 0.05, 0.8, 0.1])
        told += differs(compare_images(*answers(both, only_a, only_b, neither), resamples=100))
    assert 10 <= told <= 50 + 4 * math.sqrt(1000 * 0.05 * 0.95)


@given(VALUES, st.integers(0, 99))
def test_the_same_seeds_are_a_paired_t_test(a: list[float], seed: int) -> None:
    b = np.random.default_rng(seed).normal(size=len(a)).tolist()
    found, expected = compare_seeds(by_seed(a), by_seed(b)), stats.ttest_rel(a, b)
    interval = expected.confidence_interval()
    assert found.paired
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (interval.low, interval.high), rel=1e-6, abs=1e-6
    )


@given(VALUES, VALUES)
def test_other_seeds_are_welchs_test(a: list[float], b: list[float]) -> None:
    found = compare_seeds(by_seed(a), by_seed(b, first=1))
    expected = stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval()
    assert not found.paired
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (interval.low, interval.high), rel=1e-6, abs=1e-6
    )


def test_pairs_are_of_the_same_seed_whatever_the_order_of_the_runs() -> None:
    """By seed the differences are 0.02, 0.03 and 0.01; in the order given they would be -0.08, 0.03 and 0.11."""
    found = compare_seeds({0: 0.92, 1: 0.83, 2: 0.71}, {2: 0.70, 1: 0.80, 0: 0.90})
    assert found.difference.value == pytest.approx(0.02)
    assert found.deviation == pytest.approx(0.01)
    assert found.p == pytest.approx(stats.ttest_1samp([0.02, 0.03, 0.01], 0).pvalue)


@given(VALUES, VALUES, st.integers(0, 3))
def test_swapped_settings_mirror_the_difference_and_order_does_not_matter(
    a: list[float], b: list[float], first: int
) -> None:
    one, other = by_seed(a), by_seed(b, first)
    there, back = compare_seeds(one, other), compare_seeds(other, one)
    mirrored = Estimate(
        *(f if f is None else -f for f in (back.difference.value, back.difference.high, back.difference.low))
    )
    assert astuple(there.difference) == pytest.approx(astuple(mirrored))
    assert (there.p, there.n_a, there.n_b) == (pytest.approx(back.p), back.n_b, back.n_a)
    reverse = compare_seeds(dict(reversed(one.items())), dict(reversed(other.items())))
    assert (reverse.difference.value, reverse.p) == pytest.approx((there.difference.value, there.p))


@pytest.mark.parametrize(
    ("n_a", "n_b", "first", "spread"), [(2, 2, 0, 1.0), (5, 5, 0, 3.0), (6, 4, 1, 1.0), (8, 8, 1, 2.0)]
)
def test_tests_over_seeds_err_and_hold_as_often_as_they_say(n_a: int, n_b: int, first: int, spread: float) -> None:
    """2,000 studies without and with a difference: 5 % wrong, 95 % held, within 4 standard errors."""
    generator, told, held = np.random.default_rng(5), 0, 0
    for _ in range(2000):
        a, b = generator.normal(0.9, 0.01, n_a), generator.normal(0.9, 0.01 * spread, n_b)
        told += differs(compare_seeds(by_seed(a), by_seed(b, first)))
        found = compare_seeds(by_seed(a + 0.02), by_seed(b, first)).difference
        held += found.low <= 0.02 <= found.high
    assert within_4_errors(told, 2000, 0.05)
    assert within_4_errors(held, 2000, 0.95)


def test_a_single_seed_gives_a_difference_and_no_more() -> None:
    for b in ({0: 0.75}, {1: 0.75}, {0: 0.75, 1: 0.75}):
        found = compare_seeds({0: 1.0}, b)
        assert (found.difference.value, found.difference.low, found.p, found.deviation) == (0.25, None, None, None)
        assert not differs(found)


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_values_without_spread_are_judged_by_exchange(n: int) -> None:
    """SciPy's permutation tests count the ways; the t test would say p = 0 of two equal pairs."""
    a, b = [0.9 + i / 10 for i in range(n)], [0.8 + i / 10 for i in range(n)]  # equal differences but for rounding
    found = compare_seeds(by_seed(a), by_seed(b))
    counted = stats.permutation_test((np.full(n, 0.1),), np.mean, permutation_type="samples")
    assert found.p == pytest.approx(counted.pvalue)
    assert (found.difference.low, found.deviation) == (None, 0)
    apart = compare_seeds(by_seed([0.9] * n), by_seed([0.8] * n, first=1))
    assert apart.p == pytest.approx(2 / math.comb(2 * n, n))
    assert compare_seeds(by_seed([0.9] * n), by_seed([0.9] * n)).p == 1


@given(PROBABILITIES)
def test_holm_is_statsmodels(ps: list[float]) -> None:
    with patch("gc.collect"):  # at each call, which takes most of a second where much is loaded
        expected = multipletests(ps, method="holm")[1] if ps else []
    assert holm(ps) == pytest.approx(list(expected))


@given(PROBABILITIES, st.integers(0, 99))
def test_holm_keeps_the_order_and_never_lowers_a_p(ps: list[float], seed: int) -> None:
    corrected = holm(ps)
    assert [c for _, c in sorted(zip(ps, corrected, strict=True))] == sorted(corrected)
    assert all(p <= c <= 1 for p, c in zip(ps, corrected, strict=True))
    order = np.random.default_rng(seed).permutation(len(ps))
    assert holm([ps[i] for i in order]) == [corrected[i] for i in order]


def test_holm_does_not_count_what_was_not_tested() -> None:
    assert holm([0.01, None, 0.04, None]) == [0.02, None, 0.04, None]


def test_of_families_without_any_difference_5_percent_are_told_apart() -> None:
    """10 tests a family: uncorrected, 40 % would have one below 0.05."""
    families = np.random.default_rng(6).random((2000, 10)).tolist()
    assert within_4_errors(sum(min(holm(ps)) < 0.05 for ps in families), 2000, 1 - (1 - 0.005) ** 10)


YES, NO = np.ones(3, bool), np.zeros(4, bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_images(YES, NO), "A answered 3 images and B 4; expected the same test images"),
        (lambda: compare_images(YES[:0], YES[:0]), "A answered 0 images and B 0"),
        (
            lambda: compare_images(np.array([0.5, 0.5]), YES[:2]),
            "given are float64 (2,) and bool (2,): give two lines of booleans",
        ),
        (lambda: compare_seeds({}, {0: 0.5}), "A has no runs; expected a value of each seed"),
        (lambda: compare_seeds({0: 0.5}, {0: 0.5, 7: math.nan}), "B: seed 7 has nan; expected finite numbers"),
        (lambda: holm([0.5, 1.5]), "p = 1.5 is no probability"),
        (lambda: holm([math.nan]), "p = nan is no probability"),
    ],
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_what_cannot_be_compared_is_refused_with_one_line(call: object, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        call()  # type: ignore[operator]
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
