"""Comparisons in words: the one place that says which is better, or that the data do not tell."""

from __future__ import annotations

import math
from bisect import bisect_left

from scipy import special

from convscope.base.words import counted
from convscope.scans import Estimate
from convscope.study.statistics import ImageComparison, SeedComparison, p_without_spread

Comparison = ImageComparison | SeedComparison


def differs(compared: Comparison, p: float | None = None) -> bool:
    """Whether the data tell A from B: p is below 1 - level, and the interval does not hold 0.

    Args:
        compared: A and B.
        p: the corrected one where several were compared, see `holm`; by default the comparison's own.
    """
    p, low, high = compared.p if p is None else p, compared.difference.low, compared.difference.high
    apart = low is None or high is None or low > 0 or high < 0
    return p is not None and p < 1 - compared.level and apart


def verdict(
    a: str,
    b: str,
    compared: Comparison,
    *,
    p: float | None = None,
    n_open: int = 1,
    higher_is_better: bool = True,
    scale: float = 100.0,
    unit: str = "points",
) -> str:
    """One sentence on A and B that says no more than the data carry.

    Args:
        a, b: their names.
        compared: the two.
        p: the corrected one where several were compared, see `holm`; by default the comparison's own. The interval stays
            that of a single comparison, and the sentence says Holm.
        n_open: how many of these tell nothing yet, this one too: with Holm, its own p must come below 0.05 / n_open.
        higher_is_better: False for a loss.
        scale, unit: from the values to what is written; shares become points.

    Returns:
        "A is better than B by 1.2 points (0.7 to 1.7), p = 0.0003", or "A and B cannot be told apart with these data
        (difference 0.1 points, -0.4 to 0.6; p = 0.7); about 12 more seeds would be needed". What the data are is told by
        `basis`.
    """
    difference = compared.difference.scaled(scale)
    shown_p = written_p(compared.p) if p is None or p == compared.p else f"{written_p(p)} (Holm)"
    if not differs(compared, p):
        value, low, high = _written(difference)
        limits = f"{low} to {high}" if low else "no interval"
        sentence = f"{a} and {b} cannot be told apart with these data (difference {value} {unit}, {limits}; {shown_p})"
        return f"{sentence}; {_needed(compared, (1 - compared.level) / n_open)}"
    if (difference.figures[0] > 0) != higher_is_better:
        a, b = b, a
    if difference.figures[0] < 0:
        difference = difference.scaled(-1)
    value, low, high = _written(difference)
    within = f" ({low} to {high})" if low else ""
    return f"{a} is better than {b} by {value} {unit}{within}, {shown_p}"


def basis(compared: Comparison) -> str:
    """What a comparison rests on: "exact McNemar test on the same 10,000 test images, one run of each"."""
    if isinstance(compared, ImageComparison):
        return f"exact McNemar test on the same {counted(compared.n, 'test image')}, one run of each"
    if compared.p is None or not compared.deviation:
        test = "no test" if compared.p is None else "exchange test"
        return f"{test}, {compared.n_a:,} and {counted(compared.n_b, 'run')}"
    if compared.folds:
        return f"t test over {compared.n_a:,} and {counted(compared.n_b, 'fold')}, corrected for the training images they share"
    if compared.paired:
        return f"paired t test over {counted(compared.n_a, 'seed')}"
    return f"Welch's t test over {compared.n_a:,} and {counted(compared.n_b, 'seed')}"


def written_p(p: float | None) -> str:
    """ "p = 0.0003", with digits enough to see on which side of 0.05 it lies; "no p" for None."""
    if p is None:
        return "no p"
    if p < 0.0001:
        return "p < 0.0001"
    digits = next(d for d in range(2, 18) if (float(f"{p:.{d}g}") < 0.05) == (p < 0.05))
    return f"p = {p:.{digits}g}"


def _needed(compared: Comparison, alpha: float) -> str:
    """What it would take for p to come below alpha."""
    if isinstance(compared, ImageComparison):
        return _about(more_images(compared, alpha=alpha), MOST_IMAGES, "test image")
    if compared.folds:
        return "more images would be needed: folds of the same ones cannot tell it"
    if compared.p is None:
        return "a single run gives no measure of chance: at least two seeds of each are needed"
    return _about(more_seeds(compared, alpha=alpha), MOST_SEEDS, "seed", "" if compared.paired else " of each")


def _about(more: int | None, most: int, what: str, each: str = "") -> str:
    if more is None:
        return f"more than {most:,} {what}s{each} would be needed"
    unit = 10 ** max(0, len(str(more)) - 2)  # two digits are as much as so rough a figure carries
    rounded = -(-more // unit) * unit
    return f"about {rounded:,} more {what}{'s' if rounded > 1 else ''}{each} would be needed"


def _written(estimate: Estimate) -> tuple[str, str, str]:
    """Value and limits with a tenth, more where the interval is narrow or a figure would read as 0; "" for no limit."""
    figures = [f for f in (estimate.value, estimate.low, estimate.high) if f is not None]
    width = max(figures) - min(figures)
    digits = max(1, 1 - math.floor(math.log10(2 * width))) if width else 1
    while digits < 6 and any(f and not float(f"{f:.{digits}f}") for f in figures):
        digits += 1
    value, *limits = (f"{f + 0.0:.{digits}f}" for f in figures)
    low, high = limits or ("", "")
    return value, low, high


POWER = 0.8
MOST_SEEDS = 1_000
MOST_IMAGES = 1_000_000


def more_seeds(compared: SeedComparison, *, alpha: float = 0.05, power: float = POWER) -> int | None:
    """How many more seeds of A and of B each would be needed to tell the difference, were it the true one.

    The difference and the spread are themselves uncertain, so it is an order of magnitude.

    Args:
        compared: the runs so far.
        alpha: what p must come below.
        power: how likely it is to.

    Returns:
        At least 1; None where more than 1,000 seeds would be needed, or a single run gives no measure of chance.

    Source: Cohen 1988, chapter 2, by the noncentral F distribution.
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
    power = 1 - float(special.ncfdtr(1, freedom, shift**2, limit**2))  # t² of a difference has a noncentral F
    # SciPy has none for some large shifts; beside these the mean's own spread is nothing
    return 1 - float(special.chdtrc(freedom, freedom * (shift / limit) ** 2)) if math.isnan(power) else power


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
