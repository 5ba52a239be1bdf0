"""The layers that a scan looks at: their units and positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from convscope.graph import Positions, TracedGraph, positions
from convscope.lenses import count_units, layers_with_units


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
        maps = self.where.as_map(result) if self.where else result[..., None]
        maps = maps if maps.element_size() >= 4 else maps.float()
        return maps.flatten(2).contiguous()


def layer_maps(graph: TracedGraph, layers: Sequence[str]) -> list[LayerMap]:
    """Those that are meant by names, patterns or kinds, in the network's order; see `convscope.lenses.select_layers`.

    Raises:
        UnknownNameError: one of them means no layer; the message lists those there are.
        RequestError: a layer's units are not known.
    """
    positions_of = positions(graph)
    pairs = [(graph.operation(name), positions_of.get(name)) for name in layers_with_units(graph, layers)]
    return [LayerMap(op.name, count_units(op, where), where.size if where else (1, 1), where) for op, where in pairs]
