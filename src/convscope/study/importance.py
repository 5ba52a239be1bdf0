"""Which settings matter: an analysis of variance of a metric over the runs of a grid."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy import special
from scipy.linalg import lapack

from convscope.errors import RequestError
from convscope.study.statistics import holm
from convscope.study.verdicts import written_p

_PIVOT = 1e-9  # of the largest; what is smaller is a column that follows from others
_MOST_LEVELS = 2_000  # of all terms; a fit takes a second or two
_ROUNDING = 1e-12  # of the total variance


@dataclass(frozen=True)
class Term:
    """What one setting, or the interaction of two, does to the metric.

    Attributes:
        settings: one name, or two.
        squares: sum of squares, type II: what the term explains beyond all terms that do not hold it.
        freedom: its degrees of freedom; fewer than the levels promise where cells are missing.
        share: of the variance, squares / total. A setting without any effect has freedom / (runs - 1) on average.
        corrected_share: omega squared, the share less what chance alone gives; at least 0.
        f: F statistic against the rest; None where nothing is left, not even by chance.
        p: how likely so large an F is, were there no effect; without F that of exchanging the runs.
        corrected_p: p corrected for the number of terms (Holm).
    """

    settings: tuple[str, ...]
    squares: float
    freedom: int
    share: float
    corrected_share: float
    f: float | None
    p: float
    corrected_p: float

    @property
    def name(self) -> str:
        """ "net.width" or "net.width × net.kernel"."""
        return " × ".join(self.settings)


@dataclass(frozen=True)
class Rest:
    """What no term explains: its name, sum of squares, degrees of freedom and share of the variance."""

    name: str
    squares: float
    freedom: int
    share: float


@dataclass(frozen=True)
class Importance:
    """Which settings matter for a metric over the runs of a grid.

    Attributes:
        metric: its column.
        n: runs.
        terms: settings, then interactions, each the most important first.
        rest: the residual, by what it can be.
        missing_cells: combinations of the settings that no run has.
        not_estimable: pairs of settings whose interaction these runs cannot show.
        adds_up: whether the shares add up to 1, as they do on a full, balanced grid.
    """

    metric: str
    n: int
    terms: tuple[Term, ...]
    rest: tuple[Rest, ...]
    missing_cells: int
    not_estimable: tuple[tuple[str, str], ...]
    adds_up: bool

    @property
    def matter(self) -> tuple[Term, ...]:
        """The terms with a corrected p below 0.05."""
        return tuple(term for term in self.terms if term.corrected_p < 0.05)


def importance(
    table: pd.DataFrame, settings: Sequence[str], metric: str, *, interactions: bool = True, overlap: float = 0.0
) -> Importance:
    """How much of a metric's variance each setting explains, and each pair of settings.

    The metric is fitted by least squares on one-hot settings and their products. Runs with equal settings (seeds) are
    replicates. Each F is against all that the terms leave: the spread of replicates with the interactions of three and more
    settings. As every analysis of variance it takes the spread to be normal and the same everywhere; where settings make the
    training unstable, look at the deviations too.

    Where the terms leave nothing to compare with, as on a grid of two settings with one run of each combination, or where
    missing cells tie a setting to the interactions of others, the interactions are left to the rest.

    Args:
        table: a row a run.
        settings: columns; each distinct value is a level, null too. Of a few levels each: it is for grids.
        metric: a column of finite numbers.
        interactions: of all pairs; False for the settings alone.
        overlap: of folds, see `overlap_of`: with n runs of equal settings each F is divided by 1 + n × overlap.

    Returns:
        An `Importance`. Where the grid is not balanced, the shares overlap and do not add up to 1.

    Raises:
        RequestError: a column is not there; the metric is not finite or never varies; a setting has one value; settings
            that changed together; or as many levels as runs.

    Source: Fisher 1925, chapter VII; Yates 1934, doi:10.1080/01621459.1934.10502686, for unequal numbers (type II); Hays 1963
        for omega squared.

    Example:
        >>> runs = pd.DataFrame({"width": [6, 6, 12, 12], "accuracy": [0.90, 0.92, 0.97, 0.99]})
        >>> round(importance(runs, ["width"], "accuracy").terms[0].share, 3)
        0.925
    """
    values = _values(table, metric)
    levels = pd.DataFrame({name: _levels(table, name, metric) for name in settings})
    if levels.empty:
        raise RequestError("no settings were named; expected columns that differ between the runs, such as net.width")
    pairs = list(combinations(levels.columns.tolist(), 2)) if interactions else []
    fit = _Fit(values, levels, pairs)
    if pairs and (not fit.freedom_left or fit.tied):
        fit = _Fit(values, levels, [])
    if fit.tied:
        raise RequestError(
            f"{' and '.join(fit.tied)} changed together in these {fit.n} runs, so that their effects cannot be told apart; "
            "leave one of them out, or add runs in which only one changes"
        )
    if not fit.freedom_left:
        raise RequestError(
            f"{fit.n} runs leave nothing to judge {', '.join(fit.settings)} by, for there are as many levels; add seeds, or "
            "name settings of few values"
        )
    terms, rest = _terms(fit, overlap), _rest(fit)
    return Importance(
        metric,
        fit.n,
        terms,
        rest,
        math.prod(levels.nunique().tolist()) - fit.n_cells,
        tuple(pair for pair in pairs if all(term.settings != pair for term in terms)),
        abs(sum(term.share for term in terms) + sum(part.share for part in rest) - 1) < 1e-9,
    )


def importance_in_words(found: Importance) -> str:
    """One sentence: "Of the variance of val_accuracy over 36 runs, net.width explains 63 % (p < 0.0001); what net.kernel
    explains may be chance"."""
    effects = [
        f"{term.name} explains {100 * term.share:.0f} % ({written_p(term.corrected_p)}"
        f"{' (Holm)' if term.corrected_p != term.p else ''})"
        for term in found.matter
    ]
    rest = [term.name for term in found.terms if term not in found.matter and len(term.settings) == 1]
    either = " or ".join(filter(None, [", ".join(rest[:-1]), *rest[-1:]]))
    opening = f"Of the variance of {found.metric} over {found.n:,} runs"
    if not effects:
        return f"{opening}, no setting explains more than chance might"
    return f"{opening}, {', '.join(effects)}{f'; what {either} explains may be chance' if rest else ''}"


