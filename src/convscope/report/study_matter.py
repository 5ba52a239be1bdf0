"""Which settings of a study matter: the analysis of variance, and the mean of each pair of values."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from convscope.report.study_results import StudyResults, largest_near, value_in_words
from convscope.study import Matrix, Metric, written_p

_MOST_MATRICES = 15


def terms(results: StudyResults) -> list[dict[str, Any]]:
    """Settings, interactions and the rest, a row each; none where the runs cannot tell."""
    found = results.importance
    if isinstance(found, str):
        return []
    told = [
        {
            "name": term.name, "share": round(term.share, 5), "corrected": term.corrected_share,
            "p": written_p(term.corrected_p).removeprefix("p = ").removeprefix("p "), "matters": term in found.matter,
        }
        for term in found.terms
    ]  # fmt: skip
    rest = [
        {"name": part.name, "share": round(part.share, 5), "corrected": None, "p": "", "matters": False}
        for part in found.rest
    ]
    return told + rest


def matrices(results: StudyResults) -> list[dict[str, Any]]:
    """Of each pair of settings, those that matter most first."""
    if len(results.settings) < 2:
        return []
    found = results.runs.matrices(results.by_importance, [results.metric.name])
    return [_matrix(one, results.metric) for one in found[:_MOST_MATRICES]]


def _matrix(found: Matrix, metric: Metric) -> dict[str, Any]:
    values = found.cells.to_numpy(np.float64)
    known = values[np.isfinite(values)]
    return {
        "rows": found.rows,
        "columns": found.columns,
        "over": ", ".join(found.over),
        "across": [value_in_words(value) for value in found.cells.columns],
        "down": [
            (value_in_words(name), [_cell(value, known, metric) for value in row])
            for name, row in zip(found.cells.index, values, strict=True)
        ],
    }


def _cell(value: float, known: Float[np.ndarray, " N"], metric: Metric) -> dict[str, Any]:
    """What is written, and how deep its colour is: from 0 for the worst of the known to 1 for the best."""
    if not np.isfinite(value):
        return {"value": None, "share": None}
    worst = known.min() if metric.is_share else largest_near(known.tolist())
    width = (known.max() if metric.is_share else known.min()) - worst
    share = max(0.0, round((value - worst) / width, 3)) if width else 0.5
    return {"value": metric.number(value, 1 if metric.is_share else 3), "share": share}
