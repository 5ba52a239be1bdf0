"""Statistics of several runs: their mean, comparison on the same test images, comparison over seeds, many comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray
from scipy import special

from convscope.errors import RequestError
from convscope.scans import Estimate, bootstrap, mean_of, paired_difference

FOLDS = "data.split.folds"
_FEW = 10  # images in a cell of the table: with fewer, resamples too often miss them all
_NO_SPREAD = 1e-12  # of the values' size: what rounding leaves of equal differences


@dataclass(frozen=True)
class Summary:
    """Some runs' values in short.

    Attributes:
        mean: with Student's interval; no interval from one value, nothing from none.
        deviation: standard deviation of the values (n - 1), None for fewer than two.
        n: values that were used.
        not_finite: values that were left out, for a run that diverged has none.
    """

    mean: Estimate
    deviation: float | None
    n: int
    not_finite: int = 0


def summary(
    values: Sequence[float],
    level: float = 0.95,
    lowest: float = -math.inf,
    highest: float = math.inf,
    overlap: float = 0.0,
) -> Summary:
    """Mean, interval, deviation and number of some runs' values.

    Args:
        values: one of each run, any unit.
        level: of the interval.
        lowest, highest: what a value can be at the least and the most; the interval stays within.
        overlap: of folds, see `overlap_of`.

    Example:
        >>> summary([0.96, 0.97, 0.98]).n
        3
    """
    finite = [float(v) for v in values if math.isfinite(v)]
    deviation = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
    return Summary(mean_of(finite, lowest, highest, level, overlap), deviation, len(finite), len(values) - len(finite))


def overlap_of(settings: Mapping[str, Any]) -> float:
    """How far runs of these settings share their training images: of K folds 1 / (K − 1), the ratio of test to training images;
    0 where runs are not folds.

    Runs on folds are trained on mostly the same images, so that they spread less than independent runs would. The variance of
    their mean is taken as (1 / n + overlap) × the runs' variance.

    Source: Nadeau & Bengio 2003, doi:10.1023/A:1024068626366; over repeated folds Bouckaert & Frank 2004,
        doi:10.1007/978-3-540-24775-3_3.

    Example:
        >>> overlap_of({"data.split.folds": 5})
        0.25
    """
    folds = settings.get(FOLDS)
    return 1 / (folds - 1) if isinstance(folds, int) and folds > 1 else 0.0


@dataclass(frozen=True)
class ImageComparison:
    """Two classifiers on the same test images. It tells these two runs apart, not what they were trained by.

    Attributes:
        both, only_a, only_b, neither: how many images are right by both, by A alone, by B alone, by none.
        difference: share right of A less that of B.
        p: of McNemar's exact test: how likely so uneven a split of only_a and only_b is, were A and B equally good.
        level: of the interval.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    difference: Estimate
    p: float
    level: float = 0.95

    @property
    def n(self) -> int:
        """Number of images."""
        return self.both + self.only_a + self.only_b + self.neither


