import math
import re

import pytest
from hypothesis import given, strategies as st
from statsmodels.stats.power import TTestPower

from convscope.scans import Estimate
from convscope.study import ImageComparison, SeedComparison, basis, compare_seeds, differs, verdict, written_p

BETTER = SeedComparison(5, 5, True, Estimate(0.012, 0.007, 0.017), 0.004, 0.0003)
EQUAL = SeedComparison(5, 5, True, Estimate(0.001, -0.004, 0.006), 0.00139, 0.7)
IMAGES = ImageComparison(8900, 60, 45, 995, Estimate(0.0015, -0.0005, 0.0035), 0.1714)


def test_a_difference_is_said_with_its_interval_and_p() -> None:
    assert verdict("A", "B", BETTER) == "A is better than B by 1.2 points (0.7 to 1.7), p = 0.0003"


def test_where_the_data_do_not_tell_it_says_what_would() -> None:
    said = "A and B cannot be told apart with these data (difference 0.1 points, -0.4 to 0.6; p = 0.7); "
    assert verdict("A", "B", EQUAL) == said + "about 13 more seeds would be needed"
    apart = SeedComparison(5, 4, False, EQUAL.difference, 0.5, 0.7)
    assert verdict("A", "B", apart) == said + "more than 1,000 seeds of each would be needed"
    said = "wide and deep cannot be told apart with these data (difference 0.15 points, -0.05 to 0.35; p = 0.17); "
    assert verdict("wide", "deep", IMAGES) == said + "about 27,000 more test images would be needed"


def test_of_a_loss_the_lower_is_better() -> None:
    loss = SeedComparison(3, 3, True, Estimate(0.031, 0.012, 0.050), 0.01, 0.02)
    said = verdict("A", "B", loss, higher_is_better=False, scale=1, unit="nats")
    assert said == "B is better than A by 0.031 nats (0.012 to 0.050), p = 0.02"


def test_a_corrected_p_decides_and_is_named() -> None:
    assert verdict("A", "B", BETTER, p=0.0018).endswith("(0.7 to 1.7), p = 0.0018 (Holm)")
    said = verdict("A", "B", BETTER, p=0.06)
    assert "cannot be told apart with these data (difference 1.2 points, 0.7 to 1.7; p = 0.06 (Holm))" in said
    assert not differs(BETTER, p=0.06)


def test_of_ten_comparisons_each_asks_for_the_seeds_of_a_tenth_of_alpha() -> None:
    """Also where Holm's p is cut at 1: an effect of one deviation takes 25 seeds at 0.005 (`statsmodels`), 10 at 0.05."""
    effect = SeedComparison(3, 3, True, Estimate(0.01, -0.015, 0.035), 0.01, 0.23)
    needed = math.ceil(TTestPower().solve_power(1.0, power=0.8, alpha=0.005))
    assert verdict("A", "B", effect, p=1.0, n_open=10).endswith(f"about {needed - 3} more seeds would be needed")
    assert verdict("A", "B", effect).endswith("about 7 more seeds would be needed")


def test_both_the_test_and_the_interval_must_tell() -> None:
    assert not differs(ImageComparison(900, 30, 15, 55, Estimate(0.015, -0.001, 0.031), 0.04))


def test_a_single_run_of_each_is_not_judged() -> None:
    single = compare_seeds({0: 0.93}, {0: 0.90})
    assert verdict("A", "B", single) == (
        "A and B cannot be told apart with these data (difference 3.0 points, no interval; no p); "
        "a single run gives no measure of chance: at least two seeds of each are needed"
    )
    assert basis(single) == "no test, 1 and 1 run"


def test_values_without_spread_have_no_interval_to_say() -> None:
    same = compare_seeds(dict.fromkeys(range(6), 0.9), dict.fromkeys(range(6), 0.8))
    assert verdict("A", "B", same) == "A is better than B by 10.0 points, p = 0.031"
    assert basis(same) == "exchange test, 6 and 6 runs"


def test_it_says_what_it_rests_on() -> None:
    assert basis(IMAGES) == "exact McNemar test on the same 10,000 test images, one run of each"
    assert basis(BETTER) == "paired t test over 5 seeds"
    assert basis(SeedComparison(5, 4, False, EQUAL.difference, 0.5, 0.7)) == "Welch's t test over 5 and 4 seeds"


@given(st.floats(-0.5, 0.5).filter(bool), st.floats(0, 0.3), st.floats(0, 0.2), st.booleans())
def test_swapped_names_give_the_same_verdict(value: float, below: float, p: float, higher: bool) -> None:
    there = SeedComparison(4, 4, True, Estimate(value, value - below, value + below), 0.1, p)
    back = SeedComparison(4, 4, True, Estimate(-value, -value - below, -value + below), 0.1, p)
    if differs(there):
        assert verdict("A", "B", there, higher_is_better=higher) == verdict("B", "A", back, higher_is_better=higher)
    else:
        assert verdict("A", "B", there).split("; ")[-1] == verdict("B", "A", back).split("; ")[-1]


@given(st.floats(1e-6, 0.5), st.floats(1e-7, 0.5))
def test_a_limit_beyond_zero_never_reads_as_zero(low: float, width: float) -> None:
    """Figures that matter are written with as many digits as it takes."""
    found = SeedComparison(4, 4, True, Estimate(low + width / 2, low, low + width), 0.1, 0.01)
    limit = re.search(r"\(([\d.]+) to", verdict("A", "B", found))[1]
    assert float(limit) > 0
    assert float(limit) == pytest.approx(100 * low, abs=max(0.05, 20 * width))


@given(st.floats(0, 1))
def test_a_p_is_written_on_its_side_of_5_percent(p: float) -> None:
    shown = written_p(p)
    figure = float(shown.split()[-1])
    assert (figure < 0.05) == (p < 0.05) or shown == "p < 0.0001"
    assert figure == pytest.approx(p, rel=0.051, abs=1e-4)


def test_how_a_p_is_written() -> None:
    shown = [written_p(p) for p in (None, 0.00003, 0.000312, 0.0123, 0.0496, 0.05, 0.7)]
    assert shown == ["no p", "p < 0.0001", "p = 0.00031", "p = 0.012", "p = 0.0496", "p = 0.05", "p = 0.7"]
