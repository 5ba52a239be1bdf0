"""Scans over a run's test images as pictures and tables: strongest patches, statistics, how far a lens can be trusted."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor

from convscope.data import ImageSet
from convscope.draw import (
    Picture,
    changes,
    chart_picture,
    coloured,
    curves,
    enlarge,
    framed,
    histograms,
    panel,
    picture,
    scale_of,
    sheet,
)
from convscope.errors import RequestError
from convscope.graph import Operation
from convscope.looks.records import Asked, Look
from convscope.scans import EDGES, Estimate, LayerPatches
from convscope.scope import Scope

_MOST_UNITS = 64
_PATCHES = 9  # of a unit on the sheet of a layer


def look_top_patches(scope: Scope, asked: Asked) -> Look:
    """Of one unit its strongest images, with the patch framed, and the patches; of a layer a sheet of all units' patches."""
    images, layer = _test(asked), str(asked.layer)
    found = next(iter(scope.top_patches(images, [layer], top=asked.top or 20).values()))
    table = found.table()
    if asked.unit is None:
        shown = [patch_square(found, images, unit) for unit in range(min(_MOST_UNITS, len(found.count)))]
        size = max(1, 116 // shown[0].shape[0])
        whole = sheet([enlarge(one, size) for one in shown], columns=8, gap=5)
        silent = int((~found.fired).sum())
        heading = f"strongest patches of {found.layer}: {len(shown)} of {len(found.count)} units, nine each"
        note = f"{silent} units never fire and have none" if silent else None
        return Look(panel([("", whole)], heading, side=whole.shape[0], note=note), _tensors(found), heading, table)
    patches = found.patches(images, asked.unit)  # says at once if there is no such unit
    heading = f"unit {asked.unit} of {found.layer}: {unit_in_words(found, asked.unit, scope.classes)}"
    table = table[table["unit"] == asked.unit]
    if not patches:
        plain = [("it never fires on these images", picture(torch.ones(3, 8, 32)))]
        return Look(panel(plain, heading), _tensors(found), heading, table)
    rows = found.index[asked.unit, : len(patches)].tolist()
    boxes = found.box[asked.unit].tolist()
    parts = []
    for row, box, patch, response in zip(rows, boxes, patches, found.response[asked.unit].tolist(), strict=False):
        image = picture(images[row][0])
        scale = max(1, 96 // max(image.shape[:2]))
        large = framed(enlarge(image, scale), tuple(scale * edge for edge in box))
        parts.append((f"{row}: {response:.3g}", _beside(large, picture(patch))))
    return Look(panel(parts, heading, side=96, columns=5), _tensors(found), heading, table)


def patch_square(found: LayerPatches, images: ImageSet, unit: int, n: int = _PATCHES) -> Picture:
    """The strongest patches of a unit, three in a row, each on a square of the field's size; blank where there is none."""
    side = max(1, int((found.box[..., 2:] - found.box[..., :2]).max()))
    cells = [_centred(picture(patch), side) for patch in found.patches(images, unit)[:n]]
    cells += [_centred(None, side)] * (n - len(cells))
    return sheet(cells, columns=math.isqrt(n), gap=1)


def unit_in_words(found: LayerPatches, unit: int, classes: tuple[str, ...]) -> str:
    """Its mean response, the largest, and the classes that are most among its strongest images."""
    words = [f"response {float(found.mean[unit]):.3g} on average, {float(found.largest[unit]):.3g} at most"]
    if found.class_counts is not None and int(found.count[unit]):
        counts = found.class_counts[unit]
        first = [k for k in counts.argsort(descending=True, stable=True).tolist()[:2] if counts[k]]
        words.append(" and ".join(f"{int(counts[k])} of {int(found.count[unit])} are {classes[k]}" for k in first))
    return "; ".join(words)


def look_statistics(scope: Scope, asked: Asked) -> Look:
    """How often each size of activation occurs, layer by layer, and a row for each unit."""
    found = scope.statistics(_test(asked), [asked.layer or "conv"])
    parts = {name: one.histogram.sum(0) for name, one in found.items()}
    table = pd.concat([one.table() for one in found.values()], ignore_index=True)
    dead, on = int(table["dead"].sum()), int(table["saturated"].sum())
    pairs = sum(len(one.duplicates()) for one in found.values())
    heading = f"{len(table)} units of {len(found)} layers: {dead} dead, {on} always on, {pairs} pairs alike (0.95)"
    chart = histograms({name: counts.tolist() for name, counts in parts.items()}, EDGES.tolist())
    tensors = {f"histogram.{name}": one.histogram for name, one in found.items()}
    return Look(panel([("", chart_picture(chart))], heading, side=1), tensors, heading, table)


def look_faithfulness(scope: Scope, asked: Asked) -> Look:
    """The target's probability as pixels go in the lens's order, and as they come back, beside a random order."""
    method = asked.method or "grad_cam"
    found = scope.faithfulness(method, _even(asked, 50))
    courses = {"deleted": found.deletion, "put back": found.insertion, "deleted at random": found.random}
    table = pd.concat(
        [_course(name, found.shares, found.course(curve)) for name, curve in courses.items()], ignore_index=True
    )
    chart = curves(table, "share of the pixels", "probability of the class", percent=True)
    heading = f"faithfulness of {method.replace('_', ' ')} on {found.n} test images: {found.verdict}"
    tensors = {name.replace(" ", "_"): curve for name, curve in courses.items()}
    return Look(panel([("", chart_picture(chart))], heading, side=1), tensors, heading, table)


def look_randomization(scope: Scope, asked: Asked) -> Look:
    """How like itself a lens's map stays as the weights are made random, from the last layer downwards."""
    method = asked.method or "grad_cam"
    found = scope.randomization_check(method, _even(asked, 50))
    rows = [
        {"curve": "similarity", "x": n, "layer": layer} | _figures(one)
        for n, (layer, one) in enumerate(found.similarities.items(), start=1)
    ]
    table = pd.DataFrame(rows)
    chart = curves(table, "layers randomized, from the last", "rank correlation with the map")
    said = found.verdict or "the intervals carry no verdict"
    heading = f"randomization check of {method.replace('_', ' ')} on {found.n} test images: {said}"
    return Look(panel([("", chart_picture(chart))], heading, side=1), {"similarity": found.similarity}, heading, table)


def look_invariance(scope: Scope, asked: Asked) -> Look:
    """How far features and answer move as images are shifted, rotated, scaled."""
    layers = [asked.layer] if asked.layer else ["conv"]
    found = scope.invariance(_even(asked, 50), layers)
    rows = [
        {
            "curve": layer,
            "group": change.kind,
            "change": str(change),
            "x": n,
            "value": one.value,
            "low": one.low,
            "high": one.high,
        }
        for layer in found.layers
        for n, (change, one) in enumerate(zip(found.changes, found.distances(layer), strict=True), start=1)
    ]
    table = pd.DataFrame(rows)
    names = [str(change) for change in found.changes]
    chart = curves(table, "change of the image", "distance of the features", ticks=names)
    heading = f"invariance on {found.n} test images: distance of the features, 0 where nothing moved"
    tensors = {"distance": found.distance, "probability": found.probability}
    return Look(panel([("", chart_picture(chart))], heading, side=1), tensors, heading, table)


def look_filter_effects(scope: Scope, asked: Asked) -> Look:
    """How much accuracy each unit is worth, switched off one at a time: a point a unit, a line a layer."""
    test = _test(asked)
    images = test.subset(_rows(test, asked.n or 1000))
    found = scope.filter_effects(images, [asked.layer or "conv"])
    table = pd.concat([one.table() for one in found.values()], ignore_index=True)
    drawn = table.rename(columns={"layer": "name", "change": "value"})[["name", "value"]]
    drawn = drawn.assign(low=drawn["value"], high=drawn["value"])
    worst = table.iloc[int(table["change"].to_numpy().argmin())]
    heading = (
        f"each of {len(table)} units switched off, on {len(images)} test images: most is lost without unit "
        f"{worst['unit']} of {worst['layer']}, {100 * worst['change']:+.1f} points"
    )
    tensors = {f"accuracy_after.{name}": one.accuracy_after for name, one in found.items()}
    chart = changes(drawn, "change of accuracy without the unit")
    return Look(panel([("", chart_picture(chart))], heading, side=1), tensors, heading, table)


def look_ablate(scope: Scope, asked: Asked) -> Look:
    """What switching off a chosen set of units, together, does to each class, and what is then taken for what."""
    units = asked.units or {op.name: [0, 1] for op in _convolutions(scope)[:5]}
    found = scope.ablation(units, _test(asked))
    table = found.table()
    drawn = table.rename(columns={"class": "name", "difference": "value"})
    drawn = drawn.rename(columns={"difference_low": "low", "difference_high": "high"})[["name", "value", "low", "high"]]
    chosen = "; ".join(f"{layer} {', '.join(map(str, some))}" for layer, some in found.units.items())
    before, after = found.accuracy_before(), found.accuracy_after()
    heading = f"without {chosen}: accuracy {_percent(before)} before, {_percent(after)} after"
    change = found.confusion_change.double()
    scale = scale_of(change, "images more, or fewer", signed=True)
    parts = [
        ("difference of accuracy by class", chart_picture(changes(drawn, "difference of accuracy"))),
        ("change of the confusion matrix; a row a true class", coloured(change, scale)),
    ]
    tensors = {"confusion_before": found.confusion_before, "confusion_after": found.confusion_after}
    note = f"{len(found.lost)} images were right and are wrong now, {len(found.gained)} the other way round"
    return Look(panel(parts, heading, scale, side=300, note=note), tensors, heading, table)


def _convolutions(scope: Scope) -> list[Operation]:
    found = [op for op in scope.graph.operations if op.kind == "conv"]
    if not found:
        raise RequestError("this network has no convolution; name units with --units")
    return found


def _percent(figure: Estimate) -> str:
    return "undefined" if figure.value is None else f"{100 * figure.value:.2f} %"


def _test(asked: Asked) -> ImageSet:
    found: ImageSet = asked.given()["test"]
    return found


def _even(asked: Asked, n: int) -> ImageSet:
    """As many test images as asked for, evenly over the set."""
    test = _test(asked)
    return test.subset(_rows(test, asked.n or n))


def _rows(test: ImageSet, n: int) -> Tensor:
    """The places of at most `n` images, evenly over the set."""
    return torch.linspace(0, len(test) - 1, min(n, len(test))).long()


def _course(name: str, shares: Tensor, course: list[Estimate]) -> pd.DataFrame:
    rows = [{"curve": name, "x": x} | _figures(one) for x, one in zip(shares.tolist(), course, strict=True)]
    return pd.DataFrame(rows)


def _figures(one: Estimate) -> dict[str, float | None]:
    return {"value": one.value, "low": one.low, "high": one.high}


def _tensors(found: LayerPatches) -> dict[str, Tensor]:
    names = ("index", "response", "activation", "position", "box", "count", "mean", "largest")
    return {name: getattr(found, name) for name in names}


def _centred(patch: Picture | None, side: int) -> Picture:
    """A patch in the middle of a light square."""
    square = picture(torch.full((3, side, side), 0.93))
    if patch is not None:
        top, left = ((side - n) // 2 for n in patch.shape[:2])
        square[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return square


def _beside(image: Picture, patch: Picture) -> Picture:
    """An image and its patch on one strip, the patch as high as fits."""
    scale = max(1, image.shape[0] // max(patch.shape[:2]))
    large = enlarge(patch, scale)
    strip = picture(torch.ones(3, image.shape[0], image.shape[1] + 4 + image.shape[0]))
    strip[:, : image.shape[1]] = image
    strip[: large.shape[0], image.shape[1] + 4 : image.shape[1] + 4 + large.shape[1]] = large
    return strip
