"""95 % intervals: how far a figure from so many images can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; all None where it is not defined (a precision without predictions)."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def figures(self) -> tuple[float, float, float]:
        """(value, low, high); zeros where it is not defined."""
        return self.value or 0.0, self.low or 0.0, self.high or 0.0

    def scaled(self, factor: float) -> Estimate:
        """Each figure times a factor; a negative one turns the interval round."""
        value, low, high = (None if f is None else f * factor for f in (self.value, self.low, self.high))
        return Estimate(value, low, high) if factor > 0 else Estimate(value, high, low)

    def to_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


UNDEFINED = Estimate(None, None, None)


def proportion(right: int, n: int, level: float = 0.95) -> Estimate:
    """The share right / n with Wilson's score interval, which holds near 0 and 1 and for small n.

    Source: Wilson 1927; recommended by Brown, Cai & DasGupta 2001, doi:10.1214/ss/1009213286.

    Example:
        >>> proportion(80, 100).low > 0.71
        True
    """
    if n == 0:
        return UNDEFINED
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, z2 = right / n, z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def f_score(right: int, predicted: int, n: int) -> Estimate:
    """F1 of a class with its interval.

    F1 = 2J / (1 + J) of the Jaccard share J = right / (predicted + n - right), which is a proportion; J's Wilson interval is
    carried through that rising function.

    Args:
        right: images of the class that were predicted as it.
        predicted: images predicted as the class.
        n: images of the class.
    """
    share = proportion(right, predicted + n - right)
    return UNDEFINED if share.value is None else Estimate(*(2 * j / (1 + j) for j in share.figures))


def mean(
    total: float, total_of_squares: float, n: int, lowest: float = -math.inf, highest: float = math.inf
) -> Estimate:
    """The mean of n values from their sum and sum of squares, with the normal interval of its standard error, within what a
    value can be; of a single value there is none."""
    if n == 0:
        return UNDEFINED
    value = total / n
    if n == 1:  # shows no spread
        return Estimate(value, None, None)
    variance = max(0.0, total_of_squares / n - value**2) * n / (n - 1)
    half = _Z * math.sqrt(variance / n)
    return Estimate(value, max(lowest, value - half), min(highest, value + half))


def mean_of(
    values: Sequence[float],
    lowest: float = -math.inf,
    highest: float = math.inf,
    level: float = 0.95,
    overlap: float = 0.0,
) -> Estimate:
    """The mean of some images' values with Student's interval, which holds for few images too.

    Args:
        values: one of each image. From a single one there is a mean, and no interval.
        lowest, highest: what a value can be at the least and the most; the interval stays within.
        level: of the interval.
        overlap: of values that are not independent, the ratio of test to training images, by which Nadeau & Bengio 2003,
            doi:10.1023/A:1024068626366, widen the interval; 0 for independent values.

    Example:
        >>> mean_of([0.25, 0.5, 0.75]).value
        0.5
    """
    n = len(values)
    if n == 0:
        return UNDEFINED
    value = math.fsum(values) / n
    if n == 1:
        return Estimate(value, None, None)
    from scipy.special import stdtrit  # what looks at a single image needs no SciPy

    variance = math.fsum((v - value) ** 2 for v in values) / (n - 1)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(variance * (1 / n + overlap))
    return Estimate(value, max(lowest, value - half), min(highest, value + half))


def mean_over_classes(estimates: Sequence[Estimate], classes_per_error: int = 1, unknown: int = 0) -> Estimate:
    """The mean of one share a class over the classes where it is defined, with an interval from the classes' own.

    The value is scikit-learn's with `zero_division=nan`. The distances from each share to its limits are added as
    variances are (MOVER: Zou & Donner 2008, doi:10.1002/sim.3095). Unlike a bootstrap it keeps a width where not one
    image is wrong.

    Args:
        estimates: of the classes; those that are not defined are left out.
        classes_per_error: how many of the shares one mistaken image enters. 1 for recall (its true class) and precision
            (the predicted one), which are then independent; 2 for F1, whose variance can at most double by that.
        unknown: how many of the classes left out have a share that these images do not show: a class that is never
            predicted has some precision on other images. The interval is that of the mean with theirs, which may be
            anything from 0 to 1; the value is taken for them. Classes without images are none of these: they are no part
            of what the test images stand for.

    Example:
        >>> mean_over_classes([proportion(30, 30), proportion(30, 30), proportion(0, 0)]).value
        1.0
    """
    figures = [estimate.figures for estimate in estimates if estimate.value is not None]
    if not figures:
        return UNDEFINED
    value = math.fsum(v for v, _, _ in figures) / len(figures)
    figures += [(value, 0.0, 1.0)] * unknown
    k = len(figures)
    below, above = (math.sqrt(classes_per_error * sum((f[0] - f[side]) ** 2 for f in figures)) / k for side in (1, 2))
    return Estimate(value, max(0.0, value - below), min(1.0, value + above))


def difference(first: Estimate, second: Estimate) -> Estimate:
    """first - second of two independent shares, with the interval of Newcombe 1998 (method 10, from Wilson's intervals)."""
    if None in (first.value, second.value):
        return UNDEFINED
    (a, a_low, a_high), (b, b_low, b_high) = first.figures, second.figures
    return Estimate(a - b, a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low))


