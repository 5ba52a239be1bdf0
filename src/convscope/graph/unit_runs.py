"""A network run with one unit of a layer ablated at a time: only what lies behind the layer, for many units at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
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
        changed = graph.depending_on(calls)
        needed = {op.name for op in graph.needed_for(self.output)} & changed
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
        self.beside = self._with_rows(read - changed)
        inputs = {i for name in self.blocks if name not in calls for i in graph.operation(name).inputs}
        self.beside_units = tuple(sorted(inputs - changed))
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
        changes = {each.source: after[each.source] - known[each.source] for each in self.linear.values()}
        weights = {name: self.graph.constant(each.weight, 1) for name, each in self.linear.items()}
        units = torch.tensor(self.intervention.units, device=values.device)
        places, images = self._differs(known, after, values)[:, units].T.nonzero().unbind(1)
        for start in range(0, len(images), n_rows):
            unit, image = units[places[start : start + n_rows]], images[start : start + n_rows]
            results = {name: known[name][image] for name in (*self.beside, *self.linear, *self.whole)}
            for name in self.whole:
                self.blocks[name].fill(results[name], after[name], unit, image)
            for name, each in self.linear.items():
                each.add(results[name], changes[each.source], weights[name], unit, image)
            pixels, instead = results.pop(INPUT, None), self._instead(unit, values)
            outputs = self.graph.run(pixels, [self.output], results, instead)[self.output]
            del results  # else the next rows take other memory than these, which is slower
            yield UnitOutputs(unit.cpu(), image.cpu(), outputs)

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

    def _differs(self, known: Mapping[str, Tensor], after: Mapping[str, Tensor], values: Tensor) -> Bool[Tensor, "N U"]:
        """Whether a unit's ablation makes a difference to an image at the edge."""
        n, n_units = len(next(iter(known.values()))), len(values)
        differs = torch.full((n, n_units), not self.blocks, device=values.device)
        for name in self.edge:
            block = self.blocks[name]
            places = (after[name] != known[name]).narrow(1, block.first, n_units * block.size)
            differs |= places.reshape(n, n_units, -1).any(2)
        return differs

    def _instead(self, unit: Int[Tensor, " R"], values: Tensor) -> dict[str, Callable[..., Tensor]]:
        """The calls with one unit ablated in each row, where units do not stay separate behind them."""

        def ablate(operator: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
            result = operator(*args, **kwargs).movedim(self.intervention.unit_axis, 1).clone()
            rows = torch.arange(len(unit), device=result.device)
            result[rows, unit] = values[unit].view(-1, *[1] * (result.ndim - 2))
            return result.movedim(1, self.intervention.unit_axis)

        return {} if self.blocks else dict.fromkeys(self.intervention.calls, ablate)

    def _with_rows(self, read: set[str]) -> tuple[str, ...]:
        """What has to be known for some results that do not change: themselves, or where they have no row for each
        image (it lies along another axis, or they are several) what they are made from."""
        with_rows, pending = set(), set(read)
        while pending:
            name = pending.pop()
            if name == INPUT:
                with_rows.add(name)
                continue
            op = self.graph.operation(name)
            if batch_axes(op.node) == (0,) and shapes_at(op.node, 1)[0][0] == 1:
                with_rows.add(name)
            else:
                pending.update(op.inputs)
        return tuple(sorted(with_rows))


@dataclass(frozen=True)
class _Linear:
    """A convolution or dense layer that reads units that are still separate."""

    source: str  # the name of what it reads
    weight: Any
    block: UnitPlaces  # where the units lie there
    groups: int  # of the units it reads, none of whose blocks lies in two
    operator: Callable[..., Tensor]
    settings: Sequence[Any]  # for part of the input and the weights of that part

    def add(self, rows: Tensor, change: Tensor, weight: Tensor, unit: Tensor, image: Tensor) -> None:
        """Adds to what it gave for each row what it makes of the unit's change."""
        n_in, n_out = weight.shape[1], weight.shape[0] // self.groups  # of one group
        units, counts = (each.tolist() for each in unit.unique_consecutive(return_counts=True))
        for one, n, stop in zip(units, counts, accumulate(counts), strict=True):
            of_unit = slice(stop - n, stop)
            places = self.block.of(one)
            group = places.start // n_in
            outs = slice(group * n_out, (group + 1) * n_out)
            own = slice(places.start - group * n_in, places.stop - group * n_in)
            part, part_weight = laid_out(change[:, places][image[of_unit]]), laid_out(weight[outs, own])
            rows[of_unit, outs] += self.operator(part, part_weight, None, *self.settings)


def _linear_of(graph: TracedGraph, op: Operation, blocks: Mapping[str, UnitPlaces]) -> _Linear | None:
    """The operation, where it reads one result whose units are still separate, and is linear in it."""
    source = op.inputs[0]
    if op.inputs != (source,) or source not in blocks or op.node.args[0] is not graph.operation(source).node:
        return None
    call, block, groups, settings = Call(op.node, 1), blocks[source], 1, list[Any]()
    if op.kind == "conv":
        groups = call["groups"]
        settings = [*(call[name] for name in ("stride", "padding", "dilation")), 1]
    elif op.kind != "dense" or len(call.input_shape) != 2 or not is_tensor_node(call.arguments["weight"]):
        return None
    if groups > 1 and (call.shape("weight")[1] % block.size or block.first % block.size):
        return None
    operator: Any = op.node.target
    return _Linear(source, call.arguments["weight"], block, groups, operator, settings)


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

    def fill(self, rows: Tensor, after: Tensor, unit: Int[Tensor, " R"], image: Int[Tensor, " R"]) -> None:
        """Puts into each of some rows the places that one unit has for an image in another result."""
        places = self.first + unit[:, None] * self.size + torch.arange(self.size, device=unit.device)
        rows[torch.arange(len(unit), device=unit.device)[:, None], places] = after[image[:, None], places]

    def times(self, n: int) -> UnitPlaces:
        """Where they lie once each place has become `n` places."""
        return UnitPlaces(self.first * n, self.size * n)


def separate_units(graph: TracedGraph, layer: str) -> dict[str, UnitPlaces]:
    """The results in which each unit of a layer has a block of axis 1 that depends on no other unit of the layer.

    The layer's own comes first. From there on through batch norm, ReLU and other functions of single numbers, dropout,
    pools, cuts of the map, sums with what does not depend on the layer, concatenation along the units, flattening,
    convolutions of each unit by itself. None where the units of the layer itself do not lie along axis 1.
    """
    op = graph.operation(layer)
    if batch_axes(op.node) != (0,) or len(op.output_shape) not in (1, 3):
        return {}
    changed = graph.depending_on([layer])
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
