"""The filters of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import AnyLayer, Request as Base
from convscope.analyses.view import View
from convscope.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.scope import Scope

_MOST_UNITS, _MOST_DEEP = 64, 16


class Request(Base):
    """The filters of a layer, by default of the first convolution."""

    layer: AnyLayer = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> dict[str, Tensor]:
    """The layer's weights, (units, inputs, height, width), by its name."""
    layer = request.layer or next((op.module or op.name for op in scope.graph.operations if op.kind == "conv"), None)
    if layer is None:
        raise RequestError("this network has no convolution; give --layer")
    weights = scope.filters(layer)
    if weights.ndim != 4:
        raise RequestError(f"layer {layer!r} has weights of {tuple(weights.shape)}, no filters with rows and columns")
    return {layer: weights}


def view(scope: Scope, request: Request, result: dict[str, Tensor], inputs: Inputs) -> View:
    """Filters on the image in colour, of one input side by side; deeper ones in a row a unit, a column an input."""
    [(layer, weights)] = result.items()
    few = weights.shape[1] in (1, 3)  # inputs: a filter is one picture, or one in colour
    rows, inputs_shown = min(len(weights), _MOST_UNITS if few else _MOST_DEEP), min(weights.shape[1], _MOST_DEEP)
    if weights.shape[1] == 3:
        pictures = [draw.enlarge_to(draw.filter_picture(w), 48) for w in weights[:rows]]
        sheet, caption = draw.sheet(pictures, columns=8, gap=3), "grey is weight 0, each filter on its own scale"
    else:
        top, side = float(weights.abs().max()), 48 if few else 24
        cells = [weights[unit, channel] for unit in range(rows) for channel in range(inputs_shown)]
        pictures = [draw.enlarge_to(draw.signed_picture(cell, top), side) for cell in cells]
        sheet = draw.sheet(pictures, columns=8 if few else inputs_shown, gap=3, ground=90)
        layout = "" if few else "a row a unit, a column an input; "
        caption = f"{layout}blue below 0, red above, full colour ±{top:.2g}"
    heading = f"filters of {layer}: {' x '.join(map(str, weights.shape))}"
    counts = ((rows, len(weights), "units"), (inputs_shown, weights.shape[1], "inputs"))
    if first := " and ".join(f"{shown} {what}" for shown, n, what in counts if shown < n):
        heading += f"; the first {first}"
    return View(heading, [(caption, sheet)], result, side=sheet.shape[0])
