"""Operators worked out inside a box: what a change can reach, and the new values there.

A rule runs the network's own operator on a part of the map, and so needs no arithmetic of its own. Only the
convolution is rewritten, because it is linear: its output changes by the convolution of what changes in its
input, which is zero outside the box. That reads no surroundings, and its multiply-adds are those of the
changed inputs, where the outputs that they reach are many more.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, inf, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from convscope.graph import winograd
from convscope.graph.boxes import Box, Patch, Span, laid_out, reached, read
from convscope.graph.calls import Call, batch_axes, resolve, shapes_at
from convscope.graph.table import ELEMENTWISE, row_of
from convscope.graph.windows import Window, adaptive_windows, windows

PER_WEIGHT = 20
"""What it costs to read a weight for one box, in multiply-adds; see `graph/incremental.py`."""


class Work(NamedTuple):
    """How much changes of an operation's input.

    Attributes:
        positions: counted over all images.
        tiles: as many as hold them if each box is cut into tiles, for each of `winograd.TILES`.
        boxes: how many times the operation is called.
    """

    positions: int
    tiles: Sequence[int]
    boxes: int


class Maps:
    """The maps of images that differ from a remembered one in boxes.

    Attributes:
        n: number of images.
        patches: what is new, for each map that has changed; all `n` images share its box.
    """

    def __init__(
        self,
        n: int,
        remembered: Mapping[Node, Tensor],
        constant: Callable[[Node, Callable[[Tensor], Tensor]], Tensor],
        patches: dict[Node, Patch],
    ) -> None:
        self.n, self.patches, self._constant, self._remembered = n, patches, constant, remembered

    def constant(self, node: Node, made_ready: Callable[[Tensor], Tensor] = laid_out) -> Tensor:
        """A value that does not depend on the image, in the form that an operation takes."""
        return self._constant(node, made_ready)

    def before(self, node: Node, box: Box) -> Tensor:
        """The remembered values of a map in a box, (1, C, height, width)."""
        return box.cut(self._remembered[node])

    def now(self, node: Node, box: Box) -> Any:
        """The values of a map in a box, (n, C, height, width)."""
        if node in self.patches:
            return self.patches[node].over(box, lambda larger: self.before(node, larger))
        return self.before(node, box).expand(self.n, -1, -1, -1)


class Rule(ABC):
    """How one operation is worked out inside a box."""

    def reach(self, axis: int, span: Span) -> Span:
        """The output's rows (axis 0) or columns (1) that change with those of the inputs; empty if it stops ≤ starts."""
        return span

    def multiply_adds(self, work: Work, on_cpu: bool) -> float:
        """What it costs besides passing on its output."""
        return 0

    @abstractmethod
    def run(self, maps: Maps, changed: Box, box: Box) -> Any:
        """The output's new values in `box`, where the inputs changed in `changed` alone."""


@dataclass(frozen=True)
class Pointwise(Rule):
    """Each position reads the inputs at its own place: sums, ReLUs, batch norm, concatenation of units.

    `constants_lie_on_map` where a constant is aligned with the map and is cut like it, unlike a norm's weights.
    """

    node: Node
    sources: Sequence[Node]
    constants_lie_on_map: bool = False

    def run(self, maps: Maps, changed: Box, box: Box) -> Any:
        def value(node: Node) -> Any:
            if node in self.sources:
                return maps.now(node, box)
            constant = maps.constant(node)
            return box.cut(constant) if self.constants_lie_on_map else constant

        args, kwargs = (resolve(a, value, maps.n) for a in (self.node.args, self.node.kwargs))
        return self.node.target(*args, **kwargs)  # type: ignore[operator]


