"""The receptive field of a position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.maps import maps_of, unit_of
from convscope.analyses.request import ImageRequest, Layer, Position, Unit
from convscope.analyses.view import Figure, View, framed
from convscope.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.graph import ReceptiveField
    from convscope.scope import Scope


class Request(ImageRequest):
    """The receptive field: the part of an image that a position of a layer reads."""

    layer: Layer
    unit: Unit = None
    position: Position = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> tuple[ReceptiveField, int, int]:
    """The fields and the position asked for: by default the middle, for "max" where the unit, or any, answers most."""
    field = scope.receptive_field(request.layer)
    if request.position == "max":
        return field, *_strongest(scope, inputs.image, request.layer, request.unit)
    rows, columns = field.boxes.shape[1:]
    return field, *(request.position or (rows // 2, columns // 2))


def view(scope: Scope, request: Request, result: tuple[ReceptiveField, int, int], inputs: Inputs) -> View:
    """The image with a frame around the field, and that patch alone."""
    import torch

    field, row, column = result
    rows, columns = field.boxes.shape[1:]
    top, left, bottom, right = box = field.box(row, column)
    if bottom <= top or right <= left:
        raise RequestError(f"layer {request.layer!r} sees nothing of the image at row {row}, column {column}")
    figures: list[Figure] = [
        ("image", draw.picture(inputs.image)),
        (f"rows {top} to {bottom - 1}, columns {left} to {right - 1}", framed(inputs.image, box, 256)),
        ("receptive field", draw.picture(inputs.image[:, top:bottom, left:right])),
    ]
    place = f"row {row}, column {column} of {rows}×{columns}"
    heading = f"receptive field of {request.layer} at {place}: {'×'.join(map(str, field.size))}"
    return View(heading, figures, {"box": torch.tensor(box), "boxes": field.boxes})


def _strongest(scope: Scope, image: Tensor, layer: str, unit: int | str | None) -> tuple[int, int]:
    """Where a unit of the layer answers most; of all units where none is meant."""
    name, values = maps_of(scope, image, layer)
    maps = values[0]
    activation = maps.amax(0) if unit is None else maps[unit_of(unit, maps, name)]
    return divmod(int(activation.argmax()), activation.shape[1])
