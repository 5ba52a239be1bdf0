"""The pages of the explorer: for each what it shows of a run, as plain values for its template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from convscope import __version__
from convscope.analyses import find, names
from convscope.app.explored import ExploredRun
from convscope.app.run_pages import compare, run_table
from convscope.app.state import Know, State, check_there, needs_network, off_in_words, read_number
from convscope.app.unit_pages import unit, units
from convscope.errors import RequestError, UnknownNameError
from convscope.report import fill
from convscope.scans import Ablation, proportion

TITLES = {
    "runs": "Runs", "overview": "Overview", "lab": "Image lab", "units": "Units", "map": "Map",
    "mistakes": "Mistakes", "compare": "Compare", "api": "API",
}  # fmt: skip
COPIED_TITLES = {
    "overview": "Overview", "examples": "Examples", "units": "Units", "map": "Map", "mistakes": "Mistakes",
}  # fmt: skip
"""Of a copy without a server."""
PAGES = (*TITLES, "images")
METHODS = {"pca": "PCA", "tsne": "t-SNE"}
_MOST_IMAGES = 120
_MOST_MISTAKES = 1000


def page_of(name: str) -> Callable[[State, Know], dict[str, Any]]:
    """What makes the parts of a page."""
    return {"overview": overview, "lab": lab, "units": units, "unit": unit, "map": projection_map, "mistakes": mistakes,
            "compare": compare, "runs": run_table, "images": images, "api": api}[name]  # fmt: skip


def render(
    name: str, state: State, parts: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]] = (), cells: Sequence[str] = ()
) -> str:
    """A page's HTML.

    Args:
        name: of the page.
        state: what the address asks for.
        parts: what the page shows.
        jobs: say what is missing yet.
        cells: of the confusion matrix that a copy has a page of: "0-3".
    """
    return fill(
        f"{name}.html", "convscope.app", state=state, run=state.run, page=name,
        titles=COPIED_TITLES if state.is_copy else TITLES, jobs=jobs,
        off=off_in_words(state.off), off_in_words=off_in_words, version=__version__, client=_client(state, cells), **parts,
    )  # fmt: skip


def problem(words: str) -> str:
    """A page that says what is wrong, and nothing else."""
    return fill("problem.html", "convscope.app", words=words, titles=TITLES)


def _client(state: State, cells: Sequence[str]) -> dict[str, Any]:
    """What every script needs."""
    return {"run": state.number, "off": state.off, "copy": state.is_copy, "cells": list(cells)}


def overview(state: State, know: Know) -> dict[str, Any]:
    """Findings, figures with intervals, learning curves, the confusion matrix; of a training its curves as they grow."""
    run = state.run
    if not run.is_evaluated:
        check_there(run)
        return {"live": True, "charts": {}, "matrices": []}
    found, parts = _ablation(state, know), {"live": False, "without": None, "test": run.test} | run.figures
    if found is not None:
        first, *others = parts["matrices"]
        parts["matrices"] = [first | {"matrix": found.confusion_after.tolist()}, *others]
        parts["without"] = _without(found)
    return parts


def _ablation(state: State, know: Know) -> Ablation | None:
    """The answers to all test images without the units that are off; None without any, and until they are known."""
    if not state.off:
        return None
    found: Ablation | None = know("without", f"all test images without {off_in_words(state.off)}", off=state.off)
    return found


def _without(found: Ablation) -> dict[str, Any]:
    """What changes when units are switched off: accuracy, and the images that are lost and gained."""
    place = {int(row): k for k, row in enumerate(found.index.tolist())}
    changed = [
        {"row": row, "lost": kind == "lost", "true": found.classes[found.target[place[row]]],
         "before": found.classes[found.before[place[row]]], "after": found.classes[found.after[place[row]]]}
        for kind in ("lost", "gained") for row in getattr(found, kind).tolist()
    ]  # fmt: skip
    return {"before": found.accuracy_before().to_json(), "after": found.accuracy_after().to_json(),
            "change": found.change().to_json(), "changed": changed, "lost": len(found.lost),
            "gained": len(found.gained)}  # fmt: skip


def lab(state: State, know: Know) -> dict[str, Any]:
    """The image lab: layers, classes and lenses to choose from; the rest comes by its socket."""
    if missing := needs_network(state):
        return missing
    run = state.run
    others = [{"number": n, "name": each.name} for n, each in enumerate(state.runs) if each.is_evaluated]
    query = state.query
    start = {
        "image": query.get("image", "0"), "edits": query.get("edits", "[]"), "lens": query.get("lens", run.lenses[0]),
        "layers": query.get("layers", ""), "show": query.get("show", "change"),
    }  # fmt: skip
    return {
        "layers": run.layers,
        "lenses": run.lenses,
        "fields": _fields(run),
        "shape": run.run.input_shape,
        "classes": run.scope.classes,
        "n_images": len(run.test),
        "targets": run.test.targets_of("class").tolist(),
        "test_classes": run.test.classes["class"],
        "runs": others,
        "start": start,
    }


def _fields(run: ExploredRun) -> dict[str, Any]:
    """For each layer the receptive field of every position: [tops, lefts, bottoms, rights]; of separable ones as two lists."""
    found = {}
    for layer in run.layers:
        boxes = run.scope.receptive_field(layer["name"]).boxes
        rows, columns = boxes[[0, 2], :, 0], boxes[[1, 3], 0]
        found[layer["name"]] = {"rows": rows.T.tolist(), "columns": columns.T.tolist()}
    return found


def projection_map(state: State, know: Know) -> dict[str, Any]:
    """The test images as points: by PCA first, which is shown until another method is done; the points come by their route."""
    if missing := needs_network(state):
        return missing
    run = state.run
    layer, method = projection_of(run, state.query.get("layer", ""), state.query.get("method", "pca"))
    where = f"the features of {layer}" if layer else "the features that the logits are read from"
    ready = [
        each
        for each in dict.fromkeys(("pca", method))
        if know("projection", f"{METHODS[each]} of {where}", layer=layer, method=each) is not None
    ]
    return {"layers": run.layers, "layer": layer, "method": method, "methods": METHODS, "n_images": len(run.test),
            "shown": ready[-1] if ready else None, "classes": run.subject.answers[0].head.classes}  # fmt: skip


def projection_of(run: ExploredRun, layer: str, method: str) -> tuple[str | None, str]:
    """Layer and method of a map, as an address names them; an empty layer: the features that the logits are read from.

    Raises:
        UnknownNameError: there is no such layer or method.
    """
    known = [each["name"] for each in run.layers]
    if layer and layer not in known:
        raise UnknownNameError("layer", layer, known, "one of the map's")
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS, "one of the map's")
    return layer or None, method


def mistakes(state: State, know: Know) -> dict[str, Any]:
    """The queue of misclassified images, the largest loss first; with units switched off those of the rest of the network."""
    if missing := needs_network(state):
        return missing
    run = state.run
    answers = run.subject.answers[0]
    logits = answers.head.logits(run.run.predictions["logits"]).float()
    predicted, losses = answers.predicted, torch.nn.functional.cross_entropy(logits, answers.true, reduction="none")
    right_before = predicted == answers.true
    if (found := _ablation(state, know)) is not None:
        predicted, losses = found.after, -found.probability_after.clamp(min=1e-12).log()
    wrong = (predicted != answers.true).nonzero()[:, 0]
    order = wrong[losses[wrong].argsort(descending=True, stable=True)].tolist()
    names = answers.head.classes
    queue = [
        {
            "row": row, "name": run.test.name(row), "true": names[answers.true[row]], "predicted": names[predicted[row]],
            "loss": round(float(losses[row]), 3), "right_before": bool(right_before[row]),
        }
        for row in order[:_MOST_MISTAKES]
    ]  # fmt: skip
    n = len(answers.true)
    return {"queue": queue, "n_wrong": len(order), "test": run.test, "lenses": run.lenses,
            "accuracy": proportion(n - len(order), n).to_json()}  # fmt: skip


def images(state: State, know: Know) -> dict[str, Any]:
    """Test images of a true class, predicted as a class: a cell of the confusion matrix, without the units that are off."""
    if missing := needs_network(state):
        return missing
    run, query = state.run, state.query
    answers, found = run.subject.answers[0], _ablation(state, know)
    predicted = answers.predicted if found is None else found.after
    probability = answers.confidence if found is None else found.probability_after
    chosen = torch.ones(len(answers.true), dtype=torch.bool)
    said = []
    for key, column in (("true", answers.true), ("predicted", predicted)):
        if key in query:
            k = read_number(query[key], key)
            if k >= len(answers.head.classes):
                raise RequestError(f"{key}={k}: there are classes 0 to {len(answers.head.classes) - 1}")
            chosen &= column == k
            said.append(f"{'true class' if key == 'true' else 'predicted as'} {answers.head.classes[k]}")
    rows = chosen.nonzero()[:, 0]
    ranked = rows[probability[rows].argsort(descending=True, stable=True)].tolist()
    cards = [{"row": row, "name": run.test.name(row), "true": answers.head.classes[answers.true[row]],
              "predicted": answers.head.classes[predicted[row]], "probability": float(probability[row])}
             for row in ranked[:_MOST_IMAGES]]  # fmt: skip
    return {"cards": cards, "n": len(ranked), "words": ", ".join(said) or "all test images",
            "of": "predicted" if found is None else "true"}  # fmt: skip


def api(state: State, know: Know) -> dict[str, Any]:
    """The routes that a script may ask, from the catalogue."""
    return {"analyses": [find(name) for name in names()]}
