"""How far behind a layer its units stay separate: through operations that work on each unit by itself."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from torch.fx import Node

from convscope.graph.calls import Call, batch_axes, shapes_at
from convscope.graph.table import ELEMENTWISE
from convscope.graph.traced import Operation, TracedGraph

_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
_RESHAPES = ("flatten", "reshape", "squeeze", "unsqueeze")
_REDUCED = ("aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default", "aten.amin.default")


class UnitPlaces(NamedTuple):
    """Where the numbers of one unit lie along axis 1: unit u has `size` places, from `first` + u · `size` on."""

    first: int
    size: int

    def of(self, unit: int) -> slice:
        """The places of a unit."""
        start = self.first + unit * self.size
        return slice(start, start + self.size)

    def times(self, n: int) -> UnitPlaces:
        """Where they lie once each place has become `n` places."""
        return UnitPlaces(self.first * n, self.size * n)


def changed_by(graph: TracedGraph, layers: tuple[str, ...]) -> tuple[str, ...]:
    """The layers and all that depends on them, in order of execution."""
    found = set(layers)
    for op in graph.operations:
        if found.intersection(op.inputs):
            found.add(op.name)
    return tuple(op.name for op in graph.operations if op.name in found)


def separate_units(graph: TracedGraph, layer: str) -> dict[str, UnitPlaces]:
    """The results in which each unit of a layer has a block of axis 1 that depends on no other unit of the layer.

    The layer's own comes first. From there on through batch norm, ReLU and other functions of single numbers, dropout,
    pools, cuts of the map, sums with what does not depend on the layer, concatenation along the units, flattening,
    convolutions of each unit by itself. None where the units of the layer itself do not lie along axis 1.
    """
    op = graph.operation(layer)
    if batch_axes(op.node) != (0,) or len(op.output_shape) not in (1, 3):
        return {}
    changed = set(changed_by(graph, (layer,)))
    blocks = {layer: UnitPlaces(0, 1)}
    for op in graph.operations:
        names = [name for name in op.inputs if name in changed]
        if op.name == layer or not names or any(name not in blocks for name in names):
            continue
        block = _passed_on(op, {graph.operation(name).node: blocks[name] for name in names})
        if block is not None:
            blocks[op.name] = block
    return blocks


def _passed_on(op: Operation, sources: Mapping[Node, UnitPlaces]) -> UnitPlaces | None:
    """Where the units lie in a result, given where they lie in the inputs that change; None where they mix."""
    if batch_axes(op.node) != (0,) or any(len(shapes_at(node, 1)[0]) < 2 for node in (op.node, *sources)):
        return None
    after = shapes_at(op.node, 1)[0]
    if op.row.field is ELEMENTWISE:
        shapes = [shapes_at(node, 1)[0] for node in sources]
        aligned = all(len(shape) == len(after) and shape[1] == after[1] for shape in shapes)
        return next(iter(sources.values())) if aligned and len(set(sources.values())) == 1 else None
    if len(sources) > 1:
        return None
    [(source, block)] = sources.items()
    call, before = Call(op.node, 1), shapes_at(source, 1)[0]
    if op.kind == "concat":
        return _concatenated(call, source, block)
    if op.node.args[0] is not source or before[0] != 1 or after[0] != 1:
        return None
    if op.kind in _RESHAPES:  # axis 1 stays, or takes in all axes behind it
        fits = prod(before) == prod(after) and (after[1] == before[1] or len(after) == 2)
        return block.times(after[1] // before[1]) if fits else None
    if op.kind == "conv":  # of each unit alone
        own_weights = call.arguments["weight"] is not source
        return block.times(after[1] // before[1]) if own_weights and call["groups"] == before[1] else None
    return block if after[1] == before[1] and _keeps_axis_1(op, call, len(before)) else None


def _concatenated(call: Call, source: Node, block: UnitPlaces) -> UnitPlaces | None:
    tensors = list(call.arguments["tensors"])
    if call["dim"] % len(call.output_shape) != 1 or tensors.count(source) > 1:
        return None
    ahead = tensors[: tensors.index(source)]
    return block._replace(first=block.first + sum(shapes_at(node, 1)[0][1] for node in ahead))


def _keeps_axis_1(op: Operation, call: Call, n_axes: int) -> bool:
    if str(op.node.target) in _REDUCED:
        return all(axis % n_axes > 1 for axis in call["dim"] or [0])
    if op.kind == "batch_norm":
        return "training" in call and not call["training"]
    if op.kind == "slice":
        return call["dim"] % n_axes > 1
    if op.kind == "pad":
        return len(call["pad"]) <= 2 * (n_axes - 2)
    return n_axes == 4 and (op.kind in (*_POOLS, "instance_norm") or op.kind.startswith("upsample"))
