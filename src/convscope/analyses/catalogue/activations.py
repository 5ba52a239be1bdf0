"""The feature maps of a layer for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.maps import maps_of, unit_of
from convscope.analyses.request import ImageRequest, Layer, Unit
from convscope.analyses.view import View

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.scope import Scope

_MOST_UNITS = 64
_SAMPLED = 1_000_000  # values for the quantile


class Request(ImageRequest):
    """The feature maps of a layer for an image, of all units or of one."""

    layer: Layer
    unit: Unit = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> tuple[str, Tensor]:
    """The name of the (first) operation of the layer, and its maps (1, U, H, W)."""
    return maps_of(scope, inputs.image, request.layer)


def view(scope: Scope, request: Request, result: tuple[str, Tensor], inputs: Inputs) -> View:
    """The maps of the units on one scale; of a single unit, the map over the image and alone."""
    name, values = result
    maps, image, tensors = values[0], ("image", draw.picture(inputs.image)), {name: values}
    if request.unit is not None:
        one = maps[unit_of(request.unit, maps, name)]
        scale = draw.scale_of(one, "activation")
        figures = [
            image,
            ("over the image", draw.overlay(inputs.image, one, scale)),
            ("alone", draw.coloured(one, scale)),
        ]
        return View(f"activation of unit {request.unit} of {name}", figures, tensors, scale=scale)
    sample = maps.flatten()[:: max(1, maps.numel() // _SAMPLED)]
    top = max(float(sample.abs().quantile(0.995)), 1e-12)
    signed = bool((maps < 0).any())
    pictures = [draw.signed_picture(one, top) if signed else draw.map_picture(one, top) for one in maps[:_MOST_UNITS]]
    sheet = draw.sheet([draw.enlarge_to(one, 64) for one in pictures], columns=8, gap=3, ground=40)
    colours = (
        f"blue below 0, red above, full colour ±{top:.3g} and beyond"
        if signed
        else f"black is 0, white {top:.3g} and above"
    )
    heading = f"activations of {name}: {len(pictures)} of {len(maps)} units"
    return View(heading, [image, (colours, sheet)], tensors, side=sheet.shape[0])
