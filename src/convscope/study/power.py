"""How many more runs or images would tell an observed difference."""

from __future__ import annotations

import math
from bisect import bisect_left

from scipy import special

from convscope.study.statistics import ImageComparison, SeedComparison, p_without_spread

POWER = 0.8
MOST_SEEDS = 1_000
MOST_IMAGES = 1_000_000
_FAR = 30.0


def more_seeds(compared: SeedComparison, *, alpha: float = 0.05, power: float = POWER) -> int | None:
    """How many more seeds of A and of B each would be needed to tell the difference, were it the true one.

    The difference and the spread are themselves uncertain, so it is an order of magnitude.

    Args:
        compared: the runs so far.
        alpha: what p must come below.
        power: how likely it is to.

    Returns:
        At least 1; None where more than 1,000 seeds would be needed, or a single run gives no measure of chance.

    Source: Cohen 1988, chapter 2, by the noncentral t distribution.
    """
    effect, deviation = abs(compared.difference.figures[0]), compared.deviation
    if deviation is None or compared.p == 1:
        return None

    def enough(n: int) -> bool:
        if not deviation:
            return p_without_spread(n, n, compared.paired) < alpha
        return seeds_power(effect / deviation, n, compared.paired, alpha) >= power

    needed = 2 + bisect_left(range(2, MOST_SEEDS + 1), True, key=enough)  # more seeds never tell less
    return None if needed > MOST_SEEDS else max(1, needed - min(compared.n_a, compared.n_b))


def seeds_power(effect: float, n: int, paired: bool, alpha: float = 0.05) -> float:
    """How likely the two-sided t test tells a difference.

    Args:
        effect: the true difference, over the standard deviation of the differences (paired) or of one run.
        n: seeds of A and of B each, at least 2.
        paired: the same seeds; otherwise two samples of equal spread.
        alpha: what p must come below.

    Example:
        >>> round(seeds_power(0.5, 34, paired=True), 3)
        0.808
    """
    freedom = n - 1 if paired else 2 * n - 2
    shift = abs(effect) * math.sqrt(n if paired else n / 2)
    limit = float(special.stdtrit(freedom, 1 - alpha / 2))
    if shift > _FAR:  # there the noncentral t is not a number; beside such a shift the mean's own spread is nothing
        return 1 - float(special.chdtrc(freedom, freedom * (shift / limit) ** 2))
    wrong_way = float(special.nctdtr(freedom, shift, -limit)) if shift < 5 else 0.0  # below 1e-6
    if math.isnan(wrong_way):  # SciPy's where it is below 1e-15
        wrong_way = 0.0
    return 1 - float(special.nctdtr(freedom, shift, limit)) + wrong_way


def more_images(compared: ImageComparison, *, alpha: float = 0.05, power: float = POWER) -> int | None:
    """How many more test images would be needed to tell the difference by McNemar's test, were the shares the true ones.

    Returns:
        At least 1; None where more than a million would be needed.

    Source: Connor 1987, "Sample size for testing differences in proportions for the paired-sample design", Biometrics
        43:207-211.
    """
    differing = (compared.only_a + compared.only_b) / compared.n
    difference = abs(compared.only_a - compared.only_b) / compared.n
    if not difference:
        return None
    reach = -special.ndtri(alpha / 2) * math.sqrt(differing)
    reach += special.ndtri(power) * math.sqrt(differing - difference**2)
    needed = math.ceil((reach / difference) ** 2)
    return None if needed > MOST_IMAGES else max(1, needed - compared.n)