def _values(table: pd.DataFrame, metric: str) -> Float64[np.ndarray, " N"]:
    """The metric, checked."""
    _check_column(table, metric)
    values = pd.to_numeric(table[metric], errors="coerce").to_numpy(np.float64)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise RequestError(
            f"{metric} is no finite number in {bad} of {len(values)} runs; leave out the runs that failed or diverged"
        )
    if len(values) < 2 or np.ptp(values) <= _ROUNDING * np.abs(values).max():
        raise RequestError(f"{metric} is the same in all {len(values)} runs; no setting can matter for it")
    return values


def _levels(table: pd.DataFrame, name: str, metric: str) -> Int64[np.ndarray, " N"]:
    """The number of each run's level of a setting."""
    _check_column(table, name)
    if name == metric:
        raise RequestError(f"{name} is the metric, and cannot be a setting too; name other columns")
    labels = [value if isinstance(value, Hashable) else repr(value) for value in table[name]]
    codes, levels = pd.factorize(pd.Series(labels, dtype=object), use_na_sentinel=False)
    if len(levels) < 2:
        raise RequestError(
            f"{name} is {labels[0]!r} in all {len(labels)} runs; leave it out, or add runs with another value"
        )
    return codes.astype(np.int64)


def _check_column(table: pd.DataFrame, name: str) -> None:
    if name not in table:
        raise RequestError(f"{name!r} is no column of the table; there is {', '.join(map(str, table.columns))}")