@dataclass(frozen=True)
class Convolution(Rule):
    """Adds to what was there the convolution of what has changed."""

    node: Node
    source: Node
    weight: Node
    windows: Sequence[Window]
    sizes: Sequence[int]
    groups: int
    n_units: tuple[int, int]  # of input and output

    def reach(self, axis: int, span: Span) -> Span:
        return reached(self.windows[axis], span, self.sizes[axis])

    def multiply_adds(self, work: Work, on_cpu: bool) -> float:
        return min(self._directly(work), self._in_tiles(work) if on_cpu and self._may_be_tiled else inf)

    @property
    def _may_be_tiled(self) -> bool:
        once = all((w.kernel, w.stride, w.dilation) == (winograd.KERNEL, 1, 1) for w in self.windows)
        return once and self.groups == 1

    def _directly(self, work: Work) -> float:
        n_weights = prod(w.kernel for w in self.windows) * prod(self.n_units) / self.groups
        return n_weights * (work.positions / prod(w.stride for w in self.windows) + PER_WEIGHT * work.boxes)

    def _in_tiles(self, work: Work) -> float:
        return min(map(partial(self._in_tiles_of, work.boxes), winograd.TILES, work.tiles))

    def _in_tiles_of(self, n_boxes: int, side: int, n_tiles: int) -> float:
        multiplied = prod(self.n_units) * (n_tiles + PER_WEIGHT * n_boxes)
        return winograd.products(side) * (multiplied + winograd.PER_PRODUCT * sum(self.n_units) * n_tiles)

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        needed = Box(*(read(window, span) for window, span in zip(self.windows, box, strict=True)))
        seen = changed.meet(needed)
        change = maps.now(self.source, seen) - maps.before(self.source, seen)
        if self._pays_in_tiles(change):
            made_ready = winograd.EVALUATED[winograd.best_side(*change.shape[2:])]
            found = winograd.convolve(change, maps.constant(self.weight, made_ready))
            reached_from = Box(*(s.moved(w.before - winograd.OVERLAP) for s, w in zip(seen, self.windows, strict=True)))
            return box.within(reached_from).cut(found).add_(maps.before(self.node, box))
        stride, dilation = [w.stride for w in self.windows], [w.dilation for w in self.windows]
        zeros = [_zeros(*ends) for ends in zip(seen, needed, stride, strict=True)]
        found = F.conv2d(change, maps.constant(self.weight), None, stride, zeros, dilation, self.groups)
        # Zeros ahead of the first window of `needed` give outputs that lie before `box`.
        wanted = Box(
            *(
                Span(0, span.length).moved((n - (have.start - need.start)) // step)
                for span, n, have, need, step in zip(box, zeros, seen, needed, stride, strict=True)
            )
        )
        return wanted.cut(found).add_(maps.before(self.node, box))

    def _pays_in_tiles(self, change: Tensor) -> bool:
        n, _, height, width = change.shape
        tiles = [n * winograd.tiles(height, side) * winograd.tiles(width, side) for side in winograd.TILES]
        work = Work(n * height * width, tiles, 1)
        accurate = change.device.type == "cpu" and change.dtype in (torch.float32, torch.float64)
        return accurate and self._may_be_tiled and self._in_tiles(work) < self._directly(work)


def _zeros(have: Span, need: Span, stride: int) -> int:
    """How many to put at both ends of `have` to cover `need`, with windows that begin where those of `need` do.

    Left to the convolution, they cost hardly any multiply-adds, unlike those of a padded tensor.
    """
    ahead, behind = have.start - need.start, need.stop - have.stop
    return ahead + max(0, -((ahead - behind) // stride)) * stride


@dataclass(frozen=True)
class Pool(Rule):
    """Pools a crop, with the pool's own padding at each end, and drops the outputs that read false padding."""

    source: Node
    windows: Sequence[Window]
    sizes: Sequence[int]
    input_sizes: Sequence[int]
    pool: Callable[[Tensor], Tensor]

    def reach(self, axis: int, span: Span) -> Span:
        return reached(self.windows[axis], span, self.sizes[axis])

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        # The crop begins with the window of an output so far ahead of the box that the padding is not read in it.
        firsts = [max(0, span.start - ceil(w.before / w.stride)) for w, span in zip(self.windows, box, strict=True)]
        crop = Box(
            *(
                Span(first * window.stride, min(size, read(window, span).stop))
                for first, window, size, span in zip(firsts, self.windows, self.input_sizes, box, strict=True)
            )
        )
        pooled = self.pool(maps.now(self.source, crop))
        return Box(*(span.moved(-first) for first, span in zip(firsts, box, strict=True))).cut(pooled)


@dataclass(frozen=True)
class Padding(Rule):
    """A border of a constant, or with negative widths a cut."""

    source: Node
    before: Sequence[int]
    sizes: Sequence[int]

    def reach(self, axis: int, span: Span) -> Span:
        moved = span.moved(self.before[axis])
        return Span(max(0, moved.start), min(self.sizes[axis], moved.stop))

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        return maps.now(self.source, Box(*(span.moved(-n) for span, n in zip(box, self.before, strict=True))))


def rule_of(node: Node, sources: Sequence[Node]) -> Rule | None:
    """The rule for an operation whose inputs change in boxes; None where all of its output may change.

    Args:
        node: the operation.
        sources: those of its inputs that depend on the image.
    """
    if not all(map(_is_map, (node, *sources))):
        return None
    windowed = _WINDOWED.get(str(node.target))
    if windowed is not None:
        return windowed(Call(node, 1), sources[0]) if sources == [node.args[0]] else None
    n_sizes = len({shape[2:] for n in (node, *sources) for shape in shapes_at(n, 1)})
    constants = _constants_of(node) if n_sizes == 1 else None
    return Pointwise(node, sources, constants == "map") if constants else None


def _is_map(node: Node) -> bool:
    """Whether all that the node yields is (N, C, H, W)."""
    shapes, axes = shapes_at(node, 1), batch_axes(node)
    return all(len(s) == 4 and s[0] == 1 and axis == 0 for s, axis in zip(shapes, axes, strict=True))


def _constants_of(node: Node) -> str | None:
    """What constants are aligned with, "map" or "units", where each position reads its own place alone."""
    target, call = str(node.target), Call(node, 1)
    if (
        node.target is operator.getitem
        or target in _UNITWISE
        or (target in _ALONG_UNITS and call["dim"] in (1, -3))
        or (target == "aten.batch_norm.default" and not call["training"])
    ):
        return "units"
    return "map" if row_of(node).field is ELEMENTWISE else None


def _convolution(call: Call, source: Node) -> Rule:
    weight = call.arguments["weight"]
    n_units = call.input_shape[1], call.output_shape[1]
    return Convolution(call.node, source, weight, windows(call), call.output_shape[2:], call["groups"], n_units)


def _pool(call: Call, source: Node) -> Rule:
    settings: dict[str, Any] = {name: call[name] for name in call.arguments if name != "self"}
    operation: Any = call.node.target
    return Pool(source, windows(call), call.output_shape[2:], call.input_shape[2:], lambda x: operation(x, **settings))


def _adaptive_pool(call: Call, source: Node) -> Rule | None:
    even = adaptive_windows(call)
    if even is None:
        return None
    kernel = [window.kernel for window in even]
    return Pool(source, even, call.output_shape[2:], call.input_shape[2:], lambda x: F.avg_pool2d(x, kernel))


def _padding(call: Call, source: Node) -> Rule | None:
    widths = call["pad"]
    if len(widths) > 4 or ("mode" in call and call["mode"] != "constant"):
        return None
    left, _, top, _ = (*widths, 0, 0)[:4]
    return Padding(source, (top, left), call.output_shape[2:])


_WINDOWED: dict[str, Callable[[Call, Node], Rule | None]] = {
    "aten.conv2d.default": _convolution,
    "aten.conv2d.padding": _convolution,
    "aten.max_pool2d.default": _pool,
    "aten.avg_pool2d.default": _pool,
    "aten.adaptive_avg_pool2d.default": _adaptive_pool,
    "aten.pad.default": _padding,
    "aten.constant_pad_nd.default": _padding,
}
_UNITWISE = ("aten.prelu.default", "aten.channel_shuffle.default", "aten.slice.Tensor")  # a slice of all positions
_ALONG_UNITS = (
    "aten.cat.default",
    "aten.chunk.default",
    "aten.split.Tensor",
    "aten.split_with_sizes.default",
    "aten.narrow.default",
    "aten.softmax.int",
    "aten.log_softmax.int",
)
