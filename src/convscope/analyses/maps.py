"""The maps of a layer for an image, as several analyses read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import graph
from convscope.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.scope import Scope


def maps_of(scope: Scope, image: Tensor, layer: str) -> tuple[str, Tensor]:
    """The name of the (first) operation of a layer, and its maps (1, U, H, W)."""
    name, maps = _answers(scope, image, layer)
    if maps.ndim != 4:
        shape = tuple(maps.shape[1:])
        raise RequestError(f"layer {name!r} gives {shape} numbers an image and no maps; choose another one")
    graph.check_finite(maps, f"layer {name!r} gives NaN or infinity for this image: numbers overflow on the way to it")
    return name, maps


def strongest_unit(scope: Scope, image: Tensor, layer: str) -> int:
    """The unit of a layer that answers an image most."""
    name, answers = _answers(scope, image, layer)
    if answers.ndim != 4:
        scope.n_units(name)  # refuses what has no units
    [units] = answers
    return int(units.reshape(len(units), -1).amax(1).argmax())


def _answers(scope: Scope, image: Tensor, layer: str) -> tuple[str, Tensor]:
    """The name of the (first) operation of a layer, and what its units answer: as maps where they have positions."""
    name, values = next(iter(scope.activations(image, layers=[layer]).items()))
    where = graph.positions(scope.graph).get(name)
    return name, values if where is None or values.ndim < 3 else where.as_map(values)


def unit_of(unit: int | str, maps: Tensor, name: str) -> int:
    """The unit, checked against a layer's maps (U, H, W)."""
    if not isinstance(unit, int) or not 0 <= unit < len(maps):
        raise RequestError(f"unit {unit} is not in layer {name!r}; it has units 0 to {len(maps) - 1}")
    return unit
