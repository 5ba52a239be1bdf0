"""Where the positions of an operation's result lie in its tensor: rows and columns, or a list of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.fx import Node

from convscope.graph import bounds, places
from convscope.graph.calls import Call, batch_axes, shapes_at
from convscope.graph.table import REDUCED
from convscope.graph.traced import Operation, TracedGraph, last_uses

_PREFIXES = (0, 1, 2)  # how many tokens there may be before those of the image: a class token, one for distillation
_MAPS = ("conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "pixel_shuffle")

Size = tuple[int, int]


@dataclass(frozen=True)
class Positions:
    """The positions of a tensor whose axis 0 is the batch; what axis is left is that of the units.

    Attributes:
        axes: those that hold the positions, in order: (2, 3) for most maps, (1, 2) where units come last, or one axis
            that lists them, as transformers do with their tokens.
        size: (rows, columns).
        order: for each position, row by row, its index along the axes taken together (the last of them moves first).
            A range for most; another order within shifted or cut windows. What it leaves out, such as a class token or
            padding, has no place in the image. Left out itself: all, from 0 on.
    """

    axes: tuple[int, ...]
    size: Size
    order: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.order:
            object.__setattr__(self, "order", range(prod(self.size)))

    def unit_axis(self, n_axes: int) -> int:
        """The axis of the units in a tensor of so many axes, the batch's counted."""
        return next(axis for axis in range(1, n_axes) if axis not in self.axes)

    def n_units(self, shape: tuple[int, ...]) -> int:
        """The number of units in a result of that shape, given without the batch."""
        return shape[self.unit_axis(len(shape) + 1) - 1]

    def as_map(self, result: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "N U H W"]:
        """The operation's result as a map; what has no place in the image is left out."""
        if self.axes == (2, 3) and result.shape[2:] == self.size and isinstance(self.order, range):
            return result
        listed = result.permute(0, self.unit_axis(result.ndim), *self.axes).flatten(2)
        if isinstance(self.order, range):
            listed = listed.narrow(2, self.order.start, len(self.order))
        else:
            listed = listed[:, :, torch.tensor(self.order, device=result.device)]
        return listed.unflatten(2, self.size)


def positions(graph: TracedGraph) -> dict[str, Positions]:
    """For each operation whose result has units and positions where they lie, in order of execution.

    Followed from the image on by `convscope.graph.places`, through whatever moves values: permuting, patch merging,
    cutting into windows, shifting these, and putting them together again. A result in which windows are folded into the
    batch, or which has several axes of units, such as the heads of an attention, is followed, but not listed. Where
    positions are lost, in an operation that is not known, they are found again if the result has as many tokens as the
    last map, or as one whose sides are a whole number of times shorter, in one way only. Not of operations with several
    results, but of those that take them apart.

    Example:
        >>> positions(graph)["conv1"].size
        (32, 32)
    """
    return dict(_followed(graph)[0])


def without_positions(graph: TracedGraph) -> set[str]:
    """The convolutions and dense layers with several rows of units an image that are not known to lie anywhere in it.

    After an operation that is not known, or once tokens of the network's own have replaced those of the image. Not the
    layers that have one row of units, such as those behind a global pool.
    """
    return set(_followed(graph)[1])


def _followed(graph: TracedGraph) -> tuple[dict[str, Positions], set[str]]:
    """What `positions` and `without_positions` give, found once."""
    if "positions" not in graph.findings:
        graph.findings["positions"] = _Following(graph).run()
    return graph.findings["positions"]


