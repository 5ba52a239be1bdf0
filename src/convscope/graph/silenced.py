"""A network run with one unit of a layer silenced at a time: only what lies behind the layer, for many units at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph.calls import Call, batch_axes, is_tensor_node, shapes_at
from convscope.graph.traced import INPUT, Operation, TracedGraph
from convscope.graph.unitwise import Block, apart, changed_by


class Rows(NamedTuple):
    """What the network answers to images of a batch, each with one unit silenced.

    Attributes:
        unit: of the layer.
        image: its place in the batch.
        outputs: the network's.
    """

    unit: Int[Tensor, " R"]
    image: Int[Tensor, " R"]
    outputs: Float[Tensor, "R K"]


class Silenced:
    """A layer of a traced network whose units can be silenced, one at a time, on what is remembered of a batch.

    Behind the layer its units stay apart for a while (`apart`), so one run of that part shows what becomes of each of
    them. Images that it makes no difference to need nothing more. The convolutions and dense layers that read the unit
    there are linear: what they gave changes by what they make of the difference in that unit alone, one input unit's
    share of their work. From there on the network runs as it is.

    Units are silenced in the result of every call in `calls`. Where there are several (a module that is used again), or
    the units do not lie along axis 1, all from the first call on is run.

    Args:
        graph: the traced network.
        calls: names of the operations; more than one where they share their filters.
        unit_axis: of their results, counted with the batch's.

    Attributes:
        needs: names of the results to remember of a batch; "input" is the image, as the network takes it.
        values_each: the values of the largest result that is worked out for each image and unit.

    Raises:
        RequestError: an operation behind the layer mixes the images of a batch.

    Example:
        >>> silenced = Silenced(graph, ("conv3",))
        >>> for rows in silenced.run(graph.run(images, silenced.needs), torch.zeros(128), range(128), n_rows=32):
        ...     rows.unit, rows.image, rows.outputs
    """

    def __init__(self, graph: TracedGraph, calls: tuple[str, ...], unit_axis: int = 1) -> None:
        self.graph, self.calls, self.unit_axis = graph, calls, unit_axis
        self.output = graph.outputs[0]
        changed = changed_by(graph, calls)
        needed = {op.name for op in graph.needed_for(self.output)} & set(changed)
        followed = apart(graph, calls[0]) if len(calls) == 1 and unit_axis == 1 else {}
        self.blocks = {name: block for name, block in followed.items() if name in needed}
        rest = [op for op in graph.operations if op.name in needed and op.name not in self.blocks]
        _refuse_mixed_images(rest)
        self.linear = self._linear(rest)
        run = [op for op in rest if op.name not in self.linear]
        read = {name for op in run for name in op.inputs} | {self.output}
        self.whole = tuple(name for name in self.blocks if name in read)
        self.edge = tuple(dict.fromkeys((*self.whole, *(each.source for each in self.linear.values()))))
        self.beside = self._beside(read - set(changed))
        followed_inputs = {i for name in self.blocks if name not in calls for i in graph.operation(name).inputs}
        self.beside_units = tuple(sorted(followed_inputs - set(changed)))
        self.needs = tuple(dict.fromkeys((*self.edge, *self.linear, *self.beside, *self.beside_units)))
        self.values_each = max((_size(op) for op in graph.operations if op in rest or op.name in self.whole), default=1)

    def run(
        self, remembered: Mapping[str, Tensor], values: Float[Tensor, " U"], units: Sequence[int], n_rows: int
    ) -> Iterator[Rows]:
        """The network's answers with each of some units silenced, where that can make a difference.

        Of an image and unit that are not among them the answer is as it was, exactly.

        Args:
            remembered: results of the batch, of all that the layer `needs`.
            values: what the layer gives for each of its units when silenced, at all positions.
            units: those to silence.
            n_rows: images and units that are worked on at once.
        """
        batch, unit, image = self._made_ready(remembered, values, units)
        for start in range(0, len(unit), n_rows):
            part = _Part(unit[start : start + n_rows], image[start : start + n_rows])
            yield Rows(part.unit.cpu(), part.image.cpu(), self._outputs(batch, part))

    @torch.no_grad()
    def _made_ready(
        self, remembered: Mapping[str, Tensor], values: Tensor, units: Sequence[int]
    ) -> tuple[_Batch, Tensor, Tensor]:
        """What all rows of a batch are worked out from; and the unit and image of each."""
        known = {name: _laid_out(remembered[name]) for name in self.needs}
        values = values.to(next(iter(known.values())))
        after = self._silent(known, values)
        changes = {name: after[name] - known[name] for name in self.edge}
        weights = {name: self.graph.constant(each.weight, 1) for name, each in self.linear.items()}
        chosen = torch.tensor(units, device=values.device)
        place, image = self._differs(known, after, len(values)).T[chosen].nonzero().unbind(1)
        return _Batch(known, after, changes, weights, values), chosen[place], image

    def _silent(self, known: Mapping[str, Tensor], values: Tensor) -> dict[str, Tensor]:
        """What becomes of every unit at the edge when it is silent: all are, for none is told of another."""
        if not self.edge:
            return {}
        n, [call] = len(known[self.edge[0]]), self.calls
        shape = self.graph.operation(call).output_shape
        silent = values.view(1, -1, *[1] * (len(shape) - 1)).expand(n, *shape)
        beside = {name: known[name] for name in self.beside_units}
        images = beside.pop(INPUT, None)
        found = self.graph.run(images, self.edge, given={call: silent, **beside})
        return {name: _laid_out(result) for name, result in found.items()}

    def _differs(self, known: Mapping[str, Tensor], after: Mapping[str, Tensor], n_units: int) -> Bool[Tensor, "N U"]:
        """Whether silencing a unit makes a difference to an image at the edge."""
        some = next(iter(known.values()))
        found = torch.full((len(some), n_units), not self.blocks, device=some.device)
        for name in self.edge:
            block = self.blocks[name]
            differs = (after[name] != known[name]).narrow(1, block.first, n_units * block.size)
            found |= differs.reshape(len(differs), n_units, -1).any(2)
        return found

    def _replaced(self, name: str, before: Tensor, after: Tensor, part: _Part) -> Tensor:
        """A result with one unit silent in each row."""
        block = self.blocks[name]
        places = block.first + part.unit[:, None] * block.size + torch.arange(block.size, device=part.unit.device)
        rows, image = torch.arange(len(part.unit), device=part.unit.device)[:, None], part.image[:, None]
        found = before[part.image]
        found[rows, places] = after[image, places]
        return found

    @torch.no_grad()
    def _outputs(self, batch: _Batch, part: _Part) -> Tensor:
        known, values = batch.known, batch.values
        given = {name: known[name][part.image] for name in self.beside}
        given |= {name: self._replaced(name, known[name], batch.after[name], part) for name in self.whole}
        for name, each in self.linear.items():
            given[name] = each.changed(known[name][part.image], batch.changes[each.source], batch.weights[name], part)
        images = given.pop(INPUT, None)

        def silence(operator: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
            found = operator(*args, **kwargs).movedim(self.unit_axis, 1).clone()
            rows = torch.arange(len(part.unit), device=found.device)
            found[rows, part.unit] = values[part.unit].view(-1, *[1] * (found.ndim - 2))
            return found.movedim(1, self.unit_axis)

        instead = {} if self.blocks else dict.fromkeys(self.calls, silence)
        return self.graph.run(images, [self.output], given, instead)[self.output]

    def _beside(self, read: set[str]) -> tuple[str, ...]:
        """What to remember for some results that do not change: themselves, or where they have no row for each image
        (it lies along another axis, or they are several) what they are made from."""
        found, pending = set(), set(read)
        while pending:
            name = pending.pop()
            if name == INPUT or _has_rows(self.graph.operation(name)):
                found.add(name)
            else:
                pending.update(self.graph.operation(name).inputs)
        return tuple(sorted(found))

    def _linear(self, rest: Sequence[Operation]) -> dict[str, _Linear]:
        """The operations that read units that are still apart, and are linear in them alone."""
        found = {}
        for op in rest:
            source = op.inputs[0]
            if (
                op.inputs == (source,)
                and source in self.blocks
                and op.node.args[0] is self.graph.operation(source).node
            ):
                each = _linear_of(op, source, self.blocks[source])
                if each is not None:
                    found[op.name] = each
        return found


class _Batch(NamedTuple):
    """What the rows of a batch are worked out from.

    Attributes:
        known: what is remembered of it.
        after: the results at the edge, with every unit silent.
        changes: by how much they differ.
        weights: of the linear operations.
        values: what the layer gives for each unit.
    """

    known: dict[str, Tensor]
    after: dict[str, Tensor]
    changes: dict[str, Tensor]
    weights: dict[str, Tensor]
    values: Tensor


class _Part(NamedTuple):
    """Rows that are worked on at once, those of a unit one after another."""

    unit: Int[Tensor, " R"]
    image: Int[Tensor, " R"]

    def by_unit(self) -> Iterator[tuple[int, slice]]:
        units, counts = (found.tolist() for found in self.unit.unique_consecutive(return_counts=True))
        start = 0
        for unit, n in zip(units, counts, strict=True):
            yield unit, slice(start, start + n)
            start += n


@dataclass(frozen=True)
class _Linear:
    """A convolution or dense layer that reads units that are still apart.

    Attributes:
        source: the name of what it reads.
        block: where the units lie there.
        groups: of the units it reads, none of whose blocks lies in two.
        apply: it without bias, on part of its input, with the weights of that part.
    """

    source: str
    weight: Any
    block: Block
    groups: int
    apply: Callable[[Tensor, Tensor], Tensor]

    def changed(self, before: Tensor, change: Tensor, weight: Tensor, part: _Part) -> Tensor:
        """What it gives for each row: what it gave, in memory of its own, and what it makes of the unit's change."""
        n_in, n_out = weight.shape[1], weight.shape[0] // self.groups  # of one group
        for unit, rows in part.by_unit():
            places = self.block.of(unit)
            group = places.start // n_in
            outs = slice(group * n_out, (group + 1) * n_out)
            own = slice(places.start - group * n_in, places.stop - group * n_in)
            seen = _laid_out(change[:, places][part.image[rows]])
            before[rows, outs] += self.apply(seen, _laid_out(weight[outs, own]))
        return before


def _linear_of(op: Operation, source: str, block: Block) -> _Linear | None:
    call = Call(op.node, 1)
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


def _refuse_mixed_images(rest: Sequence[Operation]) -> None:
    for op in rest:
        if op.kind == "batch_norm" and Call(op.node, 1).arguments.get("training"):
            raise RequestError(
                f"layer {op.name!r} normalizes by the batch it is in (track_running_stats=False), so an image has no "
                "answer of its own to compare; switch units off in a network with running statistics"
            )


def _has_rows(op: Operation) -> bool:
    return batch_axes(op.node) == (0,) and shapes_at(op.node, 1)[0][0] == 1


def _laid_out(x: Tensor) -> Tensor:
    """On a CPU with a position's units side by side, in which convolutions are faster; else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 and x.device.type == "cpu" else x


def _size(op: Operation) -> int:
    return sum(map(prod, shapes_at(op.node, 1)))
