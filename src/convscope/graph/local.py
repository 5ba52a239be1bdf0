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
from typing import Any

from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from convscope.graph.boxes import Box, Patch, Span, reached, read
from convscope.graph.calls import Call, batch_axes, resolve, shapes_at
from convscope.graph.table import ELEMENTWISE, row_of
from convscope.graph.windows import Window, adaptive_windows, windows


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
        constant: Callable[[Node], Tensor],
        patches: dict[Node, Patch],
    ) -> None:
        self.n, self.constant, self.patches, self._remembered = n, constant, patches, remembered

    def before(self, node: Node, box: Box) -> Tensor:
        """The remembered values of a map in a box, (1, C, height, width)."""
        return box.cut(self._remembered[node])

    def now(self, node: Node, box: Box) -> Any:
        """The values of a map in a box, (n, C, height, width)."""
        if node in self.patches:
            return self.patches[node].over(box, lambda larger: self.before(node, larger))
        return self.before(node, box).expand(self.n, -1, -1, -1)

    def whole(self, node: Node) -> Tensor:
        """The values of a whole map, (n, C, H, W)."""
        return self.now(node, Box(*(Span(0, size) for size in self._remembered[node].shape[2:])))


class Rule(ABC):
    """How one operation is worked out inside a box."""

    def reach(self, axis: int, span: Span) -> Span:
        """The output's rows (axis 0) or columns (1) that change with those of the inputs; empty if it stops ≤ starts."""
        return span

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
    node: Node
    windows: Sequence[Window]
    sizes: Sequence[int]
    groups: int

    def reach(self, axis: int, span: Span) -> Span:
        return reached(self.windows[axis], span, self.sizes[axis])

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        source, weight = self.node.args[0], maps.constant(self.node.args[1])
        needed = Box(*(read(w, span) for w, span in zip(self.windows, box, strict=True)))
        seen = changed.meet(needed)
        change = maps.now(source, seen) - maps.before(source, seen)
        strides, dilations = ([getattr(w, key) for w in self.windows] for key in ("stride", "dilation"))
        zeros = [_zeros(have, need, s) for have, need, s in zip(seen, needed, strides, strict=True)]
        found = F.conv2d(change, weight, None, strides, zeros, dilations, self.groups)
        # More zeros than needed ahead of it give as many outputs too many.
        firsts = [(n - have.start + need.start) // s for n, have, need, s in zip(zeros, seen, needed, strides, strict=True)]
        wanted = Box(*(Span(first, first + span.length) for first, span in zip(firsts, box, strict=True)))
        return wanted.cut(found) + maps.before(self.node, box)


@dataclass(frozen=True)
class Pool(Rule):
    """Runs the pool on a crop of its input, with its own padding at each end, and drops outputs that read a false one."""

    node: Node
    windows: Sequence[Window]
    sizes: Sequence[int]
    input_sizes: Sequence[int]
    pool: Callable[[Tensor], Tensor]

    def reach(self, axis: int, span: Span) -> Span:
        return reached(self.windows[axis], span, self.sizes[axis])

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        firsts = [max(0, span.start - -(-w.before // w.stride)) for w, span in zip(self.windows, box, strict=True)]
        crop = Box(
            *(
                Span(first * w.stride, min(size, read(w, span).stop))
                for first, w, span, size in zip(firsts, self.windows, box, self.input_sizes, strict=True)
            )
        )
        rows, columns = (span.moved(-first) for first, span in zip(firsts, box, strict=True))
        return Box(rows, columns).cut(self.pool(maps.now(self.node.args[0], crop)))


@dataclass(frozen=True)
class Padding(Rule):
    """A border of a constant, or with negative widths a cut."""

    node: Node
    before: Sequence[int]
    sizes: Sequence[int]

    def reach(self, axis: int, span: Span) -> Span:
        moved = span.moved(self.before[axis])
        return Span(max(0, moved.start), min(self.sizes[axis], moved.stop))

    def run(self, maps: Maps, changed: Box, box: Box) -> Tensor:
        inside = Box(*(span.moved(-n) for span, n in zip(box, self.before, strict=True)))
        return maps.now(self.node.args[0], inside)


def _zeros(have: Span, need: Span, stride: int) -> int:
    """How many to put at both ends of `have`, so that it covers `need` and windows begin where those of `need` do.

    The convolution's own zeros cost no multiply-adds, unlike those of a padded tensor.
    """
    ahead, behind = have.start - need.start, need.stop - have.stop
    return ahead - (ahead - max(ahead, behind)) // stride * stride


def rule_of(node: Node, sources: Sequence[Node]) -> Rule | None:
    """The rule for an operation whose inputs change in boxes; None where all of its output may change.

    Args:
        node: the operation.
        sources: those of its inputs that depend on the image.
    """
    if not all(map(_is_map, (node, *sources))):
        return None
    make = _RESIZING.get(str(node.target))
    if make is not None:
        return make(node, Call(node, 1)) if sources == [node.args[0]] else None
    sizes = {shape[2:] for n in (node, *sources) for shape in shapes_at(n, 1)}
    constants = _constants_of(node)
    return Pointwise(node, sources, constants == "map") if constants and len(sizes) == 1 else None


def _is_map(node: Node) -> bool:
    """Whether all that the node yields is (N, C, H, W)."""
    shapes, axes = shapes_at(node, 1), batch_axes(node)
    return all(len(s) == 4 and s[0] == 1 and axis == 0 for s, axis in zip(shapes, axes, strict=True))


def _constants_of(node: Node) -> str | None:
    """Where each position reads its own place alone, what the constants are aligned with: "map" or "units"."""
    target, call = str(node.target), Call(node, 1)
    if (
        node.target is operator.getitem
        or target in _UNITWISE
        or (target in _ALONG_UNITS and call["dim"] in (1, -3))
        or target == "aten.slice.Tensor"  # its rows and columns are all there
        or (target == "aten.batch_norm.default" and not call["training"])
    ):
        return "units"
    return "map" if row_of(node).field is ELEMENTWISE else None


def _convolution(node: Node, call: Call) -> Rule:
    return Convolution(node, windows(call), call.output_shape[2:], call["groups"])


def _pool(node: Node, call: Call) -> Rule:
    arguments = {name: call[name] for name in call.arguments if name != "self"}
    target: Any = node.target
    return _pool_with(node, call, windows(call), lambda x: target(x, **arguments))


def _adaptive_pool(node: Node, call: Call) -> Rule | None:
    even = adaptive_windows(call)
    return even and _pool_with(node, call, even, lambda x: F.avg_pool2d(x, [w.kernel for w in even]))


def _pool_with(node: Node, call: Call, slid: Sequence[Window], pool: Callable[[Tensor], Tensor]) -> Rule:
    return Pool(node, slid, call.output_shape[2:], call.input_shape[2:], pool)


def _padding(node: Node, call: Call) -> Rule | None:
    pad = [*call["pad"], 0, 0][:4]  # left, right, top, bottom
    flat = len(call["pad"]) <= 4 and ("mode" not in call or call["mode"] == "constant")
    return Padding(node, (pad[2], pad[0]), call.output_shape[2:]) if flat else None


_RESIZING: dict[str, Callable[[Node, Call], Rule | None]] = {
    "aten.conv2d.default": _convolution,
    "aten.conv2d.padding": _convolution,
    "aten.max_pool2d.default": _pool,
    "aten.avg_pool2d.default": _pool,
    "aten.adaptive_avg_pool2d.default": _adaptive_pool,
    "aten.pad.default": _padding,
    "aten.constant_pad_nd.default": _padding,
}
_UNITWISE = ("aten.prelu.default", "aten.channel_shuffle.default")
_ALONG_UNITS = (
    "aten.cat.default",
    "aten.chunk.default",
    "aten.split.Tensor",
    "aten.split_with_sizes.default",
    "aten.narrow.default",
    "aten.softmax.int",
    "aten.log_softmax.int",
)
