"""`write_report`: all parts of a run's report, put into one HTML file that opens without a network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from convscope.base.console import progress_of_parts
from convscope.data import DataBundle, check_bundle
from convscope.draw import learning_curve, reliability
from convscope.report import inside, mistakes, saliency, visualization
from convscope.report.ablation import ablation_section
from convscope.report.budget import MINUTES
from convscope.report.filters import effects_of, filters_fit, filters_page, has_filters
from convscope.report.findings import findings
from convscope.report.page import fill, static, vega
from convscope.report.subject import ReportedRun
from convscope.runs import (
    FILTERS,
    REPORT,
    SPEC,
    RunOrFolder,
    check_writable,
    dump_spec,
    open_run,
    shareable,
    write_whole,
)

_PARTS: dict[str, tuple[str, Callable[[ReportedRun], Any]]] = {
    "network": ("Architecture", inside.network),
    "filters": ("First-layer filters", inside.first_filters),
    "visualization": ("Feature visualization", visualization.feature_visualization),
    "maps": ("Feature maps", inside.feature_maps),
    "saliency": ("Saliency maps", saliency.saliency_maps),
    "ablation": ("Ablation", ablation_section),
    "examples": ("Data", inside.class_examples),
}
"""Those that look at images, by their headings."""

_Part = Callable[[str], AbstractContextManager[Any]]


def write_report(run: RunOrFolder, data: DataBundle | None = None, minutes: float = MINUTES) -> Path:
    """The path of the report that was written: `report.html` in the run folder.

    Beside it `filters.html`, a page of every filter, where the network has convolutions and can be traced.

    Args:
        run: trained and evaluated; or its folder.
        data: its data set, loaded where not given.
        minutes: that it may take on two cores, about. Of a large network the heavy parts are made of fewer images or units, or
            left out, and say so. `math.inf` for no limit.
    Raises:
        RunFolderError: the run is not evaluated yet, or its data has changed.
        ReadOnlyError: nothing may be written in the folder.
    """
    run = open_run(run)
    run.metrics, run.predictions  # noqa: B018 (says at once what is missing)
    check_writable(run.path)
    data = run.load_data() if data is None else data
    check_bundle(data)
    subject = ReportedRun(run, data, minutes)
    path = run.path / REPORT
    with progress_of_parts("report", len(_PARTS) + 1) as part:
        write_whole(path, render(subject, part))
        if has_filters(subject) and filters_fit(subject).n:
            with part("Filters"):
                page = filters_page(subject, effects_of(subject))
            write_whole(run.path / FILTERS, page)
    return path


def render(subject: ReportedRun, part: _Part = nullcontext) -> str:
    """The report's HTML.

    Args:
        subject: the run.
        part: begins a part, by its heading; see `progress_of_parts`.
    """
    parts = {}
    for name, (heading, make) in _PARTS.items():
        with part(heading):
            parts[name] = make(subject)
    fit = filters_fit(subject) if has_filters(subject) else None
    return fill(
        "report.html",
        run=subject.run,
        data=subject.data,
        called=subject.data.test.called,
        metrics=subject.metrics,
        heads=subject.metrics["heads"],
        history=subject.run.history,
        findings=findings(subject),
        charts=charts(subject),
        matrices=mistakes.confusion_matrices(subject),
        pairs=mistakes.confused_pairs(subject),
        confident=mistakes.confident_errors(subject),
        every_filter=FILTERS if fit and fit.n else None,
        filters_fit=fit,
        spec=dump_spec(shareable(subject.run.spec)),
        command=f"convscope study {SPEC} --out again",
        from_spec=subject.run.environment.get("first_weights") == "spec",
        dropout=any(layer.kind == "dropout" for layer in subject.anatomy.layers),
        augmented=any(not part.augmentation.is_off for part in subject.run.spec.recipe.parts),
        environment=subject.run.environment,
        style=static("report.css"),
        script=static("tables.js") + static("report.js"),
        vega=vega(),
        **parts,
    )


def charts(subject: ReportedRun) -> dict[str, Any]:
    """Learning curves and reliability diagrams, by the names of their places in a page."""
    history, accuracy = subject.run.history, subject.metrics["accuracy"]["value"]
    page_charts = {f"curve-{measure}": learning_curve(history, measure, accuracy) for measure in ("loss", "accuracy")}
    for target, head in subject.metrics["heads"].items():
        page_charts[f"reliability-{target}"] = reliability(head["reliability"])
    return page_charts
