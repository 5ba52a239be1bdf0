"""The layers that a scan looks at: their units and positions, and the ReLU that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import Operation, Positions, TracedGraph, positions
from convscope.lenses import select_layers

_UNITWISE = frozenset({"batch_norm", "dropout", "alias", "clone", "contiguous", "detach"})
"""Operations that leave each unit by itself at its position, and so may stand between a layer and its ReLU."""


@dataclass(frozen=True)
class LayerMap:
    """How to read the result of one operation as a map.

    Attributes:
        name: of the operation.
        n_units: how many it has.
        size: (rows, columns); (1, 1) where it has no positions.
        where: its positions; None where it has none.
    """

    name: str
    n_units: int
    size: tuple[int, int]
    where: Positions | None

    def read(self, result: Float[Tensor, "N ..."]) -> Float[Tensor, "N U P"]:
        """The result with its positions in one axis, row by row, in float32 or float64."""
        found = self.where.as_map(result) if self.where else result[..., None]
        found = found if found.element_size() >= 4 else found.float()
        return found.flatten(2).contiguous()


def layer_maps(graph: TracedGraph, layers: Sequence[str]) -> list[LayerMap]:
    """Those that are meant by names, patterns or kinds, in the network's order; see `convscope.lenses.select_layers`.

    Raises:
        UnknownNameError: one of them means no layer; the message lists those there are.
        RequestError: a layer's units are not known.
    """
    known = positions(graph)
    return [_layer_map(graph.operation(name), known.get(name)) for name in select_layers(graph, layers)]


def _layer_map(op: Operation, where: Positions | None) -> LayerMap:
    if where is None and len(op.output_shape) != 1:
        given = "×".join(map(str, op.output_shape))
        raise RequestError(f"layer {op.name!r} gives {given} numbers an image, and which are a unit's is not known")
    n_units = where.n_units(op.output_shape) if where else op.output_shape[0]
    return LayerMap(op.name, n_units, where.size if where else (1, 1), where)


def relu_after(graph: TracedGraph, layer: str) -> str | None:
    """The ReLU (or another function that cuts at zero, such as ReLU6) that takes what the layer gives, and nothing else.

    Between the two there may be batch norm and dropout. The layer itself, where it is one; None where none follows, such as
    before a sum of two branches.
    """
    op = graph.operation(layer)
    while not _cuts_at_zero(op):
        readers = [reader for reader in graph.operations if op.name in reader.inputs]
        follows = len(readers) == 1 and len(readers[0].inputs) == 1
        if not follows or not (_cuts_at_zero(readers[0]) or readers[0].kind in _UNITWISE):
            return None
        [op] = readers
    return op.name


def _cuts_at_zero(op: Operation) -> bool:
    if op.kind in ("clamp", "clamp_min", "hardtanh"):
        lower = dict(enumerate(op.node.args)).get(1, op.node.kwargs.get("min"))
        return isinstance(lower, int | float) and lower == 0
    return op.kind in ("relu", "relu6")