def paired_difference(both: int, first: int, second: int, neither: int, level: float = 0.95) -> Estimate:
    """The share that one of two ways gets right less that of the other, on the same images.

    The Wilson intervals of both shares, put together with the correlation of the two ways.

    Args:
        both: images that both ways get right.
        first, second: those that only the one, or only the other, gets right.
        neither: those that both get wrong.
        level: of the interval.

    Returns:
        (first - second) / n, with an interval that is not empty where the two never differ.

    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired
        data", Statistics in Medicine 17:2635-2650, method 10.

    Example:
        >>> paired_difference(90, 6, 1, 3).value
        0.05
    """
    n = both + first + second + neither
    if n == 0:
        return UNDEFINED
    a, a_low, a_high = proportion(both + first, n, level).figures
    b, b_low, b_high = proportion(both + second, n, level).figures
    correlation = _correlation(both, first, second, neither)
    value = (first - second) / n

    def half(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    return Estimate(value, value - half(a - a_low, b_high - b), value + half(a_high - a, b - b_low))


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    """Of being right one way and the other; of a positive one half an image is taken off, as in the source."""
    spread = (both + first) * (second + neither) * (both + second) * (first + neither)
    surplus = float(both * neither - first * second)
    if surplus > 0:
        surplus = max(0.0, surplus - (both + first + second + neither) / 2)
    return surplus / math.sqrt(spread) if spread else 0.0


def bootstrap(
    counts: NDArray[np.int64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    seed: int = 0,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """A statistic of a table of counts, with the percentile interval of many resamples of the images.

    Drawing n images with replacement changes the table's cells as one multinomial draw does, so the images themselves are
    not needed.

    Args:
        counts: how many images fall into each cell, any shape.
        statistic: from tables (R, *counts.shape) to values (R,).
        seed: of the resamples.
        resamples: how many are drawn; with 1,000 the limits scatter by 2 % of the interval's width, with 10,000 by 0.7 %.
        level: of the interval.
    Source: Efron & Tibshirani 1993, chapter 13.
    """
    n = int(counts.sum())
    if n == 0:
        return UNDEFINED
    value = float(statistic(counts[None].astype(np.float64))[0])
    generator = np.random.default_rng(seed)
    flat = counts.ravel()
    cells = np.flatnonzero(flat)
    values = []
    for done in range(0, resamples, 50):  # in portions: 1,000 tables of 96 × 96 would take 74 MB
        size = min(50, resamples - done)
        tables = np.zeros((size, flat.size))
        tables[:, cells] = generator.multinomial(n, flat[cells] / n, size=size)
        values.append(statistic(tables.reshape(size, *counts.shape)))
    low, high = np.percentile(np.concatenate(values), [50 - 50 * level, 50 + 50 * level])
    return Estimate(value, min(value, float(low)), max(value, float(high)))
