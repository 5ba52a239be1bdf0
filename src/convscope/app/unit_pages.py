"""The pages of units: all of a layer, and one by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from convscope.app.explored import ExploredRun
from convscope.app.state import Know, State, off_in_words, read_number
from convscope.draw import enlarge_to, filter_picture, picture, signed_picture
from convscope.errors import RequestError

_MOST_UNITS = 512  # on the sheet of a layer
_PATCHES = 20


def units(state: State, know: Know) -> dict[str, Any]:
    """All units of a layer with their strongest patches, and the layers to choose from."""
    run = state.run
    layers = [layer for layer in run.layers if layer["kind"] == "conv"]
    if not layers:
        return {"unfinished": "This network has no convolutions."}
    chosen = state.query.get("layer", layers[0]["name"])
    if chosen not in {layer["name"] for layer in layers}:
        raise RequestError(f"layer {chosen}: expected a convolution, such as {layers[0]['name']}")
    strongest = know("strongest", "the strongest images of every unit")
    layer_effects = know("effects", "the effect of every unit") if strongest else None
    sheet = [] if strongest is None else _sheet(strongest, chosen, layer_effects)
    return {"layers": layers, "chosen": chosen, "sheet": sheet, "found": strongest is not None,
            "n_units": run.scope.n_units(chosen)}  # fmt: skip


def _sheet(strongest: Any, layer: str, layer_effects: Any) -> list[dict[str, Any]]:
    patches, best = strongest[0][layer], strongest[1][layer].best_class
    return [
        {
            "unit": unit,
            "patches": _patches(patches, unit, 4),
            "best": None if best is None else int(best[unit]),
            "effect": layer_effects[layer][unit] if layer_effects and unit < len(layer_effects[layer]) else None,
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
    run, layer, number = state.run, state.query["layer"], read_number(state.query["unit"], "unit")
    run.check_unit(layer, number)
    operation = run.scope.graph.operation(layer)
    classes = run.test.classes["class"]
    off = set(state.off.get(layer, ()))
    parts = {"layer": layer, "unit": number, "n_units": run.scope.n_units(layer), "kind": operation.kind,
             "shape": operation.output_shape, "field": run.scope.receptive_field(layer), "classes": classes,
             "is_off": number in off, "switched": off_in_words({**state.off, layer: sorted(off ^ {number})})}  # fmt: skip
    if operation.kind != "conv":
        return parts
    strongest = know("strongest", "the strongest images of every unit")  # first, for it is worked out first
    parts |= {
        "statistics": None,
        "effect": _effect(know, layer, number),
        "picture": _visualization(know, layer, number),
        "weights": _weights(run, layer, number),
    }
    if strongest:
        patches, statistics = strongest[0][layer], strongest[1][layer]
        parts |= {
            "patches": _patches(patches, number),
            "responses": {"mean": float(patches.mean[number]), "most": float(patches.largest[number])},
            "counts": _class_counts(patches, number, classes),
            "statistics": _statistics(statistics, number, classes),
            "twins": _twins(statistics, number),
        }
    return parts


def _class_counts(patches: Any, unit: int, classes: Sequence[str]) -> list[tuple[str, int]]:
    """How many of the strongest images each class has, most first."""
    if patches.class_counts is None:
        return []
    counts = zip(classes, patches.class_counts[unit].tolist(), strict=False)
    return sorted((one for one in counts if one[1]), key=lambda one: one[1], reverse=True)[:10]


def _statistics(statistics: Any, unit: int, classes: Sequence[str]) -> dict[str, Any]:
    means = [] if statistics.class_means is None else statistics.class_means[unit].nan_to_num(0).tolist()
    top = max([*means, 1e-12])
    shares = sorted(((value / top, name, value) for name, value in zip(classes, means, strict=False)), reverse=True)
    return {
        "zeros": float(statistics.zeros[unit]), "dead": bool(statistics.dead[unit]), "by_class": shares[:12],
        "selectivity": None if statistics.selectivity is None else float(statistics.selectivity[unit]),
    }  # fmt: skip


def _twins(statistics: Any, unit: int) -> list[tuple[int, float]]:
    """Units of the layer whose outputs correlate with this one's by 0.95 or more."""
    return [(second if first == unit else first, value) for first, second, value in statistics.duplicates()
            if unit in (first, second)][:8]  # fmt: skip


def _effect(know: Know, layer: str, unit: int) -> dict[str, Any] | None:
    effects = know("effect", f"the effect of unit {unit} of {layer}", layer=layer, unit=unit)
    if effects is None:
        return None
    before, after = effects.class_accuracy_before, effects.class_accuracy_after[unit]
    changes = (after - before).nan_to_num(0)
    order = changes.abs().argsort(descending=True, stable=True).tolist()
    return {
        "change": effects.change(unit), "n_images": effects.n_images,
        "lost": int(effects.lost[unit].sum()), "gained": int(effects.gained[unit].sum()),
        "by_class": [(effects.classes[k], effects.change(unit, k), int(effects.lost[unit, k]),
                      int(effects.gained[unit, k])) for k in order if effects.lost[unit, k] or effects.gained[unit, k]][:12],
    }  # fmt: skip


def _visualization(know: Know, layer: str, unit: int) -> dict[str, Any] | None:
    maximized = know("maximized", f"feature visualization of unit {unit} of {layer}", layer=layer, unit=unit)
    if maximized is None:
        return None
    return {"picture": enlarge_to(picture(maximized["picture"]), 192), "activation": float(maximized["activation"])}


def _weights(run: ExploredRun, layer: str, unit: int) -> dict[str, Any] | None:
    """The unit's kernels, largest first, with the units that they read; and the units of the next convolution that read it."""
    try:
        weights = run.scope.filters(layer)
    except RequestError:  # no module of its own
        return None
    if weights.ndim != 4 or len(weights) != run.scope.n_units(layer):
        return None
    kernels, (source, target) = weights[unit], _neighbours(run, layer)
    sees_pixels = "input" in run.scope.graph.operation(layer).inputs
    in_colour = sees_pixels and len(kernels) == 3
    if in_colour or (sees_pixels and len(kernels) == 1):
        pixels = filter_picture(kernels) if in_colour else signed_picture(kernels[0])
        reads = [{"unit": None, "picture": enlarge_to(pixels, 96), "size": float(kernels.norm())}]
    else:
        reads = _largest(kernels, source is not None and run.scope.n_units(source) == len(kernels))
    read_by = []
    if target is not None:
        next_weights = run.scope.filters(target)
        if next_weights.ndim == 4 and next_weights.shape[1] == len(weights):
            read_by = _largest(next_weights[:, unit], True)
    return {"reads": reads, "in_colour": in_colour, "source": source, "read_by": read_by, "target": target}


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
        while len(neighbours := step(name)) == 1 and neighbours[0] in graph.by_name:
            name = neighbours[0]
            if graph.by_name[name].kind == "conv":
                return name
        return None

    before = along(lambda name: list(graph.by_name[name].inputs))
    return before, along(lambda name: readers.get(name, []))
