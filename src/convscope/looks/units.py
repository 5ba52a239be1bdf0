"""Units as pictures: filters, activations, what excites them most, what of the image they see."""

from __future__ import annotations

import torch
from torch import Tensor

from convscope.draw import (
    Picture,
    coloured,
    enlarge,
    filter_picture,
    framed,
    map_picture,
    overlay,
    panel,
    picture,
    scale_of,
    sheet,
    signed_picture,
)
from convscope.errors import FailedError, RequestError
from convscope.graph import is_finite, relu_after
from convscope.lenses import Maximized
from convscope.looks.records import Asked, Look
from convscope.scope import Scope

MOST_UNITS = 64
"""Units in one picture."""

_LABELLED = 20  # more pictures than that stand without their own lines


def look_filters(scope: Scope, asked: Asked) -> Look:
    """Filters on the image in colour, of one input side by side; deeper ones in a row a unit, a column an input."""
    layer = asked.layer or next((op.name for op in scope.graph.operations if op.kind == "conv"), None)
    if layer is None:
        raise RequestError("this network has no convolution; give --layer")
    weights = scope.filters(layer)
    if weights.ndim != 4:
        raise RequestError(f"layer {layer!r} has weights of {tuple(weights.shape)}, no filters with rows and columns")
    if weights.shape[1] == 3:
        size = max(1, 48 // max(weights.shape[2:]))
        shown = [enlarge(filter_picture(w), size) for w in weights[:MOST_UNITS]]
        whole, note = sheet(shown, columns=8, gap=3), "grey is weight 0, each filter on its own scale"
    else:
        one_input, top = weights.shape[1] == 1, float(weights.abs().max())
        size = max(1, (48 if one_input else 24) // max(weights.shape[2:]))
        rows, inputs = min(len(weights), MOST_UNITS if one_input else 16), min(weights.shape[1], 16)
        shown = [enlarge(signed_picture(weights[u, c], top), size) for u in range(rows) for c in range(inputs)]
        whole = sheet(shown, columns=8 if one_input else inputs, gap=3, ground=90)
        said = "" if one_input else "a row a unit, a column an input; "
        note = f"{said}blue below 0, red above, full colour ±{top:.2g}"
    heading = f"filters of {layer}: {' x '.join(map(str, weights.shape))}"
    return Look(panel([(note, whole)], heading, side=whole.shape[0]), {layer: weights}, heading)


def look_activations(scope: Scope, asked: Asked) -> Look:
    """The maps of a layer's units on one scale; of a single unit, the map over the image and alone."""
    given = asked.given()
    image = given["image"]
    name, values = _maps(scope, image, given["layer"])
    maps = values[0]
    if asked.unit is not None:
        one = maps[_unit(asked.unit, maps, name)]
        scale = scale_of(one, "activation")
        parts = [("image", picture(image)), ("over the image", overlay(image, one, scale)),
                 ("alone", coloured(one, scale))]  # fmt: skip
        heading = f"activation of unit {asked.unit} of {name}"
        return Look(panel(parts, heading, scale), {name: values}, heading)
    top = max(float(maps.flatten()[:: max(1, maps.numel() // 1_000_000)].abs().quantile(0.995)), 1e-12)
    signed = bool((maps < 0).any())
    shown = [signed_picture(one, top) if signed else map_picture(one, top) for one in maps[:MOST_UNITS]]
    size = max(1, 64 // max(shown[0].shape[:2]))
    maps_sheet = sheet([enlarge(one, size) for one in shown], columns=8, gap=3, ground=40)
    heading = f"activations of {name}: {len(shown)} of {len(maps)} units"
    colours = (
        f"blue below 0, red above, full colour ±{top:.3g} and beyond"
        if signed
        else f"black is 0, white {top:.3g} and above"
    )
    parts = [("image", picture(image)), (colours, maps_sheet)]
    return Look(panel(parts, heading, side=maps_sheet.shape[0]), {name: values}, heading)


def look_maximize(scope: Scope, asked: Asked) -> Look:
    """The picture that most excites a unit, or those of the first units of a layer, or of the classes.

    Of a layer that a ReLU follows, the ReLU is excited, for before it a map's mean counts what it subtracts, too.
    """
    if asked.position == "max":
        raise RequestError("--position max: without an image there is no strongest; give a row and a column")
    layer = asked.layer and (relu_after(scope.graph, asked.layer) or asked.layer)
    units = list(range(min(MOST_UNITS, scope.n_units(layer)))) if asked.unit is None else [asked.unit]
    found = scope.maximize(layer, units, asked.position)
    place = "" if asked.position is None else f" at row {asked.position[0]}, column {asked.position[1]}"
    if layer is None:
        heading = "what most excites the classes: logit reached"
    else:
        heading = f"what most excites {layer}{place}: activation reached"
    tensors = {"picture": found.picture, "activation": found.activation, "course": found.course}
    return Look(excited(scope, found, asked.layer is None, heading), tensors, heading)


def excited(scope: Scope, found: Maximized, of_classes: bool, heading: str) -> Picture:
    """The pictures, up to 20 with a line each: the unit or class, and the activation reached."""
    shown = [picture(one) for one in found.picture]
    if len(shown) > _LABELLED:
        size = max(1, 64 // max(shown[0].shape[:2]))
        whole = sheet([enlarge(one, size) for one in shown], columns=8, gap=3)
        low, high = float(found.activation.min()), float(found.activation.max())
        line = f"units {found.units[0]} to {found.units[-1]}; {low:.3g} to {high:.3g}"
        return panel([(line, whole)], heading, side=whole.shape[0])
    who = [scope.output_name(unit) if of_classes else f"unit {unit}" for unit in found.units]
    lines = [f"{name}: {reached:.3g}" for name, reached in zip(who, found.activation.tolist(), strict=True)]
    return panel(list(zip(lines, shown, strict=True)), heading, side=128, columns=5)


def look_receptive_field(scope: Scope, asked: Asked) -> Look:
    """The image with a frame around what a position of a layer sees, and that patch alone."""
    given = asked.given()
    image, layer = given["image"], given["layer"]
    field = scope.receptive_field(layer)
    rows, columns = field.boxes.shape[1:]
    if asked.position == "max":
        row, column = _strongest(scope, image, layer, asked.unit)
    else:
        row, column = asked.position or (rows // 2, columns // 2)
    top, left, bottom, right = box = field.box(row, column)
    heading = f"receptive field of {layer} at row {row}, column {column} of {rows}×{columns}: {'×'.join(map(str, field.size))}"
    if bottom <= top or right <= left:
        raise RequestError(f"layer {layer!r} sees nothing of the image at row {row}, column {column}")
    shown = picture(image)
    scale = max(1, 256 // max(shown.shape[:2]))
    large = framed(enlarge(shown, scale), tuple(scale * edge for edge in box))
    parts: list[tuple[str, Picture]] = [
        ("image", shown),
        (f"rows {top} to {bottom - 1}, columns {left} to {right - 1}", large),
        ("what it sees", picture(image[:, top:bottom, left:right])),
    ]
    return Look(panel(parts, heading), {"box": torch.tensor(box), "boxes": field.boxes}, heading)


def _maps(scope: Scope, image: Tensor, layer: str) -> tuple[str, Tensor]:
    """The name of the (first) layer meant, and its maps (1, U, H, W)."""
    name, values = next(iter(scope.activations(image, layers=[layer]).items()))
    if values.ndim != 4:
        shape = tuple(values.shape[1:])
        raise RequestError(f"layer {name!r} gives {shape} numbers an image and no maps; choose another one")
    if not is_finite(values):
        raise FailedError(f"layer {name!r} gives NaN or infinity for this image: numbers overflow on the way to it")
    return name, values


def _unit(unit: int, maps: Tensor, name: str) -> int:
    if not 0 <= unit < len(maps):
        raise RequestError(f"unit {unit} is not in layer {name!r}; it has units 0 to {len(maps) - 1}")
    return unit


def _strongest(scope: Scope, image: Tensor, layer: str, unit: int | None) -> tuple[int, int]:
    """Where a unit of the layer answers most; of all units where none is meant."""
    name, values = _maps(scope, image, layer)
    maps = values[0]
    one = maps.amax(0) if unit is None else maps[_unit(unit, maps, name)]
    return divmod(int(one.argmax()), one.shape[1])
