"""Where the positions of an operation's result lie in its tensor: rows and columns, or a list of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from jaxtyping import Float
from torch import Tensor

from convscope.graph.calls import Call, batch_axes, shapes_at
from convscope.graph.traced import Operation, TracedGraph

_MAPS = ("conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "pixel_shuffle")
_MOVERS = ("roll", "flip", "index")  # they put other values where the old ones were


@dataclass(frozen=True)
class Positions:
    """The positions of a tensor whose axis 0 is the batch; what axis is left is that of the units.

    Attributes:
        axes: those of rows and columns, (2, 3) for most maps; or one axis that lists the positions row by row,
            as transformers do with their tokens.
        size: (rows, columns).
        first: where along a single axis the positions begin; tokens before it, such as a class token, have no
            place in the image. So have those after the last position.
    """

    axes: tuple[int, ...]
    size: tuple[int, int]
    first: int = 0

    def n_units(self, shape: tuple[int, ...]) -> int:
        """The number of units in a result of that shape, given without the batch."""
        return next(n for axis, n in enumerate(shape, start=1) if axis not in self.axes)

    def as_map(self, result: Float[Tensor, "N ..."]) -> Float[Tensor, "N U H W"]:
        """The operation's result as a map; tokens that have no place in the image are left out."""
        if len(self.axes) == 2:
            rows, columns = self.axes
            return result.permute(0, 6 - rows - columns, rows, columns)
        listed = result.movedim(self.axes[0], 2)
        return listed.narrow(2, self.first, prod(self.size)).unflatten(2, self.size)


def positions(graph: TracedGraph) -> dict[str, Positions]:
    """For each operation whose result has units and positions where they lie, in order of execution.

    Followed from the image on through permuting, flattening and joining. Where they are lost, as within
    attention, they are found again where the result is added to one that has them. Not of operations with
    several results, but of those that take them apart.

    Example:
        >>> positions(graph)["conv1"].size
        (32, 32)
    """
    height, width = graph.input_shape[1:]
    known = {graph.image: Positions((2, 3), (height, width))}
    for op in graph.operations:
        found = _found(op, Call(op.node, 1, known))
        if found is not None:
            known[op.node] = found
    single = (op for op in graph.operations if isinstance(op.node.meta["val"], Tensor))
    return {op.name: known[op.node] for op in single if op.node in known}


def _found(op: Operation, call: Call) -> Positions | None:
    shape = call.output_shape
    if batch_axes(op.node)[0] != 0 or shape[0] != 1:  # the batch has moved, or something is folded into it
        return None
    if len(shape) == 4 and (op.kind in _MAPS or op.kind.startswith("upsample")):
        return Positions((2, 3), (shape[2], shape[3]))
    if op.kind in ("permute", "transpose"):
        return _permuted(op.kind, call)
    if op.kind in ("flatten", "reshape"):
        return _reshaped(call)
    if op.kind == "concat":
        return _joined(call)
    stays = op.known and op.kind not in _MOVERS
    return next((source for source in call.inputs if stays and _fits(source, shape)), None)


def _permuted(kind: str, call: Call) -> Positions | None:
    source: Positions | None = call.input
    if source is None:
        return None
    order = list(range(len(call.output_shape)))
    if kind == "permute":
        order = [axis % len(order) for axis in call["dims"]]
    else:
        a, b = call["dim0"], call["dim1"]
        order[a], order[b] = order[b], order[a]
    return replace(source, axes=tuple(order.index(axis) for axis in source.axes))


def _reshaped(call: Call) -> Positions | None:
    """Rows and columns that become one axis, or one axis that becomes rows and columns; or nothing changes."""
    source: Positions | None = call.input
    if source is None or source.first:
        return None
    before, after, n = call.input_shape, call.output_shape, prod(source.size)
    start = source.axes[0]
    if before == after:
        return source
    if source.axes == (start, start + 1) and after == (*before[:start], n, *before[start + 2 :]):
        return Positions((start,), source.size)
    if len(source.axes) == 1 and after == (*before[:start], *source.size, *before[start + 1 :]):
        return Positions((start, start + 1), source.size)
    return None


def _joined(call: Call) -> Positions | None:
    """Joined along the units the positions stay; along a list of tokens they come after those before them."""
    axis = call["dim"] % len(call.output_shape)
    before = 0
    for node in call.arguments["tensors"]:
        source = call.values.get(node)
        if source is None:
            before += shapes_at(node, 1)[0][axis]
        elif axis not in source.axes:
            return source
        else:
            return replace(source, first=before + source.first) if len(source.axes) == 1 else None
    return None


def _fits(source: Positions, shape: tuple[int, ...]) -> bool:
    """Whether a result of that shape has room for the positions of one of its inputs, at the same axes."""
    if len(source.axes) == 2:
        return len(shape) == 4 and tuple(shape[axis] for axis in source.axes) == source.size
    return len(shape) == 3 and shape[source.axes[0]] >= source.first + prod(source.size)
