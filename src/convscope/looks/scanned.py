"""Scans over a run's test images as pictures and tables: strongest patches, statistics, how far a lens can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from convscope.data import ImageSet
from convscope.draw import (
    Picture,
    changes,
    chart_picture,
    curves,
    enlarge,
    framed,
    histograms,
    moved,
    panel,
    picture,
    sheet,
)
from convscope.errors import RequestError
from convscope.graph import where_read
from convscope.lenses import select_layers
from convscope.looks.ablation import ablation_plan
from convscope.looks.records import Asked, Look
from convscope.scans import EDGES, Estimate, LayerPatches, LayerStatistics
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
        heading = f"strongest patches of {found.layer}: {len(shown)} of {len(found.count)} units, nine each"
        parts = [(f"unit {unit}", one) for unit, one in enumerate(shown)]
        silent = int((~found.fired).sum())
        note = f"{_counted(silent, 'unit')} without patches: never fires on these images" if silent else None
        return Look(panel(parts, heading, side=116, note=note, columns=8), _tensors(found), heading, table)
    patches = found.patches(images, asked.unit)  # says at once if there is no such unit
    classes = images.classes["class"]
    heading = f"unit {asked.unit} of {found.layer}: {unit_in_words(found, asked.unit, classes)}"
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
    note = "below each image its number in the test set, and the unit's response: the sum of its map"
    return Look(panel(parts, heading, side=96, columns=5, note=note), _tensors(found), heading, table)


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
    """How often each size of activation occurs, layer by layer, and a row for each unit; units that stand out, by name."""
    found = scope.statistics(_test(asked), [asked.layer or "conv"])
    parts = {name: one.histogram.sum(0) for name, one in found.items()}
    table = pd.concat([one.table() for one in found.values()], ignore_index=True)
    if "best_class" in table:
        names = _test(asked).classes["class"]
        table["best_class"] = [names[k] if k >= 0 else "none" for k in table["best_class"]]
    heading = f"{_counted(len(table), 'unit')} of {_counted(len(found), 'layer')}"
    noted = notable_units(found)
    chart = histograms({name: counts.tolist() for name, counts in parts.items()}, EDGES.tolist())
    tensors = {f"histogram.{name}": one.histogram for name, one in found.items()}
    shown = panel([("", chart_picture(chart))], f"{heading}: how often each activation occurs", side=1, note=noted)
    return Look(shown, tensors, f"{heading}; {noted}", table)


def notable_units(found: Mapping[str, LayerStatistics], most: int = 4) -> str:
    """The dead units, those always on and the pairs alike: how many, and the first of them by name."""
    named = {
        "dead": [f"{layer} {unit}" for layer, one in found.items() for unit in one.dead.nonzero()[:, 0].tolist()],
        "always on": [f"{layer} {u}" for layer, one in found.items() for u in one.saturated.nonzero()[:, 0].tolist()],
        "pairs alike": [
            f"{layer} {first} and {second} ({correlation:.2f})"
            for layer, one in found.items()
            for first, second, correlation in one.duplicates()
        ],
    }
    said = []
    for what, names in named.items():
        more = ", …" if len(names) > most else ""
        said.append(f"{what}: {len(names)}" + (f" ({', '.join(names[:most])}{more})" if names else ""))
    return "; ".join(said)


def look_faithfulness(scope: Scope, asked: Asked) -> Look:
    """The target's probability as pixels go in the lens's order, and as they come back, beside a random order."""
    method = asked.method or "grad_cam"
    found = scope.faithfulness(method, _even(asked, 50))
    courses = {"deleted": found.deletion, "put back": found.insertion, "deleted at random": found.random}
    table = pd.concat(
        [_course(name, found.shares, found.course(curve)) for name, curve in courses.items()], ignore_index=True
    )
    chart = curves(table, "share of the pixels", "probability of the class", percent=True)
    heading = f"faithfulness of {method} on {_counted(found.n, 'test image')}"
    tensors = {name.replace(" ", "_"): curve for name, curve in courses.items()}
    shown = panel([("", chart_picture(chart))], heading, side=1, note=found.verdict)
    return Look(shown, tensors, f"faithfulness on test images: {found.verdict}", table)


def look_randomization(scope: Scope, asked: Asked) -> Look:
    """How like itself a lens's map stays as the weights are made random, from the last layer downwards."""
    method = asked.method or "grad_cam"
    found = scope.randomization_check(method, _even(asked, 50))
    rows = [
        {"curve": method, "x": n, "layer": layer} | _figures(one)
        for n, (layer, one) in enumerate(found.similarities.items(), start=1)
    ]
    table = pd.DataFrame(rows)
    least = min([0.0, *(one.low for one in found.similarities.values() if one.low is not None)])
    ticks, reach = list(found.layers), (math.floor(5 * least) / 5, 1.0)  # the whole way from 1 to nothing in common
    chart = curves(table, "weights random from the last layer down to", "rank correlation", ticks=ticks, reach=reach)
    said = found.verdict or f"of {method} the intervals carry no verdict"
    heading = f"randomization check of {method} on {_counted(found.n, 'test image')}"
    shown = panel([("", chart_picture(chart))], heading, side=1, note=said)
    words = f"randomization check on {_counted(found.n, 'test image')}: {said}"
    return Look(shown, {"similarity": found.similarity}, words, table)


