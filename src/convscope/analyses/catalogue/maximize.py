"""Feature visualization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import draw, graph
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import AnyLayer, Position, Request as Base, Unit
from convscope.analyses.view import View
from convscope.errors import RequestError

if TYPE_CHECKING:
    from convscope.lenses import Maximized
    from convscope.scope import Scope

_MOST_UNITS = 64
_LABELLED = 20  # more pictures than that stand without their own lines


class Request(Base):
    """Feature visualization: the picture that maximally activates a unit, the first units of a layer, or the classes."""

    layer: AnyLayer = None
    unit: Unit = None
    position: Position = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> Maximized:
    """Of a layer that a ReLU follows, the ReLU is maximized, for before it a map's mean counts what it subtracts, too."""
    if request.position == "max":
        raise RequestError("--position max: without an image there is no strongest; give a row and a column")
    layer = request.layer and (graph.relu_after(scope.graph, request.layer) or request.layer)
    units = list(range(min(_MOST_UNITS, scope.n_units(layer)))) if request.unit is None else [int(request.unit)]
    return scope.maximize(layer, units, request.position)


def view(scope: Scope, request: Request, result: Maximized, inputs: Inputs) -> View:
    """The pictures, up to 20 with a line each: the unit or class, and the activation reached."""
    place = "" if request.position is None else f" at row {request.position[0]}, column {request.position[1]}"
    if request.layer is None:
        heading = "what maximally activates the classes: logit reached"
    else:
        heading = f"what maximally activates {result.layer}{place}: activation reached"
    tensors = {"picture": result.picture, "activation": result.activation, "course": result.course}
    pictures = [draw.picture(one) for one in result.picture]
    if len(pictures) > _LABELLED:
        sheet = draw.sheet([draw.enlarge_to(one, 64) for one in pictures], columns=8, gap=3)
        low, high = float(result.activation.min()), float(result.activation.max())
        caption = f"units {result.units[0]} to {result.units[-1]}; {low:.3g} to {high:.3g}"
        return View(heading, [(caption, sheet)], tensors, side=sheet.shape[0])
    of_classes = request.layer is None
    names = [scope.output_name(unit) if of_classes else f"unit {unit}" for unit in result.units]
    captions = [f"{name}: {activation:.3g}" for name, activation in zip(names, result.activation.tolist(), strict=True)]
    return View(heading, list(zip(captions, pictures, strict=True)), tensors, side=128, columns=5)
