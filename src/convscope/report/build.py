"""`write_report`: all parts of a run's report, put into one HTML file that opens without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convscope.data import Augmentation, DataBundle
from convscope.draw import learning_curve, reliability
from convscope.report import inside, mistakes, saliency, visualization
from convscope.report.ablation import ablation_section
from convscope.report.filters import effects_of, filters_page, has_filters
from convscope.report.findings import findings
from convscope.report.page import fill, static, vega
from convscope.report.subject import ReportedRun
from convscope.runs import FILTERS, REPORT, SPEC, Run, check_writable, dump_spec, shareable, write_whole


def write_report(run: Run, data: DataBundle | None = None) -> Path:
    """The path of the report that was written: `report.html` in the run folder.

    Beside it `filters.html`, a page of every filter, where the network has convolutions and can be traced.

    Args:
        run: trained and evaluated.
        data: its data set, loaded where not given.
    Raises:
        RunFolderError: the run is not evaluated yet, or its data has changed.
        ReadOnlyError: nothing may be written in the folder.
    """
    run.metrics, run.predictions  # noqa: B018 (says at once what is missing)
    check_writable(run.path)
    subject = ReportedRun(run, data or run.load_data())
    path = run.path / REPORT
    write_whole(path, render(subject))
    if has_filters(subject):
        write_whole(run.path / FILTERS, filters_page(subject, effects_of(subject)))
    return path


def render(subject: ReportedRun) -> str:
    """The report's HTML."""
    return fill(
        "report.html",
        subject=subject,
        run=subject.run,
        data=subject.data,
        called=subject.data.test.called,
        metrics=subject.metrics,
        heads=subject.metrics["heads"],
        history=subject.run.history,
        findings=findings(subject),
        charts=_charts(subject),
        matrices=mistakes.confusion_matrices(subject),
        pairs=mistakes.confused_pairs(subject),
        confident=mistakes.confident_errors(subject),
        network=inside.network(subject),
        filters=inside.first_filters(subject),
        every_filter=FILTERS if has_filters(subject) else None,
        visualization=visualization.feature_visualization(subject),
        maps=inside.feature_maps(subject),
        saliency=saliency.saliency_maps(subject),
        ablation=ablation_section(subject),
        examples=inside.class_examples(subject),
        spec=dump_spec(shareable(subject.run.spec)),
        command=f"convscope study {SPEC} --out again",
        from_spec=subject.run.environment.get("first_weights") == "spec",
        dropout=any(layer.kind == "dropout" for layer in subject.anatomy.layers),
        augmented=any(part.augmentation != Augmentation() for part in subject.run.spec.recipe.parts),
        environment=subject.run.environment,
        style=static("report.css"),
        script=static("tables.js") + static("report.js"),
        vega=vega(),
    )


def _charts(subject: ReportedRun) -> dict[str, Any]:
    history, accuracy = subject.run.history, subject.metrics["accuracy"]["value"]
    charts = {f"curve-{measure}": learning_curve(history, measure, accuracy) for measure in ("loss", "accuracy")}
    for target, head in subject.metrics["heads"].items():
        charts[f"reliability-{target}"] = reliability(head["reliability"])
    return charts
