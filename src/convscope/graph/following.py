"""What follows a layer: the ReLU that its units pass through, and where they are read."""

from __future__ import annotations

from convscope.graph import bounds
from convscope.graph.traced import Operation, TracedGraph

_UNITWISE = frozenset({"batch_norm", "dropout", "alias", "clone", "contiguous", "detach"})
"""Operations that leave each unit by itself at its position, and so may stand between a layer and its ReLU."""


def relu_after(graph: TracedGraph, layer: str) -> str | None:
    """The ReLU (or another function that cuts at zero, such as ReLU6) that takes what the layer gives, and nothing else.

    Between the two there may be batch norm and dropout. The layer itself, where it is one; None where none follows, such as
    before a sum of two branches.

    Raises:
        UnknownNameError: there is no such layer; the message lists those there are.

    Example:
        >>> relu_after(graph, "conv1")
        'relu1'
    """
    op = graph.operation(layer)
    while not cuts_at_zero(op):
        reader = _only_reader(graph, op)
        if reader is None or not (cuts_at_zero(reader) or reader.kind in _UNITWISE):
            return None
        op = reader
    return op.name


def where_read(graph: TracedGraph, layer: str) -> str:
    """The operation that gives a layer's units as the next layer reads them: the ReLU that follows, see `relu_after`.

    Where none does, the batch norm right behind the layer, and without one the layer itself.

    Raises:
        UnknownNameError: there is no such layer; the message lists those there are.

    Example:
        >>> where_read(graph, "conv1"), where_read(graph, "fc1")
        ('relu1', 'fc1')
    """
    if (relu := relu_after(graph, layer)) is not None:
        return relu
    reader = _only_reader(graph, graph.operation(layer))
    return reader.name if reader is not None and reader.kind == "batch_norm" else layer


def _only_reader(graph: TracedGraph, op: Operation) -> Operation | None:
    """The operation that takes this result and nothing else, where no other takes it."""
    readers = [reader for reader in graph.operations if op.name in reader.inputs]
    return readers[0] if len(readers) == 1 and len(readers[0].inputs) == 1 else None


def cuts_at_zero(op: Operation) -> bool:
    """Whether it is a ReLU, or another function that gives 0 for what is negative, such as ReLU6."""
    if op.kind in ("clamp", "clamp_min", "hardtanh"):
        lower = dict(enumerate(op.node.args)).get(1, op.node.kwargs.get("min"))
        return isinstance(lower, int | float) and lower == 0
    return op.kind in ("relu", "relu6")


def moves_values(op: Operation) -> bool:
    """Whether it gives values as they are, elsewhere: reshaping, slicing, joining, padding."""
    return op.row.field.bounds in (bounds.moved, bounds.part)