def compare_images(
    right_a: Bool[np.ndarray, " N"],
    right_b: Bool[np.ndarray, " N"],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> ImageComparison:
    """Which of two classifiers is right more often, on the same test images.

    The interval is a bootstrap over the images. Where fewer than 10 images are right by A alone, or by B alone, it is
    Newcombe's instead: a resample cannot show what was not seen, and without any such image it would have no width. Where
    the exact test leaves both equal, the interval takes in 0, so that the two never disagree that way round.

    Args:
        right_a, right_b: whether each image is right, in the same order.
        resamples: of the bootstrap.
        seed: of the resamples.
        level: of the interval.

    Returns:
        An `ImageComparison`; shares in [-1, 1], positive where A is right more often.

    Raises:
        RequestError: no images, or not the same number.

    Source: McNemar 1947, doi:10.1007/BF02295996, its exact form; Efron & Tibshirani 1993, chapter 13; Newcombe 1998,
        method 10.

    Example:
        >>> compare_images(np.array([True, True, False]), np.array([True, False, False])).only_a
        1
    """
    a, b = _answers(right_a, right_b)
    both, only_a, only_b, neither = (int(cell.sum()) for cell in (a & b, a & ~b, ~a & b, ~a & ~b))
    p = mcnemar(only_a, only_b)
    if min(only_a, only_b) < _FEW:
        difference = paired_difference(both, only_a, only_b, neither, level)
    else:
        counts = np.array([both, only_a, only_b, neither])
        difference = bootstrap(counts, lambda t: (t[:, 1] - t[:, 2]) / t.sum(1), seed, resamples=resamples, level=level)
    if p >= 1 - level:
        difference = Estimate(difference.value, min(difference.figures[1], 0.0), max(difference.figures[2], 0.0))
    return ImageComparison(both, only_a, only_b, neither, difference, p, level)


def _answers(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(right_a), np.asarray(right_b)
    if a.dtype != bool or b.dtype != bool or a.ndim != 1 or b.ndim != 1:
        raise RequestError(
            f"right or wrong is asked of each image; given are {a.dtype} {a.shape} and {b.dtype} {b.shape}: "
            "give two lines of booleans"
        )
    if len(a) != len(b) or not len(a):
        raise RequestError(
            f"A answered {len(a):,} images and B {len(b):,}; expected the same test images: evaluate both on them"
        )
    return a, b


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p of McNemar's exact test: a binomial of the images that one alone gets right; 1 without any.

    Example:
        >>> mcnemar(0, 6)
        0.03125
    """
    return min(1.0, 2 * float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


@dataclass(frozen=True)
class SeedComparison:
    """Two settings, each trained with several seeds.

    Attributes:
        n_a, n_b: runs of each.
        paired: whether the runs have the same seeds.
        difference: mean of A less mean of B, in the values' unit; without an interval where chance cannot be judged.
        deviation: standard deviation of the seeds' differences; not paired, of one run (root of the mean variance). None
            from a single run of either.
        p: two-sided, None from a single run of either.
        level: of the interval.
        folds: whether the runs are folds of cross-validation.
    """

    n_a: int
    n_b: int
    paired: bool
    difference: Estimate
    deviation: float | None
    p: float | None
    level: float = 0.95
    folds: bool = False


def compare_seeds(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    level: float = 0.95,
    largest: float = math.inf,
    overlap: float = 0.0,
) -> SeedComparison:
    """Which of two settings is higher, over seeds.

    The same seeds on both sides are compared in pairs (paired t), others as two samples with their own spread (Welch;
    simulated with 2 to 5 seeds of equal or threefold spread it errs in 2 to 7 %).

    Where the values do not spread at all, as on a small test set, Student's t has no scale: there is then no interval, and p
    is that of exchanging A and B (2 of the 2^n ways to sign n equal differences are as one-sided as theirs).

    Args:
        a, b: a value of each seed, any unit.
        level: of the interval.
        largest: what a difference can be at the most, 1 of shares; the interval stays within it on both sides.
        overlap: of folds, see `overlap_of`.

    Raises:
        RequestError: no value, or one that is no finite number.

    Source: Student 1908, doi:10.1093/biomet/6.1.1; Welch 1947, doi:10.1093/biomet/34.1-2.28.

    Example:
        >>> result = compare_seeds({0: 0.98, 1: 0.97, 2: 0.99}, {0: 0.96, 1: 0.96, 2: 0.96})
        >>> result.paired, round(result.p, 3)
        (True, 0.074)
    """
    for name, values in (("A", a), ("B", b)):
        if not values:
            raise RequestError(f"{name} has no runs; expected a value of each seed: train at least two seeds")
        if bad := [f"seed {seed} has {value}" for seed, value in values.items() if not math.isfinite(value)]:
            raise RequestError(f"{name}: {', '.join(bad)}; expected finite numbers: leave out the runs that diverged")
    n_a, n_b, paired = len(a), len(b), set(a) == set(b)
    # Welch's formulas give those of Student for one sample, the differences of pairs.
    samples = [[a[seed] - b[seed] for seed in a]] if paired else [[*a.values()], [*b.values()]]
    value = float(np.mean(samples[0])) - (0.0 if paired else float(np.mean(samples[1])))
    difference, deviation, p = Estimate(value, None, None), None, None
    size = max(map(abs, [*a.values(), *b.values()]))
    n = np.array([len(sample) for sample in samples])
    if n.min() > 1:
        variances = np.array([np.var(sample, ddof=1) for sample in samples])
        deviation = math.sqrt(variances.mean())
        if deviation <= _NO_SPREAD * size:
            deviation = 0.0
            p = p_without_spread(n_a, n_b, paired) if abs(value) > _NO_SPREAD * size else 1.0
        else:
            errors = variances * (1 / n + overlap)
            error, freedom = math.sqrt(errors.sum()), errors.sum() ** 2 / (errors**2 / (n - 1)).sum()
            half = float(special.stdtrit(freedom, (1 + level) / 2)) * error
            difference = Estimate(value, max(-largest, value - half), min(largest, value + half))
            p = 2 * float(special.stdtr(freedom, -abs(value / error)))
    return SeedComparison(n_a, n_b, paired, difference, deviation, p, level, overlap > 0)


def p_without_spread(n_a: int, n_b: int, paired: bool) -> float:
    """The exchange test's two-sided p where all differences of pairs, or all values of A and all of B, are equal."""
    return 2 / (2**n_a if paired else math.comb(n_a + n_b, n_a))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's corrected p of many tests, in their order: below 0.05 for at most 5 % of families in which nothing differs.

    Args:
        ps: of each test, in [0, 1]; None where there was none, which is not counted.

    Raises:
        RequestError: a p is outside [0, 1].

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6:65-70.

    Example:
        >>> holm([0.01, None, 0.03])
        [0.02, None, 0.03]
    """
    ranked = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    if bad := [p for p, _ in ranked if not 0 <= p <= 1]:
        raise RequestError(f"p = {bad[0]} is no probability; expected numbers in [0, 1]")
    corrected: list[float | None] = [None] * len(ps)
    highest = 0.0
    for done, (p, place) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - done) * p))
        corrected[place] = highest
    return corrected