def look_invariance(scope: Scope, asked: Asked) -> Look:
    """How far features and answer move as images are shifted, rotated, scaled; by default behind each convolution's ReLU."""
    found = scope.invariance(_even(asked, 50), [asked.layer] if asked.layer else _read_convolutions(scope))
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
    """How much accuracy each unit is worth, switched off one at a time: a point a unit, a line a layer.

    In the table those come first without which most is lost.
    """
    images, layers = _even(asked, 1000), select_layers(scope.graph, [asked.layer or "conv"])
    plan = ablation_plan(scope, layers, asked.how)
    found = plan.effects(images, dict.fromkeys(layers), asked.screen)
    table = pd.concat([one.table() for one in found.values()], ignore_index=True)
    table.insert(2, "off", [plan.in_layer(layer) for layer in table["layer"]])
    n_units, table = len(table), table[table["measured"]]
    drawn = table.rename(columns={"layer": "name", "change": "value"})[["name", "value"]]
    drawn = drawn.assign(low=drawn["value"], high=drawn["value"])
    table = table.sort_values("change", kind="stable")
    measured = f"each of {n_units}" if len(table) == n_units else f"{len(table)} of {n_units}"
    chosen = None if len(table) == n_units else f"in each layer the {asked.screen} that an estimate names first"
    off_so = f"{measured} units switched off alone ({plan.words})"
    found_so = f"on {_counted(len(images), 'test image')}: {largest_loss(table)}"
    tensors = {f"accuracy_after.{name}": one.accuracy_after for name, one in found.items()}
    chart = changes(drawn, "change of accuracy without the unit")
    shown = panel([("", chart_picture(chart))], f"{off_so}, {found_so}", side=1, note=chosen)
    return Look(shown, tensors, ", ".join(filter(None, (off_so, chosen, found_so))), table)


def look_ablate(scope: Scope, asked: Asked) -> Look:
    """What switching off a chosen set of units, together, does to each class, and what is then taken for what."""
    units = asked.units or _first_units(scope)
    plan = ablation_plan(scope, units, asked.how)
    found = plan.ablation(_even(asked, asked.n) if asked.n else _test(asked), units)
    table = found.table()
    drawn = table.rename(columns={"class": "name", "difference": "value"})
    drawn = drawn.rename(columns={"difference_low": "low", "difference_high": "high"})[["name", "value", "low", "high"]]
    chosen = "; ".join(f"{layer}: {', '.join(map(str, some))}" for layer, some in found.units.items())
    before, after = found.accuracy_before(), found.accuracy_after()
    heading = (
        f"units switched off ({plan.words}), {chosen}: accuracy {_percent(before)} before, {_percent(after)} after"
    )
    parts = [
        ("", chart_picture(changes(drawn, "difference of accuracy"))),
        ("", chart_picture(moved(found.confusion_change.tolist(), found.classes))),
    ]
    tensors = {"confusion_before": found.confusion_before, "confusion_after": found.confusion_after}
    note = (
        f"of {_counted(len(found.index), 'test image')} {len(found.lost)} were right and are wrong now, "
        f"{len(found.gained)} the other way round"
    )
    return Look(panel(parts, heading, side=1, note=note, columns=1), tensors, heading, table)


def largest_loss(ranked: pd.DataFrame) -> str:
    """Without which unit most accuracy is lost, where any is."""
    worst = ranked.iloc[0]
    if worst["change"] >= 0:
        return "accuracy falls without none of them"
    return (
        f"accuracy falls most without unit {worst['unit']} of {worst['layer']}, by {-100 * worst['change']:.1f} points"
    )


def _convolutions(scope: Scope, instead: str = "units with --units") -> list[str]:
    found = [op.name for op in scope.graph.operations if op.kind == "conv"]
    if not found:
        raise RequestError(f"this network has no convolution; name {instead}")
    return found


def _first_units(scope: Scope) -> dict[str, list[int]]:
    """Two of each of the first five convolutions; one where there is no more."""
    return {name: list(range(min(2, scope.n_units(name)))) for name in _convolutions(scope)[:5]}


def _read_convolutions(scope: Scope) -> list[str]:
    """The ReLUs behind the convolutions, or where else the next layers read these."""
    return list(dict.fromkeys(where_read(scope.graph, name) for name in _convolutions(scope, "layers with --layer")))


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


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
