"""The pages of the explorer: for each what it shows of a run, as plain values for its template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch

from convscope import __version__, study
from convscope.analyses import find, names
from convscope.app.explored import ExploredRun
from convscope.app.state import Know, State, off_in_words, read_number
from convscope.app.unit_pages import unit, units
from convscope.base.bounded import flattened
from convscope.errors import ConvscopeError, RequestError, UnknownNameError
from convscope.report import fill
from convscope.runs import CHECKPOINT, open_run
from convscope.scans import Ablation, paired_difference, proportion

TITLES = {
    "runs": "Runs", "overview": "Overview", "lab": "Image lab", "units": "Units", "map": "Map",
    "mistakes": "Mistakes", "compare": "Compare", "api": "API",
}  # fmt: skip
COPIED_TITLES = {
    "overview": "Overview", "examples": "Examples", "units": "Units", "map": "Map", "mistakes": "Mistakes",
}  # fmt: skip
"""Of a copy without a server."""
METHODS = {"pca": "PCA", "tsne": "t-SNE"}
_MOST_IMAGES = 120
_MOST_MISTAKES = 1000


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
        titles=COPIED_TITLES if state.is_copy else TITLES, jobs=jobs, off=off_in_words(state.off), version=__version__, **parts,
        client={"run": state.number, "off": state.off, "copy": state.is_copy, "cells": list(cells)},  # what scripts need
    )  # fmt: skip


def problem(words: str) -> str:
    """A page that says what is wrong, and nothing else."""
    return fill("problem.html", "convscope.app", words=words, titles=TITLES)


def overview(state: State, know: Know) -> dict[str, Any]:
    """Findings, figures with intervals, learning curves, the confusion matrix; of a training its curves as they grow."""
    run = state.run
    if not run.is_evaluated:
        return {"live": True, "charts": {}, "matrices": []}
    ablation, parts = _ablation(state, know), {"live": False, "without": None} | run.figures
    if ablation is not None:
        first, *others = parts["matrices"]
        parts["matrices"] = [first | {"matrix": ablation.confusion_after.tolist()}, *others]
        changed = [
            (row, ablation.classes[ablation.before[row]], ablation.classes[ablation.after[row]], words)
            for words, rows in (("lost", ablation.lost), ("gained", ablation.gained))
            for row in rows.tolist()
        ]
        parts |= {"without": ablation, "changed": changed}
    return parts


def _ablation(state: State, know: Know) -> Ablation | None:
    """The answers to all test images without the units that are off; None without any, and until they are known."""
    if not state.off:
        return None
    ablation: Ablation | None = know("without", f"all test images without {off_in_words(state.off)}", off=state.off)
    return ablation


def lab(state: State, know: Know) -> dict[str, Any]:
    """The image lab: fields of layers, and how it begins; the rest of the run is read by the template, or comes by the socket.

    For each layer the receptive field of every position: [top, bottom] of the rows, [left, right] of the columns.
    """
    run, task = state.run, state.run.scope.task
    defaults = {"image": "0", "edits": "[]", "lens": run.lenses[0], "layers": "", "show": "change"}
    boxes = {layer["name"]: run.scope.receptive_field(layer["name"]).boxes for layer in run.layers}
    return {
        "fields": {
            name: {"rows": box[[0, 2], :, 0].T.tolist(), "columns": box[[1, 3], 0].T.tolist()}
            for name, box in boxes.items()
        },
        "heads": [(first := task.first_class(n), first + len(head.classes)) for n, head in enumerate(task.heads)],
        "start": {key: state.query.get(key, default) for key, default in defaults.items()},
    }


def projection_map(state: State, know: Know) -> dict[str, Any]:
    """The test images as points: by PCA first, which is shown until another method is done; the points come by their route."""
    run = state.run
    layer, method = projection_of(run, state.query.get("layer", ""), state.query.get("method", "pca"))
    where = f"the features of {layer}" if layer else "the features that the logits are read from"
    ready = [
        each
        for each in dict.fromkeys(("pca", method))
        if know("projection", f"{METHODS[each]} of {where}", layer=layer, method=each) is not None
    ]
    return {"layer": layer, "method": method, "methods": METHODS, "shown": ready[-1] if ready else None}


def projection_of(run: ExploredRun, layer: str, method: str) -> tuple[str | None, str]:
    """Layer and method of a map, as an address names them; an empty layer: the features that the logits are read from.

    Raises:
        UnknownNameError: there is no such layer or method.
    """
    layers = [each["name"] for each in run.layers]
    if layer and layer not in layers:
        raise UnknownNameError("layer", layer, layers, "one of the map's")
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS, "one of the map's")
    return layer or None, method


def mistakes(state: State, know: Know) -> dict[str, Any]:
    """The queue of misclassified images, the largest loss first; with units switched off those of the rest of the network."""
    run = state.run
    answers = run.subject.answers[0]
    logits = answers.head.logits(run.run.predictions["logits"]).float()
    predicted, losses = answers.predicted, torch.nn.functional.cross_entropy(logits, answers.true, reduction="none")
    right_before = predicted == answers.true
    if (ablation := _ablation(state, know)) is not None:
        predicted, losses = ablation.after, -ablation.probability_after.clamp(min=1e-12).log()
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
    return {"queue": queue, "n_wrong": len(order), "lenses": run.lenses, "accuracy": proportion(n - len(order), n)}


def images(state: State, know: Know) -> dict[str, Any]:
    """Test images of a true class, predicted as a class: a cell of the confusion matrix, without the units that are off."""
    run, query = state.run, state.query
    answers, ablation = run.subject.answers[0], _ablation(state, know)
    true, predicted, probability, names = answers.true, answers.predicted, answers.confidence, answers.head.classes
    if ablation is not None:
        predicted, probability = ablation.after, ablation.probability_after
    chosen, words = torch.ones(len(true), dtype=torch.bool), []
    for key, column, phrase in (("true", true, "true class"), ("predicted", predicted, "predicted as")):
        if key in query:
            k = read_number(query[key], key)
            if k >= len(names):
                raise RequestError(f"{key}={k}: there are classes 0 to {len(names) - 1}")
            chosen &= column == k
            words.append(f"{phrase} {names[k]}")
    rows = chosen.nonzero()[:, 0]
    ranked = rows[probability[rows].argsort(descending=True, stable=True)].tolist()
    cards = [
        {
            "row": row,
            "true": names[true[row]],
            "predicted": names[predicted[row]],
            "probability": float(probability[row]),
        }
        for row in ranked[:_MOST_IMAGES]
    ]
    return {"cards": cards, "n": len(ranked), "words": ", ".join(words) or "all test images",
            "of": "predicted" if ablation is None else "true"}  # fmt: skip


def api(state: State, know: Know) -> dict[str, Any]:
    """The routes that a script may ask, from the catalogue."""
    return {"analyses": [find(name) for name in names()]}


_MOST_SETTINGS = 8
_ONLY_ONE = 24


def run_table(state: State, know: Know) -> dict[str, Any]:
    """All runs: their settings as far as they differ, how far they are, and their accuracies."""
    rows = [_run_row(number, each) for number, each in enumerate(state.runs)]
    flat = [row["all_settings"] for row in rows if row["all_settings"]]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    differing = [key for key in keys if len({str(each.get(key)) for each in flat}) > 1]
    for row in rows:
        row["settings"] = {key: row["all_settings"].get(key, "–") for key in keys}
    measured = [row for row in rows if row["val_accuracy"] is not None]
    best = max(measured, key=lambda row: row["val_accuracy"], default=None)
    return {
        "rows": rows,
        "settings": differing[:_MOST_SETTINGS],
        "best": best,
        "going": sum(row["state"] in ("begun", "training") for row in rows),
    }


def _run_row(number: int, explored: ExploredRun) -> dict[str, Any]:
    row = {"number": number, "name": explored.name, "epoch": 0, "epochs": 0, "val_accuracy": None, "test": None}
    try:
        run = open_run(explored.run.path)  # what was read of it before may be old
        spec = run.spec
    except ConvscopeError:  # it was removed, or damaged
        return row | {"state": "cannot be read", "all_settings": {}}
    history, test = None, None
    with suppress(ConvscopeError):
        history = run.history
    with suppress(ConvscopeError):
        test = run.metrics["accuracy"]
    accuracies = [] if history is None else history["val_accuracy"].dropna().tolist()
    state = "evaluated" if test else "trained" if run.is_trained else "training" if run.has(CHECKPOINT) else "begun"
    settings = flattened(spec.model_dump(mode="json", exclude={"about"}))
    return row | {
        "state": state, "epoch": 0 if history is None else len(history), "epochs": spec.recipe.epochs,
        "val_accuracy": max(accuracies, default=None), "test": test,
        "all_settings": {key: value for key, value in settings if value != {}},
    }  # fmt: skip


def compare(state: State, know: Know) -> dict[str, Any]:
    """Two runs: who is right where, one image in both, and how alike their layers are."""
    evaluated = [number for number, each in enumerate(state.runs) if each.is_evaluated and number != state.number]
    if not evaluated:
        return {"unfinished": "There is one run that can be looked into. To compare two: convscope serve RUN RUN"}
    if state.run.unfinished:
        return {"unfinished": state.run.unfinished}
    number = read_number(state.query.get("with", str(evaluated[0])), "with")
    if number not in evaluated:
        raise RequestError(f"with={number}: expected another run that is evaluated, such as {evaluated[0]}")
    run, other = state.run, state.runs[number]
    image = read_number(state.query.get("image", "0"), "image")
    same = run.run.environment["data"]["digest"] == other.run.environment["data"]["digest"]
    return {
        "other": other, "other_number": number, "others": evaluated, "pair": _pair(run, other) if same else None,
        "lenses": [name for name in run.lenses if name in other.lenses],
        "image": min(image, len(run.test) - 1, len(other.test) - 1), "n_images": min(len(run.test), len(other.test)),
        "edits": _listed(state.query.get("edits", "[]")), "cka": _cka(know, run, other) if same else None,
    }  # fmt: skip


def _listed(text: str) -> list[Any]:
    try:
        edits = json.loads(text)
    except (ValueError, RecursionError):
        edits = None
    if not isinstance(edits, list):
        raise RequestError(f"edits={text[:80]}: expected a list of edits")
    return edits


def _pair(run: ExploredRun, other: ExploredRun) -> dict[str, Any]:
    """Accuracies with their paired difference, and the images that only one gets right."""
    first, second = (~each.subject.answers[0].wrong for each in (run, other))
    both, only_first, only_second = (int(part.sum()) for part in (first & second, first & ~second, second & ~first))
    neither = len(first) - both - only_first - only_second
    only = [(each.name, part.nonzero()[:_ONLY_ONE, 0].tolist(), int(part.sum()))
            for each, part in ((run, first & ~second), (other, second & ~first))]  # fmt: skip
    return {
        "difference": paired_difference(both, only_first, only_second, neither),
        "first": proportion(both + only_first, len(first)),
        "second": proportion(both + only_second, len(first)),
        "p": study.written_p(study.mcnemar(only_first, only_second)), "only": only,
    }  # fmt: skip


def _cka(know: Know, run: ExploredRun, other: ExploredRun) -> dict[str, Any] | None:
    layers = [[layer["name"] for layer in each.layers if layer["shown"]] for each in (run, other)]
    path, words = str(other.run.path.absolute()), f"the similarity of layers of {run.name} and {other.name}"
    similarity = know("similarity", words, other=path, made_at=other.made_at, layers=layers, trust=other.trust)
    if similarity is None:
        return None
    return {"second": layers[1], "rows": list(zip(layers[0], similarity["cka"].tolist(), strict=True))}


PAGES = {
    "overview": overview, "compare": compare, "runs": run_table, "api": api,
    "lab": lab, "units": units, "unit": unit, "map": projection_map, "mistakes": mistakes, "images": images,
}  # fmt: skip
"""What makes the parts of each page; all but the first four need a network that can be looked into."""


def parts_of(name: str, state: State, know: Know) -> dict[str, Any]:
    """What a page shows."""
    if name not in ("overview", "compare", "runs", "api") and state.run.unfinished:
        return {"unfinished": state.run.unfinished}
    return PAGES[name](state, know)
