"""The pages of several runs: their table, and two side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from convscope import study
from convscope.app.explored import ExploredRun
from convscope.app.state import Know, State, needs_network, read_number
from convscope.errors import ConvscopeError, RequestError
from convscope.runs import CHECKPOINT, open_run
from convscope.scans import paired_difference, proportion

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
        "going": sum(row["state"] == "training" for row in rows),
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
    return row | {
        "state": state, "epoch": 0 if history is None else len(history), "epochs": spec.recipe.epochs,
        "val_accuracy": max(accuracies, default=None), "test": test,
        "all_settings": _flat(spec.model_dump(mode="json", exclude={"about"})),
    }  # fmt: skip


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def compare(state: State, know: Know) -> dict[str, Any]:
    """Two runs: who is right where, one image in both, and how alike their layers are."""
    evaluated = [number for number, each in enumerate(state.runs) if each.is_evaluated and number != state.number]
    if not evaluated:
        return {"unfinished": "There is one run that can be looked into. To compare two: convscope serve RUN RUN"}
    if missing := needs_network(state):
        return missing
    number = read_number(state.query.get("with", str(evaluated[0])), "with")
    if number not in evaluated:
        raise RequestError(f"with={number}: expected another run that is evaluated, such as {evaluated[0]}")
    run, other = state.run, state.runs[number]
    image = read_number(state.query.get("image", "0"), "image")
    same = run.run.environment["data"]["digest"] == other.run.environment["data"]["digest"]
    return {
        "other": other, "other_number": number, "pair": _pair(run, other) if same else None,
        "lenses": [name for name in run.lenses if name in other.lenses],
        "image": min(image, len(run.test) - 1, len(other.test) - 1), "n_images": min(len(run.test), len(other.test)),
        "edits": _listed(state.query.get("edits", "[]")), "cka": _cka(know, run, other) if same else None,
    }  # fmt: skip


def _listed(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise RequestError(f"edits={text[:80]}: expected a list of edits")
    return found


def _pair(run: ExploredRun, other: ExploredRun) -> dict[str, Any]:
    """Accuracies with their paired difference, and the images that only one gets right."""
    first, second = (~each.subject.answers[0].wrong for each in (run, other))
    both, only_first, only_second = (int(part.sum()) for part in (first & second, first & ~second, second & ~first))
    neither = len(first) - both - only_first - only_second
    only = [(each.name, part.nonzero()[:_ONLY_ONE, 0].tolist(), int(part.sum()))
            for each, part in ((run, first & ~second), (other, second & ~first))]  # fmt: skip
    return {
        "difference": paired_difference(both, only_first, only_second, neither).to_json(),
        "first": proportion(both + only_first, len(first)).to_json(),
        "second": proportion(both + only_second, len(first)).to_json(),
        "p": study.written_p(study.mcnemar(only_first, only_second)), "only": only,
    }  # fmt: skip


def _cka(know: Know, run: ExploredRun, other: ExploredRun) -> dict[str, Any] | None:
    layers = [[layer["name"] for layer in each.layers if layer["shown"]] for each in (run, other)]
    found = know("similarity", f"the similarity of layers of {run.name} and {other.name}", other=str(other.run.path.absolute()),
                 layers=layers, trust=other.trust)  # fmt: skip
    if found is None:
        return None
    return {"second": layers[1], "rows": list(zip(layers[0], found["cka"].tolist(), strict=True))}
