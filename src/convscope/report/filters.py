"""The filter page: every unit of every convolution, its weights, the images it answers to, its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from operator import mul
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from convscope.analyses import ablation_plan
from convscope.base.words import shape_text
from convscope.data import ImageSet
from convscope.draw import filter_picture, signed_picture
from convscope.errors import NetworkError, RequestError
from convscope.lenses import convolutions
from convscope.report.budget import MINUTES, Fit
from convscope.report.page import Photo, fill, static
from convscope.report.sprites import image_sheets, picture_sheet
from convscope.report.subject import ReportedRun
from convscope.report.visualization import Visualizations, visualization_fit, visualizations
from convscope.scans import LayerEffects, LayerPatches, LayerStatistics, batch_that_fits, patches_and_statistics

_EFFECT_COST = 2e12  # multiply-adds of whole passes, of a report of 3 minutes; a third of it by the shorter way
_FEWEST_EFFECT_IMAGES, _MOST_EFFECT_IMAGES = 100, 1000
Effects = Mapping[str, Sequence[Mapping[str, Any] | None]]
"""By layer, for each unit what its ablation does, or None where that was not measured.

`accuracy`, `low`, `high`: change of the test accuracy, after less before, as shares with a 95 % interval; `lost`, `gained`: how
many images become wrong and right; and, if known, `class` and `class_accuracy`: where accuracy falls most, and by how much;
`off`: how it was ablated, in words.
"""

_TOP, _PICTURES = 20, 12  # images ranked for a unit; those of them that are shown
_PIXELS = 9_000_000  # of all images together: about 10 MB
_MOST_UNITS = 4096  # on the page; of a network of more units
_MOST_OF_A_LAYER = 64  # the first
_FEWEST_IMAGES = 40
_PICTURE_PX = 128  # of a feature visualization
_PER_NUMBER = 400  # multiply-adds for a number of a map: its rank, its histogram
_PER_PAIR = 1000  # for a pair of units in a batch: its product, summed exactly
_NAMED = 12  # units in a sentence
_CLASSES = 24  # columns of a table


@dataclass(frozen=True)
class _Layer:
    name: str
    patches: LayerPatches
    statistics: LayerStatistics
    shown: int  # units on the page, the first of all

    @property
    def units(self) -> int:
        return len(self.patches.count)


def has_filters(subject: ReportedRun) -> bool:
    """Whether the network has convolutions whose units are known, and can be traced."""
    try:
        return bool(convolutions(subject.scope.graph))
    except NetworkError:
        return False


def effects_of(subject: ReportedRun) -> Effects | None:
    """The effect of ablating each unit in figures for the filter page; see `measured_effects`."""
    effects = measured_effects(subject)
    if effects is None:
        return None
    words = {name: ablation_plan(subject.scope, [name]).words for name in effects}
    return {
        name: [_effect(one, unit, words[name]) for unit in range(len(one.measured))] for name, one in effects.items()
    }


def measured_effects(subject: ReportedRun) -> dict[str, LayerEffects] | None:
    """The effect of ablating each unit, on as many test images as cost a few seconds; None where that is too few.

    They lie evenly over the set. For all images, or a larger network: `scope.filter_effects`.
    """
    graph, test = subject.scope.graph, subject.data.test
    layers = convolutions(graph)
    n_units = sum(subject.scope.n_units(layer) for layer in layers)
    afford = _EFFECT_COST * subject.minutes / MINUTES / (n_units * subject.anatomy.multiply_adds)
    n = int(min(_MOST_EFFECT_IMAGES, len(test), afford))
    if n < _FEWEST_EFFECT_IMAGES:
        return None
    images = test.subset(torch.linspace(0, len(test) - 1, n).long())
    return ablation_plan(subject.scope, layers).effects(images, dict.fromkeys(layers))


def _effect(effects: LayerEffects, unit: int, words: str) -> dict[str, Any]:
    change = effects.change(unit)
    changes = effects.class_accuracy_after[unit] - effects.class_accuracy_before
    by_class = changes.nan_to_num(0)  # of a class without images
    worst = int(by_class.argmin())
    return {
        "accuracy": change.value,
        "low": change.low,
        "high": change.high,
        "class": effects.classes[worst] if by_class[worst] < 0 else None,
        "class_accuracy": float(by_class[worst]),
        "lost": int(effects.lost[unit].sum()),
        "gained": int(effects.gained[unit].sum()),
        "images": effects.n_images,
        "off": words,
    }


def filters_fit(subject: ReportedRun) -> Fit:
    """How many test images are scanned for the strongest and the statistics: all, or some evenly over the set; for a network
    that `has_filters`.

    Beside the pass itself, each number of the maps is ranked and counted, and all pairs of a layer's units are correlated.
    """
    graph, test = subject.scope.graph, subject.data.test
    maps = {name: graph.operation(name).output_shape for name in convolutions(graph)}
    batch = batch_that_fits(graph, list(maps), test)
    each = subject.work + sum(
        prod(size) * (size[0] / 2 + _PER_NUMBER) + size[0] ** 2 * _PER_PAIR / batch for size in maps.values()
    )
    return Fit.of(subject.minutes, "Filters: images and statistics", len(test), partial(mul, each), _FEWEST_IMAGES)


def filters_page(subject: ReportedRun, effects: Effects | None = None) -> str:
    """The page's HTML; for a network that `has_filters`, and whose `filters_fit` is not 0.

    Strongest images and statistics are one pass over the test images; they are kept in the run folder.

    Args:
        subject: the run.
        effects: of ablating each unit, shown where given.
    """
    page = filters(subject, effects)
    return fill(
        "filters.html",
        run=subject.run,
        found=page,
        filters_fit=filters_fit(subject),
        effects_left_out=effects is None and len(subject.data.test) >= _FEWEST_EFFECT_IMAGES,
        visualization_fit=visualization_fit(subject, {layer["name"]: layer["shown"] for layer in page["layers"]}),
        environment=subject.run.environment,
        style=static("report.css") + static("filters.css"),
        script=static("tables.js") + static("filters.js"),
    )


def filters(subject: ReportedRun, effects: Effects | None = None) -> dict[str, Any]:
    """All that the page shows, in JSON: numbers to four digits, pictures as sheets."""
    test, (scanned, images) = subject.data.test, _scanned(subject)
    layers, n = _layers(subject, images), len(scanned)
    rows, n_pictured = _rows(layers)
    place = {row: n for n, row in enumerate(rows)}
    labels = images.targets_of("class")
    feature_pictures = visualizations(subject, {layer.name: layer.shown for layer in layers})
    return {
        "classes": list(test.classes["class"]),
        "input": list(subject.run.input_shape),
        "look": subject.run.command("look"),
        "tests": n,
        "top": _TOP,
        "pictures": _PICTURES,
        "columns": _CLASSES,
        "images": {
            "sheet": image_sheets(images, rows[:n_pictured], _PIXELS),
            "row": scanned[rows].tolist(),
            "name": [images.name(row) for row in rows] if images.names else None,
            "class": labels[torch.tensor(rows, dtype=torch.int64)].tolist(),
        },
        "layers": [
            _of_layer(subject, layer, place, feature_pictures.get(layer.name), (effects or {}).get(layer.name))
            for layer in layers
        ],
    }


def _scanned(subject: ReportedRun) -> tuple[Tensor, ImageSet]:
    """The test images of the page: their numbers, and themselves."""
    test, n = subject.data.test, filters_fit(subject).n
    rows = torch.linspace(0, len(test) - 1, n).long()
    return rows, test.subset(rows) if n < len(test) else test


def shown_units(subject: ReportedRun) -> dict[str, int]:
    """How many units of each convolution the page shows: all, or the first where they are many."""
    return {layer.name: layer.shown for layer in _layers(subject, _scanned(subject)[1])}


def _layers(subject: ReportedRun, images: ImageSet) -> list[_Layer]:
    # By the highest number of the map, not by its sum: then the images share what the patch shows. Of a deep layer the sum
    # before the ReLU is largest for flat, dark images, which the unit is merely not against.
    patches, statistics = patches_and_statistics(subject.scope, images, ["conv"], top=_TOP, score="max")
    sizes = [len(layer_patches.count) for layer_patches in patches.values()]
    most = max(sizes) if sum(sizes) <= _MOST_UNITS else _MOST_OF_A_LAYER
    while sum(min(size, most) for size in sizes) > _MOST_UNITS:
        most = max(1, most * 3 // 4) if most > 1 else 0
    return [
        _Layer(name, layer_patches, statistics[name], min(size, most))
        for (name, layer_patches), size in zip(patches.items(), sizes, strict=True)
    ]


def _rows(layers: list[_Layer]) -> tuple[list[int], int]:
    """The test images on the page, first those that are shown as pictures; and how many these are."""
    index = torch.cat([layer.patches.index[: layer.shown] for layer in layers])  # -1 where a unit has fewer
    pictured = set(index[:, :_PICTURES].flatten().tolist()) - {-1}
    ranked = set(index.flatten().tolist()) - {-1}
    return [*sorted(pictured), *sorted(ranked - pictured)], len(pictured)


def _of_layer(
    subject: ReportedRun,
    layer: _Layer,
    place: dict[int, int],
    visualization: Visualizations | None,
    effects: Sequence[Mapping[str, Any] | None] | None,
) -> dict[str, Any]:
    operation, field = subject.scope.graph.operation(layer.name), subject.scope.receptive_field(layer.name)
    return {
        "name": layer.name,
        "units": layer.units,
        "shown": layer.shown,
        "relu": layer.statistics.rectified,
        "map": list(operation.output_shape[1:]),
        "field": list(field.size),
        "stride": list(field.stride) if field.stride else None,
        "weights": _weights(subject, layer),
        "visualization": visualization and _visualization(visualization),
        "words": _words(layer),
        "summary": _summary(layer),
        "twins": _twins(layer),
        "effects": list(effects[: layer.shown]) if effects else None,
        **_patches(layer, place),
        **_statistics(layer),
    }


def _patches(layer: _Layer, place: dict[int, int]) -> dict[str, Any]:
    """For each unit its images, strongest first: their places in the list of images, and what they give."""
    patches = layer.patches
    counts, side = patches.count[: layer.shown].tolist(), patches.box[..., 2:] - patches.box[..., :2]

    def ranked(values: Tensor) -> list[Tensor]:
        return [of_unit[:n] for of_unit, n in zip(values, counts, strict=False)]

    return {
        "image": [[place[row] for row in rows.tolist()] for rows in ranked(patches.index)],
        "response": [_short(responses) for responses in ranked(patches.response)],
        "row": [rows.tolist() for rows in ranked(patches.position[..., 0])],
        "column": [columns.tolist() for columns in ranked(patches.position[..., 1])],
        "box": [boxes[:_PICTURES].flatten().tolist() for boxes in ranked(patches.box)],
        "side": int(side.max()) if side.numel() else 1,
        "response_mean": _short(patches.mean[: layer.shown]),
        "response_max": _short(patches.largest[: layer.shown]),
    }


def _statistics(layer: _Layer) -> dict[str, Any]:
    statistics, units = layer.statistics, slice(layer.shown)
    names = ("mean", "deviation", "low", "zeros", "peak", "selectivity")
    columns = {name: values for name in names if (values := getattr(statistics, name)) is not None}
    best = statistics.best_class
    return {name: _short(values[units]) for name, values in columns.items()} | {
        "dead": statistics.dead[units].nonzero()[:, 0].tolist(),
        "best": None if best is None else best[units].tolist(),
    }


def _summary(layer: _Layer) -> dict[str, Any]:
    """Figures of the layer as a whole."""
    statistics = layer.statistics
    whole, selectivity = statistics.whole, statistics.selectivity
    return {
        "dead": int(statistics.dead.sum()),
        "alike": len(statistics.duplicates()),
        "zeros": _four(whole["zeros"]),
        "mean": _four(whole["mean"]),
        "deviation": _four(whole["deviation"]),
        "selectivity": None if selectivity is None else _four(float(selectivity.mean())),
        "response_mean": _four(float(layer.patches.mean.mean())),
        "response_max": _four(float(layer.patches.largest.max())),
    }


def _twins(layer: _Layer) -> dict[int, list[float]]:
    """For each unit that has near-duplicates the nearest one, and their correlation."""
    twins: dict[int, list[float]] = {}
    for first, second, correlation in layer.statistics.duplicates():  # the strongest pairs come first
        for unit, other in ((first, second), (second, first)):
            if unit < layer.shown:
                twins.setdefault(unit, [other, _four(correlation)])
    return twins


def _words(layer: _Layer) -> list[str]:
    """What is to be said of the layer: units that never fire, that are never silent, that do the same."""
    statistics, words = layer.statistics, []
    dead = statistics.dead.nonzero()[:, 0].tolist()
    images = f"the {statistics.n_images:,} test images"
    if dead:
        few = f"Unit {dead[0]} never fires" if len(dead) == 1 else f"{len(dead)} of {layer.units} units never fire"
        named = "" if len(dead) == 1 else f": {_listed([str(unit) for unit in dead])}"
        words.append(f"{few} on {images}{named}. On these images a dead unit adds nothing.")
    pairs = statistics.duplicates()
    if pairs:
        named = _listed([f"{first} and {second} ({value:.2f})" for first, second, value in pairs], "; ")
        some = "One pair of units does" if len(pairs) == 1 else f"{len(pairs):,} pairs of units do"
        words.append(f"{some} nearly the same, by the correlation of their maps: {named}.")
    always = (statistics.saturated & ~statistics.dead).nonzero()[:, 0].tolist()
    if always:
        words.append(
            f"The ReLU never cuts {'unit' if len(always) == 1 else 'units'} {_listed([str(u) for u in always])}."
        )
    fires = f"Every unit fires somewhere on {images}, and no" if statistics.rectified else "No"
    return words or [f"{fires} two units correlate by 0.95 or more."]


def _listed(names: list[str], between: str = ", ") -> str:
    """Names in a row; of many the first."""
    if len(names) > _NAMED:
        return between.join(names[:_NAMED]) + f"{between}and {len(names) - _NAMED:,} more"
    return names[0] if len(names) == 1 else between.join(names[:-1]) + f"{between.rstrip(', ')} and {names[-1]}"


def _weights(subject: ReportedRun, layer: _Layer) -> dict[str, Any] | None:
    """A picture of each unit's weights: on an image in its colours, deeper the mean over the units they look at."""
    try:
        weights = subject.scope.filters(layer.name)
    except RequestError:  # the convolution is no module of its own
        return None
    if weights.ndim != 4 or len(weights) != layer.units:  # a transposed one keeps them the other way round
        return None
    shape, inputs = shape_text(weights.shape[2:]), weights.shape[1]
    sees_image = "input" in subject.scope.graph.operation(layer.name).inputs
    kind = "colour" if sees_image and inputs == 3 else "signed" if inputs == 1 else "mean"
    if kind == "mean" and weights.shape[2:].numel() == 1:  # a single number says nothing
        return {"kind": "none", "shape": shape, "inputs": inputs, "sheet": None}
    pictures = [filter_picture(w) if kind == "colour" else signed_picture(w.mean(0)) for w in weights[: layer.shown]]
    return {"kind": kind, "shape": shape, "inputs": inputs, "sheet": picture_sheet(pictures)}


def _visualization(visualization: Visualizations) -> dict[str, Any]:
    """The picture that maximally activates each unit, as a sheet; of photographs they are as small as the page shows them."""
    pictures, side = visualization.pictures, max(visualization.pictures.shape[1:3])
    if side > _PICTURE_PX:
        size = [max(1, edge * _PICTURE_PX // side) for edge in pictures.shape[1:3]]
        small = interpolate(pictures.movedim(3, 1).float(), size, mode="bilinear", antialias=True)
        pictures = small.movedim(1, 3).round().clamp(0, 255).byte()
    sheet = picture_sheet(list(pictures.numpy()), columns=16)
    if side > _PICTURE_PX:
        sheet["src"] = [Photo(whole) for whole in sheet["src"]]
    return {"sheet": sheet, "units": len(pictures), "activation": _short(visualization.activation)}


def _short(values: Tensor) -> list[float | None]:
    return [_four(value) for value in values.tolist()]


def _four(value: float) -> float:
    """To four digits, which is what the page shows."""
    return float(f"{value:.4g}")
