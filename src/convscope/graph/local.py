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
from convscope.graph.windows import STILL, Window, adaptive_windows, border_windows, slice_window, windows

PER_WEIGHT = 20
"""What it costs to read a weight for one box, in multiply-adds; see `graph/plans.py`."""

Axes = tuple[int, ...]
"""What the axes of a map are, as numbers of those in (N, C, H, W): (0, 2, 3, 1) has its units last."""

FIRST: Axes = (0, 1, 2, 3)


class Work(NamedTuple):
    """How much of an operation is worked out in boxes, counted over all images and boxes.

    Attributes:
        inputs, outputs: positions that change.
        boxes: how many times the operation is called.
    """

    inputs: int
    outputs: int
    boxes: int


@dataclass(frozen=True)
class Maps:
    """The maps of images that differ from a remembered one in boxes.

    Attributes:
        n: number of images.
        remembered: the maps of the one that is remembered.
        constant: gives a value that does not depend on the image, in the form that an operation takes.
        patches: what is new, for each map that has changed; all `n` images share its box.
    """

    n: int
    remembered: Mapping[Node, Tensor]
    constant: Callable[[Node], Tensor]
    patches: dict[Node, BoxValues]

    def before(self, node: Node, box: Box) -> Tensor:
        """The remembered values of a map in a box, (1, C, height, width)."""
        return box.cut(self.remembered[node])

    def now(self, node: Node, box: Box) -> Any:
        """The values of a map in a box, (n, C, height, width)."""
        if node in self.patches:
            return self.patches[node].over(box, lambda larger: self.before(node, larger))
        return self.before(node, box).expand(self.n, -1, -1, -1)


class Rule(ABC):
    """How one operation is worked out inside a box.

    Attributes:
        node: the operation.
        sources: its inputs that depend on the image.
        axes: of its output in the network.
        windows: by which it reads rows and columns; by default each position reads its own place alone.
        units, sizes: of its output, the latter (rows, columns).
        products: of weights and values, for each position of its output.
    """

    def __init__(
        self, node: Node, sources: Sequence[Node], axes: Axes = FIRST, windows: Sequence[Window] = (STILL, STILL)
    ) -> None:
        self.node, self.sources, self.axes, self.windows = node, sources, axes, windows
        shape = shapes_at(node, 1)[0]
        self.units, self.sizes = shape[axes.index(1)], _positions(shape, axes)
        self.products = row_of(node).multiply_adds(Call(node, 1)) / prod(self.sizes)

    def reach(self, axis: int, span: Span) -> Span:
        """The output's rows (axis 0) or columns (1) that change with those of the inputs; empty if it stops ≤ starts."""
        return reached(self.windows[axis], span, self.sizes[axis])

    def needed(self, box: Box) -> Box:
        """What is read of the inputs for a box of the output; it may reach beyond them, into the padding."""
        return Box(*(read(window, span) for window, span in zip(self.windows, box, strict=True)))

    def multiply_adds(self, work: Work) -> float:
        """The products of weights and values that it takes."""
        return self.products * work.outputs

    def copied(self, work: Work) -> float:
        """How many values it reads or writes besides its output."""
        return 0

    @abstractmethod
    def run(self, maps: Maps, changed: Box, box: Box) -> Any:
        """The output's new values in `box`, where the inputs changed in `changed` alone."""


class Pointwise(Rule):
    """Each position reads the inputs at its own place: sums, ReLUs, batch norm, concatenation of units.

    `constants_lie_on_map` where a constant is aligned with the map and is cut like it, unlike a norm's weights.
    """

    def __init__(self, node: Node, sources: Sequence[Node], axes: Axes, constants_lie_on_map: bool) -> None:
        super().__init__(node, sources, axes)
        self.constants_lie_on_map = constants_lie_on_map

    def run(self, maps: Maps, changed: Box, box: Box) -> Any:
        def value(node: Node) -> Any:
            if node in self.sources:
                return arranged(maps.now(node, box), self.axes)
            constant = maps.constant(node)
            return box.cut(constant) if self.constants_lie_on_map else constant

        args, kwargs = (resolve(a, value, maps.n) for a in (self.node.args, self.node.kwargs))
        return restored(self.node.target(*args, **kwargs), self.axes)  # type: ignore[operator]