class _Following:
    """The way through the graph.

    Attributes:
        places: of each result that has readers to come; None where they are lost.
        known: the positions of each result; None where it has none, or they are not listed.
        sizes: (rows, columns) of the last map on the way to each result.
    """

    def __init__(self, graph: TracedGraph) -> None:
        size = graph.input_shape[1], graph.input_shape[2]
        self.graph = graph
        self.places: dict[Node, Any] = {graph.image: places.of_map((places.IMAGES, *graph.input_shape))}
        self.known: dict[Node, Positions | None] = {graph.image: Positions((2, 3), size)}
        self.sizes: dict[Node, Size] = {graph.image: size}

    def run(self) -> tuple[dict[str, Positions], set[str]]:
        maps, unplaced = dict[str, Positions](), set[str]()
        finished = last_uses([op.node for op in self.graph.operations])
        for op in self.graph.operations:
            self.follow(op)
            if (where := self.known[op.node]) is not None:
                maps[op.name] = where
            if self.is_unplaced(op):
                unplaced.add(op.name)
            for node in finished[op.node]:
                self.places.pop(node, None)
        return maps, unplaced

    def follow(self, op: Operation) -> None:
        """Takes down the places and the positions of one operation's result."""
        call = Call(op.node, places.IMAGES, self.places, lambda node: self.graph.constant(node, places.IMAGES))
        sources = [node for node in op.node.all_input_nodes if node in self.sizes]
        size = next((where.size for node in sources if (where := self.known[node])), self.sizes[sources[0]])
        single = isinstance(op.node.meta["val"], Tensor)
        shape = call.output_shape
        # Axis 0 is the batch's alone: no windows are folded into it.
        unfolded = [shapes_at(op.node, n)[0][:1] for n in (1, places.IMAGES)] == [(1,), (places.IMAGES,)]
        coords, where = self.placed(op, call, shape, unfolded), None
        if single and unfolded and coords is None:
            where = found_again(shape, size)
            coords = places.of_positions(where.axes, where.size, where.order, shape) if where else None
        elif single and unfolded:
            same = [node for node in sources if self.places[node] is coords]
            size = (shape[2], shape[3]) if _is_map(op, shape) else size
            where = self.known[same[0]] if same else _recognised(coords, size)
            if where and op.kind in ("conv", "conv_transpose") and where.unit_axis(len(shape)) != 1:
                where = None  # it slides over units, as a gate of channels does
        if not single and isinstance(coords, Tensor):
            coords = (coords,) * len(call.output_shapes)  # a max pool that gives its indices too
        self.places[op.node], self.known[op.node], self.sizes[op.node] = coords, where, where.size if where else size

    def placed(self, op: Operation, call: Call, shape: tuple[int, ...], unfolded: bool) -> Any:
        """The places of the result, from those of what it is made of; None where they cannot be told."""
        if _is_map(op, shape):
            return self.placed_map(call, shape, unfolded)
        if not op.known:  # taken to leave positions where they are, if it keeps the shape
            sources = [node for node in op.node.all_input_nodes if self.known.get(node)]
            return next((self.places[node] for node in sources if self.places[node].shape == shape), None)
        rule = _RULES.get(op.row.field.bounds) or _RULES.get(op.kind)
        if rule is None:
            return self.placed_elementwise(op, shape)
        return None if any(value is None for value in call.inputs) else rule(call)

    def placed_map(self, call: Call, shape: tuple[int, ...], unfolded: bool) -> Tensor | None:
        """A map over the whole image, unless the layer works within windows or on a map that has been flipped or rolled."""
        if batch_axes(call.node)[0] == 1 and shape[0] == 1:  # images side by side, each with filters of its own
            return places.of_map((places.IMAGES, shape[1] // places.IMAGES, *shape[2:])).flatten(0, 1).unsqueeze(0)
        coords = call.input
        if coords is None:
            return places.of_map(shape) if unfolded else None
        groups_apart = self.known.get(call.node.all_input_nodes[0]) is None and not places.are_alike(coords, 1)
        in_order = unfolded and (groups_apart or places.ascend(coords))
        return places.of_map(shape) if in_order else places.under_windows(call)

    def placed_elementwise(self, op: Operation, shape: tuple[int, ...]) -> Tensor | None:
        """As one of the inputs, which has positions if any has: a gate or what is mixed over all of them has none."""
        nodes = [node for node in op.node.all_input_nodes if isinstance(self.places.get(node), Tensor)]
        fit = [node for node in nodes if self.places[node].shape == shape]
        best = next((node for node in fit if self.known[node]), fit[0] if fit else None)
        if best is not None:
            return self.places[best]
        wide = (self.places[node] for node in nodes if _is_broadcast(self.places[node].shape, shape))
        return next((x.expand(shape) for x in wide), None)

    def is_unplaced(self, op: Operation) -> bool:
        """Whether it is a layer over rows of units that belong to no places, or all to the same one."""
        if op.kind not in ("conv", "dense") or self.known[op.node] or sum(n > 1 for n in op.output_shape) < 2:
            return False
        coords = self.places[op.node]
        return coords is None or all(places.are_alike(coords, axis) for axis in range(1, coords.ndim))


_RULES: dict[Any, Callable[[Call], Any]] = {
    bounds.moved: places.moved,
    bounds.part: bounds.part,
    bounds.patches: bounds.patches,
    "dense": places.mixed_last,
    "attention": places.mixed_last,
    "matmul": places.multiplied,
    **dict.fromkeys(("conv", "max_pool", "avg_pool"), places.mixed_units),
    "glu": lambda call: places.mean_place(call.input, call["dim"]).expand(call.output_shape),
    REDUCED.bounds: places.reduced,
}


def found_again(shape: tuple[int, ...], size: Size) -> Positions | None:
    """Positions of a result of that shape (batch first), by the number of its tokens; None where not in one way only.

    Args:
        size: (rows, columns) of the last map, of which the result may have all positions, or those of a map whose sides
            are a whole number of times shorter. Up to two tokens may come before them.
    """
    steps = [step for step in range(1, min(size)) if size[0] % step == size[1] % step == 0]
    ways = []
    for rows, columns in ((size[0] // step, size[1] // step) for step in steps):
        if len(shape) == 4:
            ways += [Positions((a, a + 1), (rows, columns)) for a in (1, 2) if shape[a : a + 2] == (rows, columns)]
        if len(shape) == 3:
            lists = [(axis, shape[axis] - rows * columns) for axis in (1, 2)]
            ways += [Positions((a,), (rows, columns), range(n, shape[a])) for a, n in lists if n in _PREFIXES]
    return ways[0] if len(ways) == 1 else None


def _recognised(coords: Tensor, last: Size) -> Positions | None:
    """The positions of a result (2, …) that lies at these places; None where they are not those of one map.

    Where units of one position come from several places, as after patches have been merged, it lies at their mean.
    """
    if coords.ndim < 3:
        return None
    if (where := _as_they_lie(coords, last)) is not None:
        return where
    merged = [places.mean_place(coords, axis).expand(coords.shape) for axis in {1, coords.ndim - 1}]
    ways = [where for each in merged if (where := _as_they_lie(each, last)) is not None]
    return ways[0] if len(ways) == 1 else None


def _as_they_lie(coords: Tensor, last: Size) -> Positions | None:
    """Positions of a result that has one axis of units at most, if their places make up a map of the whole image."""
    alike = [axis for axis in range(1, coords.ndim) if places.are_alike(coords, axis)]
    units = [axis for axis in alike if coords.shape[axis] > 1] or alike[:1]
    if len(units) != 1:
        return None
    listed = coords.select(units[0], 0).flatten(1)
    placed = listed[0].isfinite().nonzero().flatten()
    (n_rows, row), (n_columns, column) = (_lines(each[placed]) for each in listed)
    index = row * n_columns + column
    if not len(index) or not torch.equal(index.sort().values, torch.arange(n_rows * n_columns)):
        return None
    if (n_rows == 1) != (n_columns == 1) and 1 not in last:  # mixed along rows, as by a layer that reads row by row
        return None
    order = placed[index.argsort()].tolist()
    in_order = range(order[0], order[0] + len(order))
    axes = tuple(axis for axis in range(1, coords.ndim) if axis != units[0])
    return Positions(axes, (n_rows, n_columns), in_order if order == list(in_order) else tuple(order))


def _lines(centres: Float[Tensor, " P"]) -> tuple[int, Int64[Tensor, " P"]]:
    """How many rows (or columns) there are, and which each position is in; none where they are not even over the image."""
    ordered, index = centres.sort()
    number = (ordered.diff(prepend=ordered[:1]) > places.SAME).cumsum(0)
    n = int(number[-1]) + 1 if len(number) else 0
    off = (ordered * n - number - 0.5).abs().amax() if n else 1
    if off > 0.5 + places.SAME * n:  # every other row, from the first on, lies a quarter of a row off
        return 0, number
    return n, torch.empty_like(index).index_copy_(0, index, number)


def _is_map(op: Operation, shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and (op.kind in _MAPS or op.kind.startswith("upsample"))


def _is_broadcast(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether a tensor of one shape stands for one of the other."""
    ends = zip(reversed(shape), reversed(other), strict=False)
    return len(shape) <= len(other) and all(a in (1, b) for a, b in ends)
