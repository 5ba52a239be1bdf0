"""The pages of the explorer: for each what it shows of a run, as plain values for its template."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import torch

from convscope import __version__, study
from convscope.analyses import find, names
from convscope.app.explored import ExploredRun
from convscope.app.lab import LIVE_LENSES
from convscope.draw import enlarge_to, filter_picture, picture, signed_picture
from convscope.errors import ConvscopeError, RequestError
from convscope.report import fill
from convscope.runs import CHECKPOINT, open_run
from convscope.scans import Ablation, paired_difference, proportion

Know = Callable[..., Any]
"""Gives the answer to a question of `convscope.app.questions`, or None where it has to be worked out first."""

TITLES = {
    "runs": "Runs", "overview": "Overview", "lab": "Image lab", "units": "Units", "mistakes": "Mistakes",
    "compare": "Compare", "api": "API",
}  # fmt: skip
PAGES = (*TITLES, "images")
_MOST_IMAGES = 120
_MOST_MISTAKES = 1000
_MOST_SETTINGS = 8
_ONLY_ONE = 24
_MOST_UNITS = 512  # on the sheet of a layer
_PATCHES = 20


@dataclass(frozen=True)
class State:
    """What an address asks for.

    Attributes:
        runs: all that are explored.
        number: of the run that is looked at.
        off: units that are switched off, by layer.
        query: all that the address says.
    """

    runs: Sequence[ExploredRun]
    number: int = 0
    off: dict[str, list[int]] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Sequence[ExploredRun], query: Mapping[str, str]) -> State:
        """The state of an address.

        Raises:
            RequestError: there is no such run, or `off` is not as "conv1:3,5;conv2:0".
        """
        number = _number(query.get("run", "0"), "run")
        if number >= len(runs):
            raise RequestError(f"run {number}: there are runs 0 to {len(runs) - 1}")
        return cls(runs, number, units_off(query.get("off", "")), query)

    @property
    def run(self) -> ExploredRun:
        """The run that is looked at."""
        return self.runs[self.number]

    def link(self, page: str, **query: Any) -> str:
        """The address of a page for the same run, with the same units switched off."""
        kept = {"run": self.number or None, "off": off_in_words(self.off) or None} | query
        known = {key: value for key, value in kept.items() if value is not None}
        return f"/{page}" + (f"?{urlencode(known, quote_via=quote, safe=':,;')}" if known else "")


def off_in_words(off: Mapping[str, Sequence[int]]) -> str:
    """Units as an address names them: "conv1:3,5;conv2:0"."""
    return ";".join(f"{layer}:{','.join(map(str, sorted(units)))}" for layer, units in off.items() if units)


def units_off(text: str) -> dict[str, list[int]]:
    """What `off_in_words` wrote.

    Raises:
        RequestError: it is something else.
    """
    found: dict[str, list[int]] = {}
    for part in filter(None, text.split(";")):
        layer, colon, units = part.rpartition(":")
        if not colon or not layer or not all(map(is_number, units.split(","))):
            raise RequestError(f"off={text}: expected layers with their units, such as conv1:3,5;conv2:0")
        found.setdefault(layer, []).extend(int(unit) for unit in units.split(","))
    return found


def is_number(text: str) -> bool:
    """Whether it is a whole number from 0 on, of a size that the number of an image or unit may have."""
    return text.isdecimal() and len(text) <= 9


def _number(text: str, name: str) -> int:
    if not is_number(text):
        raise RequestError(f"{name}={text}: expected a number from 0 on")
    return int(text)


def page_of(name: str) -> Callable[[State, Know], dict[str, Any]]:
    """What makes the parts of a page."""
    return {"overview": overview, "lab": lab, "units": units, "unit": unit, "mistakes": mistakes,
            "compare": compare, "runs": run_table, "images": images, "api": api}[name]  # fmt: skip


def render(name: str, state: State, parts: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]] = ()) -> str:
    """A page's HTML; what is missing yet is said by the jobs."""
    return fill(
        f"{name}.html", "convscope.app", state=state, run=state.run, page=name, titles=TITLES, jobs=jobs,
        off=off_in_words(state.off), off_in_words=off_in_words, version=__version__, client=_client(state), **parts,
    )  # fmt: skip


def problem(words: str) -> str:
    """A page that says what is wrong, and nothing else."""
    return fill("problem.html", "convscope.app", words=words, titles=TITLES)


def _client(state: State) -> dict[str, Any]:
    """What every script needs."""
    return {"run": state.number, "off": state.off}


