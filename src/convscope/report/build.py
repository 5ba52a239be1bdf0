"""`write_report`: all parts of a run's report, put into one HTML file that opens without a network."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from convscope.data import Augmentation, DataBundle
from convscope.draw import learning_curve, reliability, vega_script
from convscope.report import explained, inside, mistakes
from convscope.report.findings import findings
from convscope.report.subject import Subject
from convscope.runs import REPORT, SPEC, Run, dump_spec, write_whole


def write_report(run: Run, data: DataBundle | None = None) -> Path:
    """The path of the report that was written: `report.html` in the run folder.

    Args:
        run: trained and evaluated.
        data: its data set, loaded where not given.
    Raises:
        RunFolderError: the run is not evaluated yet, or its data has changed.
    """
    run.metrics, run.predictions  # noqa: B018 (says at once what is missing)
    subject = Subject(run, data or run.load_data())
    path = run.path / REPORT
    write_whole(path, render(subject))
    return path


def render(subject: Subject) -> str:
    """The report's HTML."""
    environment = Environment(
        loader=PackageLoader("convscope.report"), autoescape=select_autoescape(), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "interval": _interval, "side": _side, "embed": _embed}
    return environment.get_template("report.html").render(
        subject=subject,
        run=subject.run,
        data=subject.data,
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
        excited=explained.excited(subject),
        maps=inside.feature_maps(subject),
        explained=explained.explained(subject),
        examples=inside.class_examples(subject),
        spec=dump_spec(subject.run.spec),
        command=f"convscope study {SPEC} --out again",
        from_spec=subject.run.environment.get("first_weights") == "spec",
        dropout=any(layer.kind == "dropout" for layer in subject.anatomy.layers),
        augmented=subject.run.spec.recipe.augmentation != Augmentation(),
        environment=subject.run.environment,
        style=Markup(_static("report.css")),
        script=Markup(_static("report.js")),
        vega=Markup(vega_script().replace("</script", "<\\/script")),
    )


def _charts(subject: Subject) -> dict[str, Any]:
    history, accuracy = subject.run.history, subject.metrics["accuracy"]["value"]
    charts = {f"curve-{measure}": learning_curve(history, measure, accuracy) for measure in ("loss", "accuracy")}
    for target, head in subject.metrics["heads"].items():
        charts[f"reliability-{target}"] = reliability(head["reliability"])
    return charts


def _static(name: str) -> str:
    return (resources.files("convscope.report") / "static" / name).read_text("utf-8")


def _embed(values: Any) -> Markup:
    """JSON that cannot end the <script> it stands in."""
    return Markup(json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _interval(figure: dict[str, float | None], scale: float = 100, digits: int = 1) -> str:
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f"{scale * figure['low']:.{digits}f} to {scale * figure['high']:.{digits}f}"


def _side(value: int | list[int] | None) -> str:
    return "" if value is None else "×".join(map(str, value)) if isinstance(value, list) else str(value)
