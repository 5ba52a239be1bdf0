"""The maps of a layer for an image, as several analyses read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import graph
from convscope.errors import FailedError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.scope import Scope


def maps_of(scope: Scope, image: Tensor, layer: str) -> tuple[str, Tensor]:
    """The name of the (first) operation of a layer, and its maps (1, U, H, W)."""
    name, values = next(iter(scope.activations(image, layers=[layer]).items()))
    if values.ndim != 4:
        shape = tuple(values.shape[1:])
        raise RequestError(f"layer {name!r} gives {shape} numbers an image and no maps; choose another one")
    if not graph.is_finite(values):
        raise FailedError(f"layer {name!r} gives NaN or infinity for this image: numbers overflow on the way to it")
    return name, values


def unit_of(unit: int | str, maps: Tensor, name: str) -> int:
    """The unit, checked against a layer's maps (U, H, W)."""
    if not isinstance(unit, int) or not 0 <= unit < len(maps):
        raise RequestError(f"unit {unit} is not in layer {name!r}; it has units 0 to {len(maps) - 1}")
    return unit