def _check_there(run: ExploredRun) -> None:
    if not run.run.path.is_dir():
        raise RequestError(
            f"{run.run.path} was removed or renamed; start the explorer again with the folder that is there"
        )


def _needs_network(state: State) -> dict[str, Any] | None:
    """What a page says of a run into which one cannot look; None for others."""
    run = state.run
    _check_there(run)
    if not run.run.is_trained:
        return {
            "unfinished": "This run is being trained. Its curves are on the overview; the rest follows when it is done."
        }
    if not run.is_evaluated:
        return {"unfinished": f"This run is not evaluated yet: convscope evaluate {run.run.path}"}
    if not run.is_traced:
        return {"unfinished": "The network of this run cannot be traced, so its layers cannot be shown."}
    return None


def overview(state: State, know: Know) -> dict[str, Any]:
    """Findings, figures with intervals, learning curves, the confusion matrix; of a training its curves as they grow."""
    run = state.run
    if not run.is_evaluated:
        _check_there(run)
        return {"live": True, "charts": {}, "matrices": []}
    subject = run.subject
    return {
        "live": False,
        "metrics": subject.metrics,
        **run.figures,
        "without": _without(state, know),
        "test": run.test,
        "anatomy": subject.anatomy,
    }


def _without(state: State, know: Know) -> dict[str, Any] | None:
    """What changes when units are switched off: accuracy, the images that are lost and gained, the confusion matrix."""
    if not state.off:
        return None
    found: Ablation | None = know("without", f"all test images without {off_in_words(state.off)}", off=state.off)
    if found is None:
        return None
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
    if missing := _needs_network(state):
        return missing
    run = state.run
    others = [{"number": n, "name": each.name} for n, each in enumerate(state.runs) if each.is_evaluated]
    query = state.query
    start = {
        "image": query.get("image", "0"), "edits": query.get("edits", "[]"), "lens": query.get("lens", "grad_cam"),
        "layers": query.get("layers", ""), "show": query.get("show", "change"),
    }  # fmt: skip
    return {
        "layers": run.layers,
        "lenses": LIVE_LENSES,
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


def units(state: State, know: Know) -> dict[str, Any]:
    """All units of a layer with their strongest patches, and the layers to choose from."""
    if missing := _needs_network(state):
        return missing
    run = state.run
    layers = [layer for layer in run.layers if layer["kind"] == "conv"]
    if not layers:
        return {"unfinished": "This network has no convolutions."}
    chosen = state.query.get("layer", layers[0]["name"])
    if chosen not in {layer["name"] for layer in layers}:
        raise RequestError(f"layer {chosen}: expected a convolution, such as {layers[0]['name']}")
    found = know("strongest", "the strongest images of every unit")
    measured = know("effects", "the effect of every unit") if found else None
    sheet = [] if found is None else _sheet(found, chosen, measured)
    return {"layers": layers, "chosen": chosen, "sheet": sheet, "found": found is not None, "test": run.test}


def _sheet(found: Any, layer: str, measured: Any) -> list[dict[str, Any]]:
    patches, statistics = found[0][layer], found[1][layer]
    best = statistics.best_class
    return [
        {
            "unit": unit,
            "patches": _patches(patches, unit, 4),
            "dead": bool(statistics.dead[unit]),
            "best": None if best is None else int(best[unit]),
            "effect": measured[layer][unit] if measured and unit < len(measured[layer]) else None,
        }
        for unit in range(min(_MOST_UNITS, len(patches.count)))
    ]


def _patches(patches: Any, unit: int, most: int = _PATCHES) -> list[dict[str, Any]]:
    n = min(most, int(patches.count[unit]))
    columns = (patches.index[unit, :n], patches.response[unit, :n], patches.box[unit, :n])
    return [
        {"row": row, "response": response, "box": ",".join(map(str, box))}
        for row, response, box in zip(*(column.tolist() for column in columns), strict=True)
    ]


def unit(state: State, know: Know) -> dict[str, Any]:
    """One unit: strongest patches, classes, feature visualization, effect, near-duplicates, where it reads and is read."""
    if missing := _needs_network(state):
        return missing
    run, layer, number = state.run, state.query["layer"], _number(state.query["unit"], "unit")
    run.check_unit(layer, number)
    operation = run.scope.graph.operation(layer)
    classes = run.test.classes["class"]
    parts = {"layer": layer, "unit": number, "n_units": run.scope.n_units(layer), "kind": operation.kind,
             "shape": operation.output_shape, "field": run.scope.receptive_field(layer), "test": run.test,
             "is_off": number in state.off.get(layer, ()), "switched": _switched(state, layer, number),
             "classes": classes}  # fmt: skip
    if operation.kind != "conv":
        return parts | {"patches": None, "picture": None, "effect": None, "weights": None, "statistics": None}
    strongest = know("strongest", "the strongest images of every unit")
    found = strongest and (strongest[0][layer], strongest[1][layer])
    return parts | {
        "patches": found and _patches(found[0], number),
        "responses": found and {"mean": float(found[0].mean[number]), "most": float(found[0].largest[number])},
        "counts": _class_counts(found[0], number, classes) if found else [],
        "statistics": _statistics(found[1], number, classes) if found else None,
        "twins": _twins(found[1], number) if found else [],
        "effect": _effect(state, know, layer, number),
        "picture": _visualization(know, layer, number),
        "weights": _weights(run, layer, number),
    }


def _switched(state: State, layer: str, unit: int) -> dict[str, list[int]]:
    """The units that are off when this one is switched."""
    now = set(state.off.get(layer, ()))
    return {**state.off, layer: sorted(now ^ {unit})}


def _class_counts(patches: Any, unit: int, classes: Sequence[str]) -> list[tuple[str, int]]:
    """How many of the strongest images each class has, most first."""
    if patches.class_counts is None:
        return []
    counts = patches.class_counts[unit]
    order = counts.argsort(descending=True, stable=True).tolist()
    return [(classes[k], int(counts[k])) for k in order if counts[k]][:10]


def _statistics(statistics: Any, unit: int, classes: Sequence[str]) -> dict[str, Any]:
    means = [] if statistics.class_means is None else statistics.class_means[unit].nan_to_num(0).tolist()
    top = max([*means, 1e-12])
    shares = sorted(((value / top, name, value) for name, value in zip(classes, means, strict=False)), reverse=True)
    return {
        "zeros": float(statistics.zeros[unit]), "dead": bool(statistics.dead[unit]), "peak": float(statistics.peak[unit]),
        "by_class": shares[:12], "selectivity": None if statistics.selectivity is None else float(statistics.selectivity[unit]),
        "n_images": statistics.n_images,
    }  # fmt: skip


def _twins(statistics: Any, unit: int) -> list[tuple[int, float]]:
    """Units of the layer whose outputs correlate with this one's by 0.95 or more."""
    return [(second if first == unit else first, value) for first, second, value in statistics.duplicates()
            if unit in (first, second)][:8]  # fmt: skip


def _effect(state: State, know: Know, layer: str, unit: int) -> dict[str, Any] | None:
    found = know("effect", f"the effect of unit {unit} of {layer}", layer=layer, unit=unit)
    if found is None:
        return None
    before, after = found.class_accuracy_before, found.class_accuracy_after[unit]
    changes = (after - before).nan_to_num(0)
    order = changes.abs().argsort(descending=True, stable=True).tolist()
    return {
        "change": found.change(unit).to_json(), "before": found.accuracy_before, "n_images": found.n_images,
        "lost": int(found.lost[unit].sum()), "gained": int(found.gained[unit].sum()),
        "by_class": [(found.classes[k], float(changes[k]), int(found.lost[unit, k]), int(found.gained[unit, k]))
                     for k in order if found.lost[unit, k] or found.gained[unit, k]][:12],
    }  # fmt: skip


def _visualization(know: Know, layer: str, unit: int) -> dict[str, Any] | None:
    found = know("maximized", f"feature visualization of unit {unit} of {layer}", layer=layer, unit=unit)
    if found is None:
        return None
    return {"picture": enlarge_to(picture(found["picture"]), 192), "activation": float(found["activation"])}


def _weights(run: ExploredRun, layer: str, unit: int) -> dict[str, Any] | None:
    """The unit's kernels, largest first, with the units that they read; and the units of the next convolution that read it."""
    try:
        weights = run.scope.filters(layer)
    except RequestError:  # no module of its own
        return None
    if weights.ndim != 4 or len(weights) != run.scope.n_units(layer):
        return None
    own = weights[unit]
    if "input" in run.scope.graph.operation(layer).inputs and len(own) in (1, 3):
        shown = filter_picture(own) if len(own) == 3 else signed_picture(own[0])
        reads = [{"unit": None, "picture": enlarge_to(shown, 96), "size": float(own.norm())}]
    else:
        reads = _largest(own, len(own) == weights.shape[1] and _reads_all(run, layer, len(own)))
    source, target = _neighbours(run, layer)
    read_by = []
    if target is not None:
        next_weights = run.scope.filters(target)
        if next_weights.ndim == 4 and next_weights.shape[1] == len(weights):
            read_by = _largest(next_weights[:, unit], True)
    return {"reads": reads, "source": source, "read_by": read_by, "target": target}


def _reads_all(run: ExploredRun, layer: str, inputs: int) -> bool:
    source = _neighbours(run, layer)[0]
    return source is not None and run.scope.n_units(source) == inputs


def _largest(kernels: Any, named: bool, most: int = 8) -> list[dict[str, Any]]:
    sizes = kernels.flatten(1).norm(dim=1)
    top = float(kernels.abs().max())
    order = sizes.argsort(descending=True, stable=True).tolist()[:most]
    return [{"unit": k if named else None, "picture": enlarge_to(signed_picture(kernels[k], top), 48), "size": float(sizes[k])}
            for k in order]  # fmt: skip


def _neighbours(run: ExploredRun, layer: str) -> tuple[str | None, str | None]:
    """The convolutions that come right before and after one, where the way between them is a chain."""
    graph = run.scope.graph
    readers: dict[str, list[str]] = {}
    for operation in graph.operations:
        for name in operation.inputs:
            readers.setdefault(name, []).append(operation.name)

    def along(step: Callable[[str], list[str]]) -> str | None:
        name = layer
        while len(found := step(name)) == 1 and found[0] in graph.by_name:
            name = found[0]
            if graph.by_name[name].kind == "conv":
                return name
        return None

    before = along(lambda name: list(graph.by_name[name].inputs))
    return before, along(lambda name: readers.get(name, []))


def mistakes(state: State, know: Know) -> dict[str, Any]:
    """The queue of misclassified images, the largest loss first; with units switched off those of the rest of the network."""
    if missing := _needs_network(state):
        return missing
    run = state.run
    answers = run.subject.answers[0]
    logits = answers.head.logits(run.run.predictions["logits"]).float()
    predicted, losses = answers.predicted, torch.nn.functional.cross_entropy(logits, answers.true, reduction="none")
    right_before = predicted == answers.true
    if state.off:
        found: Ablation | None = know("without", f"all test images without {off_in_words(state.off)}", off=state.off)
        if found is not None:
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
    return {"queue": queue, "n_wrong": len(order), "test": run.test, "lenses": LIVE_LENSES,
            "accuracy": proportion(n - len(order), n).to_json()}  # fmt: skip


def images(state: State, know: Know) -> dict[str, Any]:
    """Test images of a true class, predicted as a class: a cell of the confusion matrix."""
    if missing := _needs_network(state):
        return missing
    run, query = state.run, state.query
    answers = run.subject.answers[0]
    chosen = torch.ones(len(answers.true), dtype=torch.bool)
    said = []
    for key, column in (("true", answers.true), ("predicted", answers.predicted)):
        if key in query:
            k = _number(query[key], key)
            if k >= len(answers.head.classes):
                raise RequestError(f"{key}={k}: there are classes 0 to {len(answers.head.classes) - 1}")
            chosen &= column == k
            said.append(f"{'true class' if key == 'true' else 'predicted as'} {answers.head.classes[k]}")
    rows = chosen.nonzero()[:, 0]
    ranked = rows[answers.confidence[rows].argsort(descending=True, stable=True)].tolist()
    cards = [{"row": row, "name": run.test.name(row), "true": answers.head.classes[answers.true[row]],
              "predicted": answers.head.classes[answers.predicted[row]], "confidence": float(answers.confidence[row])}
             for row in ranked[:_MOST_IMAGES]]  # fmt: skip
    return {"cards": cards, "n": len(ranked), "words": ", ".join(said) or "all test images"}


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
    if missing := _needs_network(state):
        return missing
    number = _number(state.query.get("with", str(evaluated[0])), "with")
    if number not in evaluated:
        raise RequestError(f"with={number}: expected another run that is evaluated, such as {evaluated[0]}")
    run, other = state.run, state.runs[number]
    image = _number(state.query.get("image", "0"), "image")
    same = run.run.environment["data"]["digest"] == other.run.environment["data"]["digest"]
    return {
        "other": other, "other_number": number, "pair": _pair(run, other) if same else None, "lenses": LIVE_LENSES,
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
                 layers=layers)  # fmt: skip
    if found is None:
        return None
    return {"second": layers[1], "rows": list(zip(layers[0], found["cka"].tolist(), strict=True))}


def api(state: State, know: Know) -> dict[str, Any]:
    """The routes that a script may ask, from the catalogue."""
    return {"analyses": [find(name) for name in names()]}
