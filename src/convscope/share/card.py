"""`write_card`: a folder to publish a run with: a model card, the weights, what a program must know to load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from convscope import __version__
from convscope.draw import panel, picture, png
from convscope.errors import DataError, RunFolderError
from convscope.report import ReportedRun, confident_errors, fill, findings
from convscope.runs import MODEL, Run, check_writable, dump_spec, shareable, write_whole

CARD, CONFIG, FAILURES, SPEC_COPY = "README.md", "config.json", "failures.png", "spec.yaml"
_MOST_FAILURES = 12
_MOST_LETTERS = 18  # of a class below a picture


def write_card(run: Run, out: str | Path | None = None) -> Path:
    """The folder that was written: README.md with the Hub's metadata block, config.json, weights, spec.yaml, failures.png.

    Args:
        run: trained and evaluated.
        out: the folder, `card` in the run folder by default; files of these names in it are replaced.
    Raises:
        RunFolderError: the run is not evaluated, or its data has changed.
        ReadOnlyError: nothing may be written there.
    """
    folder = Path(out) if out else run.path / "card"
    run.metrics  # noqa: B018 (says at once what is missing)
    check_writable(folder)
    try:
        subject = ReportedRun(run, run.load_data())
    except DataError as error:
        raise RunFolderError(f"{run.path}: a card shows images of its data, which cannot be loaded: {error}") from None
    failures = _failures(subject)
    text = fill("card.md", "convscope.share", **_parts(subject, bool(failures)))
    if failures:
        write_whole(folder / FAILURES, failures)
    write_whole(folder / MODEL, (run.path / MODEL).read_bytes())
    write_whole(folder / SPEC_COPY, dump_spec(shareable(run.spec)))
    write_whole(folder / CONFIG, json.dumps(_config(run), indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / CARD, text)
    return folder


def _config(run: Run) -> dict[str, Any]:
    """What a program must know beside the weights."""
    names = run.task.classes
    return {
        "library": f"convscope {__version__}",
        "architecture": run.spec.net.name,
        "architecture_options": run.spec.net.options,
        "num_classes": len(names),
        "id2label": {str(n): name for n, name in enumerate(names)},
        "label2id": {name: n for n, name in enumerate(names)},
        "input_shape": list(run.input_shape),
        "mean": list(run.card.mean),
        "std": list(run.card.std),
    }


def _parts(subject: ReportedRun, has_failures: bool) -> dict[str, Any]:
    run, metrics = subject.run, subject.metrics
    environment, data = run.environment, run.environment["data"]
    return {
        "front": _front_matter(run, metrics, data["name"]),
        "name": _cell(run.name),
        "about": _cell(run.spec.about or "").rstrip("."),
        "net": run.spec.net.name,
        "parameters": subject.anatomy.parameters,
        "shape": "×".join(map(str, run.input_shape)),
        "classes": len(run.task.classes),
        "data": data | {"name": _cell(data["name"])},
        "digest": data["digest"],
        "findings": [_cell(sentence) for sentence in findings(subject)],
        "heads": {
            target: [_row(row) for row in head["per_class"]] for target, head in metrics["heads"].items()
        },
        "accuracy": _percent(metrics["accuracy"]),
        "loss": metrics["loss"]["value"],
        "images": metrics["images"],
        "failures": FAILURES if has_failures else None,
        "packages": environment["packages"],
        "date": str(environment.get("date", ""))[:10],
        "version": __version__,
    }  # fmt: skip


def _front_matter(run: Run, metrics: dict[str, Any], data: str) -> str:
    """The metadata block that the Hugging Face Hub reads, with the result as its `model-index`."""
    accuracy = metrics["accuracy"]
    name = f"test accuracy, 95 % interval {100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f} %"
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": data, "split": "test"},
        "metrics": [{"type": "accuracy", "value": round(accuracy["value"], 6), "name": name}],
    }
    front = {
        "library_name": "convscope",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "convscope", "pytorch"],
        "metrics": ["accuracy"],
        "model-index": [{"name": run.name, "results": [result]}],
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


def _row(row: dict[str, Any]) -> dict[str, str]:
    figures = {key: _percent(row[key]) for key in ("recall", "precision", "f1")}
    return {"class": _cell(row["class"]), "images": f"{row['images']:,}"} | figures


def _percent(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return "–"
    limits = [f"{100 * limit:.1f}" for limit in (figure["low"], figure["high"]) if limit is not None]
    return f"{100 * figure['value']:.2f} %" + (f" ({' to '.join(limits)})" if len(limits) == 2 else "")


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table: it cannot end the cell, nor be markup."""
    return "".join(f"\\{letter}" if letter in "\\|`*_[]<>#" else letter for letter in " ".join(text.split()))


def _failures(subject: ReportedRun) -> bytes | None:
    """The most confident errors, as a picture; None where there is none."""
    shown = confident_errors(subject)[:_MOST_FAILURES]
    if not shown:
        return None
    parts = [
        (f"{_short(one['true'])}, not {_short(one['predicted'])}", picture(subject.data.test[one["row"]][0]))
        for one in shown
    ]
    note = "below each its class, and what the network answers"
    return png(panel(parts, "the most confident errors on test images", side=112, columns=4, note=note))


def _short(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"
