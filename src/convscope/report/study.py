"""`write_study_report`: the report of all runs below a folder, one HTML file that opens without a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from jaxtyping import Float

from convscope import __version__
from convscope.report.page import fill, static, vega
from convscope.report.study_curves import fronts, panels, spread_of
from convscope.report.study_findings import study_findings
from convscope.report.study_results import StudyResults, largest_near, value_in_words
from convscope.runs import ENVIRONMENT, REPORT, SPEC, check_writable, object_in, write_whole
from convscope.study import ENDED, Matrix, Metric, Runs, written_p

STUDY = "study.yaml"


@dataclass(frozen=True)
class Section:
    """A section that somebody else gives to a study's page; it stands behind the first one.

    Attributes:
        id: of its element, for links.
        title: in the list of sections.
        html: the element itself.
    """

    id: str
    title: str
    html: str


def holds_runs(folder: Path) -> bool:
    """Whether a folder is no run itself, but has runs below it or is a study's."""
    if not os.path.isdir(folder) or (folder / SPEC).exists():
        return False
    return (folder / STUDY).exists() or any(folder.glob(f"*/{SPEC}")) or any(folder.glob(f"*/*/{SPEC}"))


def write_study_report(folder: Path, sections: Sequence[Section] = ()) -> Path:
    """The path of the report that was written: `report.html` in the folder.

    Args:
        folder: a study's, or any with runs below it.
        sections: more of the page.
    Raises:
        RunFolderError: no run is there.
        ReadOnlyError: nothing may be written in the folder.
    """
    path = folder / REPORT
    runs = Runs(folder)
    check_writable(folder)
    write_whole(path, study_page(runs, sections))
    return path


def study_page(runs: Runs, sections: Sequence[Section] = ()) -> str:
    """The report's HTML."""
    results = StudyResults(runs)
    curve_panels, spread, costs = panels(results), spread_of(results), fronts(results)
    charts = {name: chart for panel in curve_panels["panels"] for name, chart in panel["charts"].items()}
    charts |= {f"cost-{place}": front["chart"] for place, front in enumerate(costs)}
    charts |= {} if spread is None else {"spread": spread}
    return fill(
        "study.html",
        name=runs.folder.resolve().name,
        results=results,
        metric=results.metric,
        tests=[one for one in results.shown if one.name == f"test_{results.metric.measure}"],
        runs=runs,
        notes=runs.notes(),
        findings=study_findings(results),
        importance=results.importance,
        value_in_words=value_in_words,
        written_p=written_p,
        values={key: _listed(list(results.by_value(key))) for key in results.settings},
        seeds=_listed(sorted(results.rows.seed.dropna().unique().tolist())),
        best=results.best,
        tested=int(results.rows.test_accuracy.notna().sum()),
        groups=results.groups,
        panels=curve_panels,
        unfinished=results.rows[~results.rows.state.isin(ENDED)].to_dict("records"),
        commands=_commands(results),
        environment=_environment(results),
        charts=charts,
        costs=costs,
        sections=sections,
        matrices=matrices(results),
        version=__version__,
        style=static("report.css") + static("study.css"),
        script=static("tables.js") + static("report.js"),
        vega=vega(),
    )


def _listed(values: Sequence[Any], most: int = 12) -> str:
    words = [value_in_words(value) for value in values]
    return ", ".join(words if len(words) <= most else [*words[: most - 2], "…", words[-1]])


def _commands(results: StudyResults) -> str:
    """How to do it again, and how to read on."""
    folder, settings = results.runs.folder, ",".join(results.settings)
    first = folder / results.rows.run.iloc[0]
    again = (
        f"convscope sweep {quote(str(folder / STUDY))} --out again"
        if (folder / STUDY).exists()
        else f"convscope study {quote(str(first / SPEC))} --out again/{quote(first.name)}     # and so each of the runs"
    )
    table = f"convscope table {quote(str(folder))}{f' --by {settings}' if settings else ''}"
    return "\n".join([again, table, f"convscope report {quote(str(folder))}"])


def _environment(results: StudyResults) -> dict[str, Any]:
    """Versions and machine of the first run that states them."""
    for run in results.rows.run:
        env = object_in(results.runs.folder / run / ENVIRONMENT)
        if not env:
            continue
        stated = {key: env[key] for key in ("convscope", "python", "system", "processor", "gpu") if env.get(key)}
        return stated | (env["packages"] if isinstance(env.get("packages"), dict) else {})
    return {}


_MOST_MATRICES = 15


def matrices(results: StudyResults) -> list[dict[str, Any]]:
    """Of each pair of settings, those that matter most first."""
    if len(results.settings) < 2:
        return []
    pairs = results.runs.matrices(results.by_importance, [results.metric.name])
    return [_matrix(one, results.metric) for one in pairs[:_MOST_MATRICES]]


def _matrix(matrix: Matrix, metric: Metric) -> dict[str, Any]:
    values = matrix.cells.to_numpy(np.float64)
    finite = values[np.isfinite(values)]
    return {
        "rows": matrix.rows,
        "columns": matrix.columns,
        "over": ", ".join(matrix.over),
        "across": [value_in_words(value) for value in matrix.cells.columns],
        "down": [
            (value_in_words(name), [_cell(value, finite, metric) for value in row])
            for name, row in zip(matrix.cells.index, values, strict=True)
        ],
    }


def _cell(value: float, finite: Float[np.ndarray, " N"], metric: Metric) -> dict[str, Any]:
    """What is written, and how deep its colour is: from 0 for the worst of the finite to 1 for the best."""
    if not np.isfinite(value):
        return {"value": None, "share": None}
    worst = finite.min() if metric.is_share else largest_near(finite.tolist())
    width = (finite.max() if metric.is_share else finite.min()) - worst
    share = max(0.0, round((value - worst) / width, 3)) if width else 0.5
    return {"value": metric.number(value, 1 if metric.is_share else 3), "share": share}
