"""Invariance to shifts, rotations and scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import draw, graph
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import AnyLayer
from convscope.analyses.testset import SampleRequest, chart
from convscope.analyses.view import View
from convscope.base.words import counted
from convscope.errors import RequestError

if TYPE_CHECKING:
    from convscope.scans import InvarianceCurves
    from convscope.scope import Scope


class Request(SampleRequest):
    """Invariance: how far features and answer move as test images are shifted, rotated and scaled."""

    layer: AnyLayer = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> InvarianceCurves:
    """On 50 test images by default; of a layer, or where the next layers read the convolutions."""
    layers = [request.layer] if request.layer else _convolutions_as_read(scope)
    return scope.invariance(request.sample(inputs.test), layers)


def view(scope: Scope, request: Request, result: InvarianceCurves, inputs: Inputs) -> View:
    """A curve for each layer: the distance of its features for each change of the image."""
    table = result.table().rename(columns={"layer": "curve", "kind": "group", "distance": "value"})
    table.insert(3, "x", table.groupby("curve").cumcount() + 1)
    names = [str(change) for change in result.changes]
    figures = [chart(draw.curves(table, "change of the image", "distance of the features", ticks=names))]
    heading = f"invariance on {counted(result.n, 'test image')}: distance of the features, 0 where nothing moved"
    return View(heading, figures, {"distance": result.distance, "probability": result.probability}, table, side=1)


def _convolutions_as_read(scope: Scope) -> list[str]:
    """The ReLUs behind the convolutions, or where else the next layers read these."""
    layers = [graph.where_read(scope.graph, op.name) for op in scope.graph.operations if op.kind == "conv"]
    if not layers:
        raise RequestError("this network has no convolution; name layers with --layer")
    return list(dict.fromkeys(layers))
