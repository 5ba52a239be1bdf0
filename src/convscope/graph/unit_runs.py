"""A network run with one unit of a layer ablated at a time: only what lies behind the layer, for many units at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.fx import Node

from convscope.errors import RequestError
from convscope.graph.boxes import laid_out
from convscope.graph.calls import Call, batch_axes, is_tensor_node, shapes_at
from convscope.graph.interventions import Intervention
from convscope.graph.table import ELEMENTWISE
from convscope.graph.traced import INPUT, Operation, TracedGraph


class UnitOutputs(NamedTuple):
    """The network's outputs for images of a batch, by their places in it, each with one unit of the layer ablated."""

    unit: Int[Tensor, " R"]
    image: Int[Tensor, " R"]
    outputs: Float[Tensor, "R K"]


class UnitRuns:
    """A traced network that runs with the units of an intervention ablated one at a time, on known results of a batch.

    Behind the layer its units stay separate for a while (`separate_units`), so one run of that part serves all of them.
    Images to which a unit makes no difference need nothing more. The convolutions and dense layers that read the unit
    there are linear: what they gave changes by what they make of the difference in that unit alone, one input unit's
    share of their work. From there on the network runs as it is.

    Units are replaced in the result of every call of the intervention. Where there are several (a module that is used
    again), or the units do not lie along axis 1, all from the first call on is run.

    Attributes:
        needs: names of the results that have to be known of a batch; "input" is the image, as the network takes it.
        values_each: the values of the largest result that is computed for each image and unit.

    Raises:
        RequestError: an operation behind the layer mixes the images of a batch.

    Example:
        >>> runs = UnitRuns(graph, intervention)
        >>> for rows in runs.run(graph.run(images, runs.needs), n_rows=32):
        ...     rows.unit, rows.image, rows.outputs
    """

    def __init__(self, graph: TracedGraph, intervention: Intervention) -> None:
        self.graph, self.intervention, self.output = graph, intervention, graph.outputs[0]
        calls = intervention.calls
        changed = changed_by(graph, calls)
        needed = {op.name for op in graph.needed_for(self.output)} & set(changed)
        one_block_each = len(calls) == 1 and intervention.unit_axis == 1
        separate = separate_units(graph, calls[0]) if one_block_each else {}
        self.blocks = {name: block for name, block in separate.items() if name in needed}
        rest = [op for op in graph.operations if op.name in needed and op.name not in self.blocks]
        for op in rest:
            if op.kind == "batch_norm" and Call(op.node, 1).arguments.get("training"):
                raise RequestError(
                    f"layer {op.name!r} normalizes by the batch it is in (track_running_stats=False), so an image has no "
                    "answer of its own to compare; ablate units in a network with running statistics"
                )
        linear = {op.name: _linear_of(graph, op, self.blocks) for op in rest}
        self.linear = {name: each for name, each in linear.items() if each is not None}
        read = {name for op in rest if op.name not in self.linear for name in op.inputs} | {self.output}
        self.whole = tuple(name for name in self.blocks if name in read)
        self.edge = tuple(dict.fromkeys((*self.whole, *(each.source for each in self.linear.values()))))
        self.beside = self._with_rows(read - set(changed))
        inputs = {i for name in self.blocks if name not in calls for i in graph.operation(name).inputs}
        self.beside_units = tuple(sorted(inputs - set(changed)))
        self.needs = tuple(dict.fromkeys((*self.edge, *self.linear, *self.beside, *self.beside_units)))
        computed = [op for op in graph.operations if op in rest or op.name in self.whole]
        self.values_each = max((sum(map(prod, shapes_at(op.node, 1))) for op in computed), default=1)

    @torch.no_grad()
    def run(self, known: Mapping[str, Tensor], n_rows: int) -> Iterator[UnitOutputs]:
        """The network's outputs with each chosen unit ablated, where that can make a difference.

        For an image and unit that are not among them the outputs are as without the intervention, exactly.

        Args:
            known: results of the batch, all that it `needs`.
            n_rows: images and units that are worked on at once.
        """
        known = {name: laid_out(known[name]) for name in self.needs}
        values = self.intervention.values.to(next(iter(known.values())))
        after = self._ablated(known, values)
        weights = {name: self.graph.constant(each.weight, 1) for name, each in self.linear.items()}
        changes = {each.source: after[each.source] - known[each.source] for each in self.linear.values()}
        batch = _Batch(known, after, changes, weights, values)
        units = torch.tensor(self.intervention.units, device=values.device)
        place, image = self._differs(batch).T[units].nonzero().unbind(1)
        unit = units[place]
        for start in range(0, len(unit), n_rows):
            part = _Part(unit[start : start + n_rows], image[start : start + n_rows])
            yield UnitOutputs(part.unit.cpu(), part.image.cpu(), self._outputs(batch, part))

    def _ablated(self, known: Mapping[str, Tensor], values: Tensor) -> dict[str, Tensor]:
        """The results at the edge with every unit ablated: all at once, for none depends on another."""
        if not self.edge:
            return {}
        n, [call] = len(known[self.edge[0]]), self.intervention.calls
        shape = self.graph.operation(call).output_shape
        replaced = values.view(1, -1, *[1] * (len(shape) - 1)).expand(n, *shape)
        beside = {name: known[name] for name in self.beside_units}
        images = beside.pop(INPUT, None)
        results = self.graph.run(images, self.edge, given={call: replaced, **beside})
        return {name: laid_out(result) for name, result in results.items()}

    def _differs(self, batch: _Batch) -> Bool[Tensor, "N U"]:
        """Whether a unit's ablation makes a difference to an image at the edge."""
        n, n_units = len(next(iter(batch.known.values()))), len(batch.values)
        differs = torch.full((n, n_units), not self.blocks, device=batch.values.device)
        for name in self.edge:
            block = self.blocks[name]
            places = (batch.after[name] != batch.known[name]).narrow(1, block.first, n_units * block.size)
            differs |= places.reshape(n, n_units, -1).any(2)
        return differs

    def _outputs(self, batch: _Batch, part: _Part) -> Tensor:
        known = batch.known
        results = {name: known[name][part.image] for name in self.beside}
        results |= {name: part.replaced(known[name], batch.after[name], self.blocks[name]) for name in self.whole}
        for name, each in self.linear.items():
            results[name] = each.changed(known[name][part.image], batch.changes[each.source], batch.weights[name], part)
        axis = self.intervention.unit_axis

        def ablate(operator: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
            result = operator(*args, **kwargs).movedim(axis, 1).clone()
            rows = torch.arange(len(part.unit), device=result.device)
            result[rows, part.unit] = batch.values[part.unit].view(-1, *[1] * (result.ndim - 2))
            return result.movedim(1, axis)

        instead = {} if self.blocks else dict.fromkeys(self.intervention.calls, ablate)
        return self.graph.run(results.pop(INPUT, None), [self.output], results, instead)[self.output]

    def _with_rows(self, read: set[str]) -> tuple[str, ...]:
        """What has to be known for some results that do not change: themselves, or where they have no row for each
        image (it lies along another axis, or they are several) what they are made from."""
        with_rows, pending = set(), set(read)
        while pending:
            name = pending.pop()
            if name == INPUT or _has_rows(self.graph.operation(name)):
                with_rows.add(name)
            else:
                pending.update(self.graph.operation(name).inputs)
        return tuple(sorted(with_rows))


class _Batch(NamedTuple):
    """What the rows of a batch are computed from."""

    known: dict[str, Tensor]  # its results as the network is
    after: dict[str, Tensor]  # those at the edge, with every unit ablated
    changes: dict[str, Tensor]  # by how much they differ, where a linear operation reads them
    weights: dict[str, Tensor]  # of the linear operations
    values: Tensor  # what the layer gives for each unit


class _Part(NamedTuple):
    """Rows that are worked on at once, those of a unit one after another."""

    unit: Int[Tensor, " R"]
    image: Int[Tensor, " R"]

    def replaced(self, before: Tensor, after: Tensor, block: UnitPlaces) -> Tensor:
        """A result with one unit ablated in each row."""
        places = block.first + self.unit[:, None] * block.size + torch.arange(block.size, device=self.unit.device)
        rows, image = torch.arange(len(self.unit), device=self.unit.device)[:, None], self.image[:, None]
        result = before[self.image]
        result[rows, places] = after[image, places]
        return result

    def by_unit(self) -> Iterator[tuple[int, slice]]:
        units, counts = (each.tolist() for each in self.unit.unique_consecutive(return_counts=True))
        start = 0
        for unit, n in zip(units, counts, strict=True):
            yield unit, slice(start, start + n)
            start += n


@dataclass(frozen=True)
class _Linear:
    """A convolution or dense layer that reads units that are still separate."""

    source: str  # the name of what it reads
    weight: Any
    block: UnitPlaces  # where the units lie there
    groups: int  # of the units it reads, none of whose blocks lies in two
    apply: Callable[[Tensor, Tensor], Tensor]  # it without bias, on part of its input, with the weights of that part

    def changed(self, before: Tensor, change: Tensor, weight: Tensor, part: _Part) -> Tensor:
        """What it gives for each row: what it gave, in memory of its own, and what it makes of the unit's change."""
        n_in, n_out = weight.shape[1], weight.shape[0] // self.groups  # of one group
        for unit, rows in part.by_unit():
            places = self.block.of(unit)
            group = places.start // n_in
            outs = slice(group * n_out, (group + 1) * n_out)
            own = slice(places.start - group * n_in, places.stop - group * n_in)
            unit_change = laid_out(change[:, places][part.image[rows]])
            before[rows, outs] += self.apply(unit_change, laid_out(weight[outs, own]))
        return before


def _linear_of(graph: TracedGraph, op: Operation, blocks: Mapping[str, UnitPlaces]) -> _Linear | None:
    """The operation, where it reads one result whose units are still separate, and is linear in it."""
    source = op.inputs[0]
    if op.inputs != (source,) or source not in blocks or op.node.args[0] is not graph.operation(source).node:
        return None
    call, block = Call(op.node, 1), blocks[source]
    if op.kind == "dense" and len(call.input_shape) == 2 and is_tensor_node(call.arguments["weight"]):
        return _Linear(source, call.arguments["weight"], block, 1, torch.nn.functional.linear)
    if op.kind != "conv":
        return None
    groups, n_in = call["groups"], call.shape("weight")[1]
    if groups > 1 and (n_in % block.size or block.first % block.size):
        return None
    settings = [call[name] for name in ("stride", "padding", "dilation")]
    operator: Any = op.node.target
    return _Linear(
        source, call.arguments["weight"], block, groups, lambda part, weight: operator(part, weight, None, *settings, 1)
    )


def _has_rows(op: Operation) -> bool:
    return batch_axes(op.node) == (0,) and shapes_at(op.node, 1)[0][0] == 1


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
    changed = set(layers)
    for op in graph.operations:
        if changed.intersection(op.inputs):
            changed.add(op.name)
    return tuple(op.name for op in graph.operations if op.name in changed)


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
    if op.kind in _POOLS:
        return n_axes == 4 and call.n_spatial == 2
    return n_axes == 4 and (op.kind == "instance_norm" or op.kind.startswith("upsample"))
