"""Operators worked out inside a box: what a change can reach, and the new values there.

A rule runs the network's own operator on a part of the map, and so needs no arithmetic of its own. Only the
convolution is rewritten, because it is linear: its output changes by the convolution of what changes in its
input, which is zero outside the box. That reads no surroundings, and its multiply-adds are those of the
changed inputs, where the outputs that they reach are many more.

Patches are always (P, C, height, width). A network may also hold its maps with units last, (N, H, W, C), between two
permutes; then only the operator itself sees them so.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, NamedTuple

from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from convscope.graph.boxes import Box, BoxValues, Span, reached, read
from convscope.graph.calls import Call, axis_order, batch_axes, is_tensor_node, resolve, shapes_at
from convscope.graph.carried import is_carried
from convscope.graph.table import ELEMENTWISE, row_of
from convscope.graph.windows import Window, adaptive_windows, windows

PER_WEIGHT = 20
"""What it costs to read a weight for one box, in multiply-adds; see `graph/plans.py`."""

Axes = tuple[int, ...]
"""What the axes of a map are, as numbers of those in (N, C, H, W): (0, 2, 3, 1) has its units last."""

FIRST: Axes = (0, 1, 2, 3)
_STILL = Window(1, 1, 0, 1)


class Work(NamedTuple):
    """How much of an operation is worked out in boxes, counted over all images and boxes.

    Attributes:
        inputs, outputs: positions that change.
        boxes: how many times the operation is called.
    """

    inputs: int
    outputs: int
    boxes: int


class Maps:
    """The maps of images that differ from a remembered one in boxes.

    Attributes:
        n: number of images.
        constant: gives a value that does not depend on the image, in the form that an operation takes.
        patches: what is new, for each map that has changed; all `n` images share its box.
    """

    def __init__(
        self,
        n: int,
        remembered: Mapping[Node, Tensor],
        constant: Callable[[Node], Tensor],
        patches: dict[Node, BoxValues],
    ) -> None:
        self.n, self.patches, self.constant, self._remembered = n, patches, constant, remembered

    def before(self, node: Node, box: Box) -> Tensor:
        """The remembered values of a map in a box, (1, C, height, width)."""
        return box.cut(self._remembered[node])

    def now(self, node: Node, box: Box) -> Any:
        """The values of a map in a box, (n, C, height, width)."""
        if node in self.patches:
            return self.patches[node].over(box, lambda larger: self.before(node, larger))
        return self.before(node, box).expand(self.n, -1, -1, -1)


class Rule(ABC):
    """How one operation is worked out inside a box.

    Attributes:
        axes: of its output in the network.
    """

    axes: Axes = FIRST

    def reach(self, axis: int, span: Span) -> Span:
        """The output's rows (axis 0) or columns (1) that change with those of the inputs; empty if it stops ≤ starts."""
        return span

    def multiply_adds(self, work: Work) -> float:
        """The products of weights and values that it takes."""
        return 0

    def copied(self, work: Work) -> float:
        """How many values it reads or writes besides its output."""
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
    axes: Axes = FIRST
    products: float = 0  # for a position

    def multiply_adds(self, work: Work) -> float:
        return self.products * work.outputs

    def run(self, maps: Maps, changed: Box, box: Box) -> Any:
        def value(node: Node) -> Any:
            if node in self.sources:
                return arranged(maps.now(node, box), self.axes)
            constant = maps.constant(node)
            return box.cut(constant) if self.constants_lie_on_map else constant

        args, kwargs = (resolve(a, value, maps.n) for a in (self.node.args, self.node.kwargs))
        return restored(self.node.target(*args, **kwargs), self.axes)  # type: ignore[operator]


@dataclass(frozen=True)
class Windowed(Rule):
    """Windows slide over the map of `source`, along rows and columns; the output has `sizes` positions."""

    source: Node
    windows: Sequence[Window]
    sizes: Sequence[int]

    def reach(self, axis: int, span: Span) -> Span:
        return reached(self.windows[axis], span, self.sizes[axis])


