"""Which units of a layer a lens asks about."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from convscope.base.words import shape_text
from convscope.errors import RequestError
from convscope.graph import Operation, Positions, TracedGraph, positions
from convscope.lenses.activations import select_layers

Units = int | Sequence[int] | Int[Tensor, " U"] | None
"""What lenses take as `units`: one unit of the layer, several, or None for all of them."""

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8)


def choose_units(units: Units, n_units: int, layer: str) -> tuple[int, ...]:
    """The units that are meant, in the order given.

    Args:
        units: see `Units`. A unit may be named twice.
        n_units: how many the layer has.
        layer: its name, for the message.

    Raises:
        RequestError: a unit is not one of the layer's, or none is named.

    Example:
        >>> choose_units([2, 0], 4, "conv1")
        (2, 0)
    """
    if units is None:
        return tuple(range(n_units))
    if isinstance(units, Tensor) and (units.is_meta or units.is_complex() or units.layout != torch.strided):
        raise RequestError(f"units of layer {layer!r}: a tensor without whole numbers; expected a list of them")
    indices = whole_numbers(units)
    if indices is None or not indices.numel():
        raise RequestError(f"units of layer {layer!r}: {units!r}; expected a whole number or a list of them")
    chosen = indices.reshape(-1).tolist()
    outside = [unit for unit in chosen if not 0 <= unit < n_units]
    if outside:
        raise RequestError(f"unit {outside[0]} is not in layer {layer!r}; it has 0 to {n_units - 1}")
    return tuple(chosen)


def whole_numbers(value: object) -> Tensor | None:
    """A whole number, or a list of them, as a tensor; None for anything else."""
    try:
        numbers = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):  # words, None among numbers, lists of several lengths
        return None
    return numbers.long() if numbers.dtype in _WHOLE and numbers.ndim <= 1 else None


def convolutions(graph: TracedGraph) -> list[str]:
    """The convolutions whose units are known, see `count_units`, in the network's order."""
    return [op.name for op in graph.operations if op.kind == "conv" and _has_units(graph, op.name)]


def layers_with_units(graph: TracedGraph, layers: Sequence[str]) -> list[str]:
    """The layers that are meant, see `select_layers`; those of a kind or a pattern only if their units are known.

    All of them where no layer's are, so that a message names the first.
    """
    names = select_layers(graph, layers)
    called = [layers] if isinstance(layers, str) else list(layers)
    return [name for name in names if name in called or _has_units(graph, name)] or names


def _has_units(graph: TracedGraph, layer: str) -> bool:
    try:
        return units_and_axis(graph, layer)[0] > 0
    except RequestError:
        return False


def units_and_axis(graph: TracedGraph, layer: str) -> tuple[int, int]:
    """How many units a layer has, and along which axis of its result they lie, the batch's counted.

    Raises:
        UnknownNameError: there is no such layer.
        RequestError: as `count_units`.
    """
    operation, where = graph.operation(layer), positions(graph).get(layer)
    n_units = count_units(operation, where)
    return n_units, where.unit_axis(len(operation.output_shape) + 1) if where else 1


def count_units(operation: Operation, where: Positions | None) -> int:
    """How many units an operation has: maps, or neurons.

    Args:
        where: its positions, see `convscope.graph.positions`; None where it has none.

    Raises:
        RequestError: it is not known which of its numbers are a unit's, or which of its rows are an image's.
    """
    if operation.is_routed:
        raise RequestError(
            f"layer {operation.name!r} runs on as many rows as the images decide, and none of them is an image's; ask about a "
            "layer before or behind it"
        )
    shape = operation.output_shape
    if where is None and len(shape) != 1:
        size = shape_text(shape) or "one"
        raise RequestError(
            f"layer {operation.name!r} gives {size} numbers an image, and which are a unit's is not known"
        )
    return where.n_units(shape) if where else shape[0]
