"""How far behind a layer its units stay apart: through operations that work on each unit by itself."""

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


class Block(NamedTuple):
    """Where the numbers of one unit lie along axis 1: unit u has `size` places, from `first` + u · `size` on."""

    first: int
    size: int

    def of(self, unit: int) -> slice:
        """The places of a unit."""
        start = self.first + unit * self.size
        return slice(start, start + self.size)

    def times(self, n: int) -> Block:
        """Where they lie once each place has become `n` places."""
        return Block(self.first * n, self.size * n)


def changed_by(graph: TracedGraph, layers: tuple[str, ...]) -> tuple[str, ...]:
    """The layers and all that depends on them, in order of execution."""
    found = set(layers)
    for op in graph.operations:
        if found.intersection(op.inputs):
            found.add(op.name)
    return tuple(op.name for op in graph.operations if op.name in found)


def apart(graph: TracedGraph, layer: str) -> dict[str, Block]:
    """The results in which each unit of a layer has a block of axis 1 that depends on no other unit of the layer.

    The layer's own comes first. From there on through batch norm, ReLU and other functions of single numbers, dropout,
    pools, cuts of the map, sums with what does not depend on the layer, concatenation along the units, flattening,
    convolutions of each unit by itself. None where the units of the layer itself do not lie along axis 1.
    """
    op = graph.operation(layer)
    if batch_axes(op.node) != (0,) or len(op.output_shape) not in (1, 3):
        return {}
    changed = set(changed_by(graph, (layer,)))
    found = {layer: Block(0, 1)}
    for op in graph.operations:
        names = [name for name in op.inputs if name in changed]
        if op.name == layer or not names or any(name not in found for name in names):
            continue
        block = _passed_on(op, {graph.operation(name).node: found[name] for name in names})
        if block is not None:
            found[op.name] = block
    return found


def _passed_on(op: Operation, sources: Mapping[Node, Block]) -> Block | None:
    """Where the units lie in a result, given where they lie in the inputs that change; None where they mix."""
    if batch_axes(op.node) != (0,) or any(len(shapes_at(node, 1)[0]) < 2 for node in (op.node, *sources)):
        return None
    if op.row.field is ELEMENTWISE:
        return _elementwise(op, sources)
    if len(sources) > 1:
        return None
    [(source, block)] = sources.items()
    if op.kind == "concat":
        return _concatenated(op, source, block)
    before, after = shapes_at(source, 1)[0], shapes_at(op.node, 1)[0]
    if op.node.args[0] is not source or before[0] != 1 or after[0] != 1:
        return None
    if op.kind in _RESHAPES:
        return _reshaped(before, after, block)
    if op.kind == "conv":
        return _of_each_alone(op, sources, before[1], after[1], block)
    return block if after[1] == before[1] and _keeps_axis_1(op, len(before)) else None


def _elementwise(op: Operation, sources: Mapping[Node, Block]) -> Block | None:
    after = shapes_at(op.node, 1)[0]
    blocks, shapes = set(sources.values()), [shapes_at(node, 1)[0] for node in sources]
    aligned = all(len(shape) == len(after) and shape[1] == after[1] for shape in shapes)
    return blocks.pop() if aligned and len(blocks) == 1 else None


def _concatenated(op: Operation, source: Node, block: Block) -> Block | None:
    call = Call(op.node, 1)
    tensors = list(call.arguments["tensors"])
    if call["dim"] % len(call.output_shape) != 1 or tensors.count(source) > 1:
        return None
    ahead = tensors[: tensors.index(source)]
    return block._replace(first=block.first + sum(shapes_at(node, 1)[0][1] for node in ahead))


def _reshaped(before: tuple[int, ...], after: tuple[int, ...], block: Block) -> Block | None:
    """Axis 1 stays, or takes in all axes behind it."""
    if prod(before) != prod(after) or (after[1] != before[1] and len(after) != 2):
        return None
    return block.times(after[1] // before[1])


def _of_each_alone(op: Operation, sources: Mapping[Node, Block], n_in: int, n_out: int, block: Block) -> Block | None:
    call = Call(op.node, 1)
    own_weights = call.arguments["weight"] not in sources
    return block.times(n_out // n_in) if own_weights and call["groups"] == n_in else None


def _keeps_axis_1(op: Operation, n_axes: int) -> bool:
    call = Call(op.node, 1)
    if str(op.node.target) in _REDUCED:
        return all(axis % n_axes > 1 for axis in call["dim"] or [0])
    if op.kind == "batch_norm":
        return "training" in call and not call["training"]
    if op.kind == "slice":
        return call["dim"] % n_axes > 1
    if op.kind == "pad":
        return len(call["pad"]) <= 2 * (n_axes - 2)
    return n_axes == 4 and (op.kind in (*_POOLS, "instance_norm") or op.kind.startswith("upsample"))