class _Fit:
    """Least squares on any of the terms, from one matrix of products of their one-hot columns."""

    def __init__(
        self, values: Float64[np.ndarray, " N"], levels: pd.DataFrame, pairs: Sequence[tuple[str, str]]
    ) -> None:
        self.n, self.levels, self.pairs = len(values), levels, pairs
        self.settings: list[str] = levels.columns.tolist()
        coded = {term: _combined(levels, term) for term in [*combinations(self.settings, 1), *pairs]}
        _check_few(coded)
        blocks = [np.eye(codes.max() + 1)[codes] for codes in coded.values()]
        ends = np.cumsum([block.shape[1] for block in blocks])
        self.columns = {term: np.arange(e - b.shape[1], e) for term, b, e in zip(coded, blocks, ends, strict=True)}
        design = np.concatenate(blocks, axis=1)
        design -= design.mean(0)
        centred = values - values.mean()
        self.products, self.slopes, self.total = design.T @ design, design.T @ centred, float(centred @ centred)
        cells = _combined(levels, self.settings)
        self.n_cells = int(cells.max()) + 1
        means = np.bincount(cells, centred) / np.bincount(cells)
        self.within = float(((centred - means[cells]) ** 2).sum())
        explained, rank = self.explained(coded)
        self.left, self.freedom_left = max(0.0, self.total - explained), self.n - 1 - rank
        self.beyond = {term: self._beyond(term) for term in coded}

    @property
    def tied(self) -> list[str]:
        """Settings whose effect the runs do not tell from other terms."""
        return [name for name in self.settings if self.beyond[name,][1] < self.levels[name].max()]

    def explained(self, terms: Iterable[tuple[str, ...]]) -> tuple[float, int]:
        """The sum of squares that a fit on these terms explains, and its degrees of freedom.

        By Cholesky's factors with pivots, which stop where a column follows from those before.
        """
        columns = np.concatenate([self.columns[term] for term in terms] or [np.arange(0)])
        if not len(columns):
            return 0.0, 0
        products = self.products[np.ix_(columns, columns)]
        factors, order, rank, _ = lapack.dpstrf(products, tol=_PIVOT * products.diagonal().max(), lower=1)
        solved, _ = lapack.dtrtrs(factors[:rank, :rank], self.slopes[columns[order[:rank] - 1]], lower=1)
        return float(solved @ solved), int(rank)

    def _beyond(self, term: tuple[str, ...]) -> tuple[float, int]:
        """What a term explains beyond all that do not hold it (type II)."""
        others = [other for other in self.columns if not set(term) <= set(other)]
        (squares, freedom), (less, fewer) = self.explained([*others, term]), self.explained(others)
        return max(0.0, squares - less), freedom - fewer


def _combined(levels: pd.DataFrame, settings: Sequence[str]) -> Int64[np.ndarray, " N"]:
    """The number of each run's combination of the settings' levels, of those that are there."""
    if not settings:
        return np.zeros(len(levels), np.int64)
    return levels.groupby(list(settings)).ngroup().to_numpy()


def _check_few(coded: Mapping[tuple[str, ...], Int64[np.ndarray, " N"]]) -> None:
    if sum(int(codes.max()) + 1 for codes in coded.values()) > _MOST_LEVELS:
        levels, name = max((int(codes.max()) + 1, term[0]) for term, codes in coded.items() if len(term) == 1)
        raise RequestError(
            f"the settings have too many values, {name} alone {levels:,}; expected a grid of few values: name other settings"
        )


def _terms(fit: _Fit, overlap: float) -> tuple[Term, ...]:
    noise = fit.left / fit.freedom_left * (1 + overlap * fit.n / fit.n_cells)
    terms = []
    for settings, (squares, freedom) in fit.beyond.items():
        if not freedom:
            continue
        f, p = None, 1.0
        if fit.left > _ROUNDING * fit.total:
            f = squares / freedom / noise
            p = float(special.fdtrc(freedom, fit.freedom_left, f))
        elif squares > _ROUNDING * fit.total:
            p = _p_of_exchange(fit.levels, settings)
        corrected = max(0.0, (squares - freedom * noise) / (fit.total + noise))
        terms.append(Term(settings, squares, freedom, squares / fit.total, corrected, f, p, p))
    ps = holm([term.p for term in terms])
    terms = [replace(term, corrected_p=p) for term, p in zip(terms, ps, strict=True) if p is not None]
    return tuple(sorted(terms, key=lambda term: (len(term.settings), -term.share)))


def _p_of_exchange(levels: pd.DataFrame, settings: tuple[str, ...]) -> float:
    """How likely runs that were exchanged among the levels of a term would fit without any spread too.

    They are exchanged where all other settings are equal; of these ways those are as good that only rename the levels.
    """
    others = [name for name in levels.columns.tolist() if name not in settings]
    table = pd.crosstab(_combined(levels, others), _combined(levels, settings)).to_numpy()
    log_ways = special.gammaln(table.sum(1) + 1).sum() - special.gammaln(table + 1).sum()
    return min(1.0, math.exp(special.gammaln(table.shape[1] + 1) - log_ways))


def _rest(fit: _Fit) -> tuple[Rest, ...]:
    """The residual: chance as equal settings show it, and the interactions that were not fitted."""
    kind = "interactions of three and more settings" if fit.pairs else "interactions"
    replicates = fit.n - fit.n_cells
    if not replicates:
        return (Rest(f"{kind}, and chance", fit.left, fit.freedom_left, fit.left / fit.total),)
    parts = [Rest("chance", fit.within, replicates, fit.within / fit.total)]
    if freedom := fit.freedom_left - replicates:
        squares = max(0.0, fit.left - fit.within)
        parts.append(Rest(kind, squares, freedom, squares / fit.total))
    return tuple(parts)