class Convolution(Rule):
    """Adds to what was there the convolution of what has changed."""

    def __init__(self, call: Call, sources: Sequence[Node]) -> None:
        super().__init__(call.node, sources, windows=windows(call))
        self.weight, self.groups, self.n_inputs = call.arguments["weight"], call["groups"], call.input_shape[1]

    def multiply_adds(self, work: Work) -> float:
        inputs = work.inputs / prod(w.stride for w in self.windows)
        return self.products * (inputs + PER_WEIGHT * work.boxes)  # as many products as weights

    def copied(self, work: Work) -> float:
        return self.n_inputs * work.inputs + self.units * work.outputs  # what changed; what is added to

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        [source], needed = self.sources, self.needed(box)
        crop = changed.meet(needed)
        change = maps.now(source, crop) - maps.before(source, crop)
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


class Pool(Rule):
    """Pools a crop, with the pool's own padding at each end, and drops the outputs that read false padding."""

    def __init__(
        self, call: Call, sources: Sequence[Node], windows: Sequence[Window], pool: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(call.node, sources, windows=windows)
        self.pool, self.input_sizes = pool, call.input_shape[2:]

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        # The crop begins with the window of an output so far ahead of the box that the padding is not read in it.
        firsts = [max(0, span.start - ceil(w.before / w.stride)) for w, span in zip(self.windows, box, strict=True)]
        crop = Box(
            *(
                Span(first * window.stride, min(size, span.stop))
                for first, window, size, span in zip(
                    firsts, self.windows, self.input_sizes, self.needed(box), strict=True
                )
            )
        )
        pooled = self.pool(maps.now(self.sources[0], crop))
        return Box(*(span.moved(-first) for first, span in zip(firsts, box, strict=True))).cut(pooled)


class Moved(Rule):
    """A cut, a border of a constant, every so many rows or columns, another order of axes: windows of a single position."""

    def run(self, maps: Maps, changed: Box, box: Box) -> Any:
        rows, columns = self.windows
        return maps.now(self.sources[0], self.needed(box))[:, :, :: rows.stride, :: columns.stride]


def rule_of(node: Node, sources: Sequence[Node], laid: Sequence[Axes]) -> Rule | None:
    """The rule for an operation whose inputs change in boxes; None where all of its output may change.

    Args:
        node: the operation.
        sources: those of its inputs that depend on the image.
        laid: their axes.
    """
    if not all(map(_is_map, (node, *sources))) or len(set(laid)) > 1:
        return None
    axes, target, call = laid[0], str(node.target), Call(node, 1)
    if target in _PERMUTES:
        return Moved(node, sources, tuple(axes[i] for i in axis_order(call)))
    if target in _WINDOWED:
        alone = sources == [node.args[0]] and axes == FIRST
        return _WINDOWED[target](call, sources) if alone else None
    if len({_positions(shape, axes) for n in (node, *sources) for shape in shapes_at(n, 1)}) > 1:
        if target != "aten.slice.Tensor":
            return None
        axis, window = slice_window(call)
        return Moved(node, sources, axes, [window if axes[axis] == own else STILL for own in (2, 3)])
    constants = _constants_of(call, sources, axes)
    return Pointwise(node, sources, axes, constants == "map") if constants else None


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


def _constants_of(call: Call, sources: Sequence[Node], axes: Axes) -> str | None:
    """What constants are aligned with, "map" or "units", where each position reads its own place alone."""
    node, target = call.node, str(call.node.target)
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


def _pool(call: Call, sources: Sequence[Node]) -> Rule:
    settings: dict[str, Any] = {name: call[name] for name in call.arguments if name != "self"}
    operation: Any = call.node.target
    return Pool(call, sources, windows(call), lambda x: operation(x, **settings))


def _adaptive_pool(call: Call, sources: Sequence[Node]) -> Rule | None:
    even = adaptive_windows(call)
    if even is None:
        return None
    return Pool(call, sources, even, lambda x: F.avg_pool2d(x, [window.kernel for window in even]))


def _padding(call: Call, sources: Sequence[Node]) -> Rule | None:
    if len(call["pad"]) > 4 or ("mode" in call and call["mode"] != "constant"):
        return None
    return Moved(call.node, sources, windows=border_windows(call))


_WINDOWED: dict[str, Callable[[Call, Sequence[Node]], Rule | None]] = {
    "aten.conv2d.default": Convolution,
    "aten.conv2d.padding": Convolution,
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
