import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import integrate, stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from convscope.scans import Estimate
from convscope.study import (
    ImageComparison,
    SeedComparison,
    compare_seeds,
    differs,
    mcnemar,
    more_images,
    more_seeds,
    seeds_power,
)


def seeds(
    difference: float, deviation: float | None, n: int = 3, paired: bool = True, p: float = 0.5
) -> SeedComparison:
    return SeedComparison(n, n, paired, Estimate(difference, None, None), deviation, p)


def images(only_a: int, only_b: int, n: int = 1000) -> ImageComparison:
    return ImageComparison(n - only_a - only_b, only_a, only_b, 0, Estimate(0, 0, 0), 0.5)


@pytest.mark.parametrize("effect", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("n", [2, 3, 8, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_is_statsmodels(effect: float, n: int, alpha: float) -> None:
    assert seeds_power(effect, n, True, alpha) == pytest.approx(TTestPower().power(effect, n, alpha), abs=1e-6)
    assert seeds_power(effect, n, False, alpha) == pytest.approx(TTestIndPower().power(effect, n, alpha), abs=1e-6)


def integral(shift: float, freedom: int, alpha: float) -> float:
    """The power of a t test, over all deviations that may be seen."""
    limit = stats.t.isf(alpha / 2, freedom)

    def told(share: float) -> float:
        spread = limit * (stats.chi2.ppf(share, freedom) / freedom) ** 0.5
        return stats.norm.cdf(shift - spread) + stats.norm.cdf(-shift - spread)

    return float(integrate.quad(told, 0, 1, limit=200)[0])


@pytest.mark.parametrize(("effect", "n"), [(0.5, 2), (4.0, 8), (15.0, 2), (25.0, 2), (60.0, 2), (200.0, 3), (3.0, 200)])
@pytest.mark.parametrize("alpha", [0.05, 1e-3])
def test_power_is_the_integral_over_the_deviations(effect: float, n: int, alpha: float) -> None:
    """Also where statsmodels and SciPy's noncentral t have no number."""
    shift = effect * n**0.5
    found, expected = seeds_power(effect, n, True, alpha), integral(shift, n - 1, alpha)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("n", "alpha"), [(559, 1e-4), (795, 1e-3)])
def test_power_is_a_number_where_scipy_has_none_for_the_wrong_way(n: int, alpha: float) -> None:
    """There the chance of a clear difference the other way round is below 1e-15."""
    assert seeds_power(0.25, n, False, alpha) == pytest.approx(
        integral(0.25 * (n / 2) ** 0.5, 2 * n - 2, alpha), abs=1e-6
    )


@pytest.mark.parametrize("n", [5, 7, 9])
def test_power_is_one_where_scipys_noncentral_t_is_not_a_number(n: int) -> None:
    """SciPy 1.17 has none at some shifts from 38 to 70, none of them round."""
    effects = np.linspace(38, 70, 3000) / n**0.5
    assert all(seeds_power(effect, n, True) == pytest.approx(1) for effect in effects.tolist())


@given(st.floats(0, 1e4), st.integers(2, 1000), st.booleans(), st.sampled_from([0.05, 0.01, 1e-4]))
def test_power_rises_with_the_effect_and_with_the_seeds(effect: float, n: int, paired: bool, alpha: float) -> None:
    here = seeds_power(effect, n, paired, alpha)
    assert alpha - 1e-9 <= here <= 1 + 1e-12
    for more in (seeds_power(1.1 * effect, n, paired, alpha), seeds_power(effect, n + 1, paired, alpha)):
        assert more >= here - 3e-3  # where the noncentral t is not a number, a limit stands in for it


@pytest.mark.parametrize(("difference", "deviation"), [(0.010, 0.012), (0.002, 0.010), (0.05, 0.01)])
def test_the_seeds_needed_are_statsmodels(difference: float, deviation: float) -> None:
    effect = difference / deviation
    paired = TTestPower().solve_power(effect, power=0.8, alpha=0.05)
    apart = TTestIndPower().solve_power(effect, power=0.8, alpha=0.05)
    assert more_seeds(seeds(-difference, deviation)) == max(1, np.ceil(paired) - 3)
    assert more_seeds(seeds(difference, deviation, paired=False)) == max(1, np.ceil(apart) - 3)


@pytest.mark.parametrize("first", [0, 1000])
def test_with_the_seeds_needed_the_difference_is_told_as_often_as_promised(first: int) -> None:
    """1,000 studies with 3 and as many more seeds as asked for: told in 80 %, or a little more, for n is a whole number."""
    deviation = 0.02 * (1 if first else 2**0.5)  # of a run, or of a difference of two
    n = 3 + more_seeds(seeds(0.02, deviation, paired=not first))
    generator, told = np.random.default_rng(8), 0
    for _ in range(1000):
        a, b = (generator.normal(mean, 0.02, n) for mean in (0.92, 0.90))
        told += differs(compare_seeds(dict(enumerate(a.tolist())), dict(enumerate(b.tolist(), first))))
    assert 760 <= told <= 850


def test_a_hopeless_difference_has_a_bound() -> None:
    assert more_seeds(seeds(1e-6, 0.1)) is None
    assert more_seeds(seeds(0.0, 0.1, p=1.0)) is None
    assert more_images(images(10, 10)) is None
    assert more_images(images(501, 499)) is None


def test_a_single_run_gives_no_measure() -> None:
    assert more_seeds(compare_seeds({0: 0.5}, {0: 0.6})) is None


def test_values_without_spread_need_as_many_seeds_as_exchange_asks_for() -> None:
    """2 of 2^6 ways are 3 %, 2 of 2^5 are 6 %; of two times 4 runs, 2 of 70."""
    assert more_seeds(seeds(0.1, 0.0)) == 6 - 3
    assert more_seeds(seeds(0.1, 0.0, paired=False)) == 4 - 3


def test_with_the_images_needed_mcnemar_tells_as_often_as_promised() -> None:
    found = images(60, 45)
    n = 1000 + more_images(found)
    cells = np.random.default_rng(9).multinomial(n, [0.060, 0.045, 0.895], size=2000)
    told = np.mean([mcnemar(int(a), int(b)) < 0.05 for a, b, _ in cells])
    assert 0.75 < told < 0.83  # the formula is the normal one; the exact test is a little stricter


def test_the_images_needed_by_hand() -> None:
    """Shares 0.6 and 0.1, difference 0.5: (1.960 √0.7 + 0.842 √(0.7 - 0.25))² / 0.25 = 19.4; 10 are there."""
    assert more_images(images(6, 1, 10)) == 10


def test_the_setting_with_fewer_seeds_says_how_many_more_are_needed() -> None:
    """An effect of one deviation needs 17 seeds of each (Cohen 1988, table 2.4.1): with 9 of one and 3 of the other, 14."""
    compared = SeedComparison(3, 9, False, Estimate(0.1, None, None), 0.1, 0.5)
    assert np.ceil(TTestIndPower().solve_power(1.0, alpha=0.05, power=0.8)) == 17
    assert more_seeds(compared) == 17 - 3