@dataclass(frozen=True)
class Convolution(Windowed):
    """Adds to what was there the convolution of what has changed."""

    node: Node
    weight: Node
    groups: int
    n_units: tuple[int, int]  # of input and output

    def multiply_adds(self, work: Work) -> float:
        n_weights = prod(w.kernel for w in self.windows) * prod(self.n_units) / self.groups
        return n_weights * (work.inputs / prod(w.stride for w in self.windows) + PER_WEIGHT * work.boxes)

    def copied(self, work: Work) -> float:
        return self.n_units[0] * work.inputs + self.n_units[1] * work.outputs  # what changed; what is added to

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        needed = Box(*(read(window, span) for window, span in zip(self.windows, box, strict=True)))
        crop = changed.meet(needed)
        change = maps.now(self.source, crop) - maps.before(self.source, crop)
        stride, dilation = [w.stride for w in self.windows], [w.dilation for w in self.windows]
        zeros = [_zeros(*ends) for ends in zip(crop, needed, stride, strict=True)]
        convolved = F.conv2d(change, maps.constant(self.weight), None, stride, zeros, dilation, self.groups)
        # Zeros ahead of the first window of `needed` give outputs that lie before `box`.
        part = Box(
            *(
                Span(0, span.length).moved((n - (have.start - need.start)) // step)
                for span, n, have, need, step in zip(box, zeros, crop, needed, stride, strict=True)
            )
        )
        return part.cut(convolved).add_(maps.before(self.node, box))


def _zeros(have: Span, need: Span, stride: int) -> int:
    """How many to put at both ends of `have` to cover `need`, with windows that begin where those of `need` do.

    Left to the convolution, they cost hardly any multiply-adds, unlike those of a padded tensor.
    """
    ahead, behind = have.start - need.start, need.stop - have.stop
    return ahead + max(0, -((ahead - behind) // stride)) * stride


@dataclass(frozen=True)
class Pool(Windowed):
    """Pools a crop, with the pool's own padding at each end, and drops the outputs that read false padding."""

    input_sizes: Sequence[int]
    pool: Callable[[Tensor], Tensor]

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
class Moved(Windowed):
    """A cut, a border of a constant, every so many rows or columns, another order of axes: windows of a single position."""

    axes: Axes

    def run(self, maps: Maps, changed: Box, box: Box) -> Any:
        crop = Box(*(read(window, span) for window, span in zip(self.windows, box, strict=True)))
        rows, columns = self.windows
        return maps.now(self.source, crop)[:, :, :: rows.stride, :: columns.stride]


def rule_of(node: Node, sources: Sequence[Node], laid: Sequence[Axes]) -> Rule | None:
    """The rule for an operation whose inputs change in boxes; None where all of its output may change.

    Args:
        node: the operation.
        sources: those of its inputs that depend on the image.
        laid: their axes.
    """
    if not all(map(_is_map, (node, *sources))) or len(set(laid)) > 1:
        return None
    axes, target = laid[0], str(node.target)
    if target in _PERMUTES:
        new_axes = tuple(axes[i] for i in axis_order(Call(node, 1)))
        return Moved(sources[0], (_STILL, _STILL), _positions(shapes_at(node, 1)[0], new_axes), new_axes)
    if target in _WINDOWED:
        alone = sources == [node.args[0]] and axes == FIRST
        return _WINDOWED[target](Call(node, 1), sources[0]) if alone else None
    sizes = {_positions(shape, axes) for n in (node, *sources) for shape in shapes_at(n, 1)}
    if len(sizes) > 1:
        return _slice(Call(node, 1), sources[0], axes) if target == "aten.slice.Tensor" else None
    constants = _constants_of(node, sources, axes)
    products = row_of(node).multiply_adds(Call(node, 1)) / prod(*sizes)
    return Pointwise(node, sources, constants == "map", axes, products) if constants else None


def arranged(value: Any, axes: Axes) -> Any:
    """A map, or several, (N, C, H, W) with its axes in this order."""
    if axes == FIRST:
        return value
    return value.permute(axes) if isinstance(value, Tensor) else [one.permute(axes) for one in value]


def restored(value: Any, axes: Axes) -> Any:
    """The reverse of `arranged`: (N, C, H, W) again."""
    return arranged(value, tuple(axes.index(i) for i in FIRST))


def _is_map(node: Node) -> bool:
    """Whether all that the node yields has four axes, of which the first is the batch's."""
    shapes, axes = shapes_at(node, 1), batch_axes(node)
    return all(len(s) == 4 and s[0] == 1 and axis == 0 for s, axis in zip(shapes, axes, strict=True))


def _positions(shape: Sequence[int], axes: Axes) -> tuple[int, int]:
    return shape[axes.index(2)], shape[axes.index(3)]


def _constants_of(node: Node, sources: Sequence[Node], axes: Axes) -> str | None:
    """What constants are aligned with, "map" or "units", where each position reads its own place alone."""
    target, call = str(node.target), Call(node, 1)
    n_mixed = len(call.arguments.get("normalized_shape", [0]))  # axes; of a dense layer the last alone
    if (
        node.target is operator.getitem
        or is_carried(node)
        or target == "aten.slice.Tensor"  # of all positions
        or (target in _ALONG_UNITS and call["dim"] % 4 == axes.index(1))
        or (target in _UNITS_SECOND and axes == FIRST and not call.arguments.get("training"))
        or (target in _UNITS_LAST and axes[-1] == 1 and sources == [node.args[0]] and n_mixed == 1)
    ):
        return "units"
    if row_of(node).field is not ELEMENTWISE:
        return None
    if axes == FIRST:
        return "map"
    constants = [n for n in node.all_input_nodes if n not in sources and is_tensor_node(n)]
    alike = all(_positions((1,) * (4 - len(s)) + s, axes) == (1, 1) for n in constants for s in shapes_at(n, 1))
    return "units" if alike else None


def _slice(call: Call, source: Node, axes: Axes) -> Rule:
    axis, size = axes[call["dim"] % 4], call.input_shape[call["dim"]]
    start, step = slice(call["start"], call["end"], call["step"]).indices(size)[::2]
    windows = [Window(1, step, -start, 1) if axis == own else _STILL for own in (2, 3)]
    return Moved(source, windows, _positions(call.output_shape, axes), axes)


def _convolution(call: Call, source: Node) -> Rule:
    weight = call.arguments["weight"]
    n_units = call.input_shape[1], call.output_shape[1]
    return Convolution(source, windows(call), call.output_shape[2:], call.node, weight, call["groups"], n_units)


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
    return Moved(source, [Window(1, 1, before, 1) for before in (top, left)], call.output_shape[2:], FIRST)


_WINDOWED: dict[str, Callable[[Call, Node], Rule | None]] = {
    "aten.conv2d.default": _convolution,
    "aten.conv2d.padding": _convolution,
    "aten.max_pool2d.default": _pool,
    "aten.avg_pool2d.default": _pool,
    "aten.adaptive_avg_pool2d.default": _adaptive_pool,
    "aten.pad.default": _padding,
    "aten.constant_pad_nd.default": _padding,
}
_PERMUTES = ("aten.permute.default", "aten.transpose.int")
_UNITS_SECOND = ("aten.prelu.default", "aten.channel_shuffle.default", "aten.batch_norm.default")
_UNITS_LAST = ("aten.linear.default", "aten.layer_norm.default", "aten.rms_norm.default")
_ALONG_UNITS = (
    "aten.cat.default",
    "aten.chunk.default",
    "aten.split.Tensor",
    "aten.split_with_sizes.default",
    "aten.narrow.default",
    "aten.softmax.int",
    "aten.log_softmax.int",
)
