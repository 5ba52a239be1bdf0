"""Receptive fields on the infinite plane, where all positions of a map are alike: size, stride, first centre.

A `Grid` follows a map through the graph as long as its positions lie evenly on the image. Where they do not
any more (flattening, dense layers, global pools, branches that disagree) there is none, and only the exact
boxes remain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from convscope.graph.calls import Call, axis_order, shapes_at
from convscope.graph.windows import Window, adaptive_windows, windows

Pair = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Where the positions of a map look, in input pixels, as if the plane had no border.

    Attributes:
        axes: the tensor's axes for rows and columns.
        first: top and left of what position (0, 0) sees.
        last: its bottom and right, exclusive.
        stride: how far the field moves from one position to the next, down and to the right.
        alike: whether all units see the same; if not, this is their union, and says nothing of some of them.
    """

    axes: Pair
    first: Pair
    last: Pair
    stride: Pair
    alike: bool = True

    @property
    def size(self) -> Pair:
        return (self.last[0] - self.first[0], self.last[1] - self.first[1])

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of what position (0, 0) sees; pixel centres are at integers."""
        return ((self.first[0] + self.last[0] - 1) / 2, (self.first[1] + self.last[1] - 1) / 2)


OF_IMAGE = Grid(axes=(2, 3), first=(0, 0), last=(1, 1), stride=(1, 1))


def joined(call: Call) -> Grid | None:
    """The union of the inputs' fields, where they move alike over maps of one size."""
    grids = call.inputs
    if not grids or None in grids or len({(g.axes, g.stride) for g in grids}) > 1:
        return None
    shapes = [call.output_shape, *(shapes_at(n, call.n)[0] for n in call.node.all_input_nodes if n in call.values)]
    row, column = grids[0].axes
    if len({len(shape) for shape in shapes}) > 1 or len({(shape[row], shape[column]) for shape in shapes}) > 1:
        return None
    first = (min(g.first[0] for g in grids), min(g.first[1] for g in grids))
    last = (max(g.last[0] for g in grids), max(g.last[1] for g in grids))
    return replace(grids[0], first=first, last=last, alike=all(g.alike for g in grids))


def convolution(call: Call) -> Grid | None:
    """As a window; without groups every unit sees all units of the input."""
    grid = windowed(call)
    return replace(grid, alike=grid.alike or call["groups"] == 1) if grid else None


def windowed(call: Call) -> Grid | None:
    return _slide(call.input, windows(call))


def adaptive(call: Call) -> Grid | None:
    even = adaptive_windows(call)
    return _slide(call.input, even) if even else None


def kept_beside(axes: Callable[[Call], list[int]]) -> Callable[[Call], Grid | None]:
    """The input's grid, as long as the operation mixes only along other axes than rows and columns."""

    def grid(call: Call) -> Grid | None:
        union = joined(call)
        n_axes = len(call.output_shape)
        return union if union and not {a % n_axes for a in axes(call)} & set(union.axes) else None

    return grid


def concatenated(call: Call) -> Grid | None:
    grids = call.inputs
    axis = call["dim"] % len(call.output_shape)
    together = None if None in grids or axis in grids[0].axes else joined(call)
    same = len({(g.first, g.last) for g in grids if g}) == 1
    return replace(together, alike=together.alike and same) if together else None


def split(call: Call) -> Any:
    """One grid for each of the parts of a map that is cut along its units."""
    grid = call.input
    axis = call["dim"] % len(call.input_shape)
    return [grid if grid and grid.alike and axis not in grid.axes else None] * len(call.output_shapes)


def part(call: Call) -> Grid | None:
    together = call.input
    return together[call.arguments["1"]] if isinstance(together, list) else together


def sliced(call: Call) -> Grid | None:
    grid, axis, start, step = call.input, call["dim"], call["start"] or 0, call["step"]
    if grid is None or (axis % len(call.input_shape) not in grid.axes):
        return grid if grid and (grid.alike or call.output_shape == call.input_shape) else None
    axis %= len(call.input_shape)
    start = max(start + call.input_shape[axis], 0) if start < 0 else start
    along = grid.axes.index(axis)
    moved = start * grid.stride[along]
    first, last, stride = list(grid.first), list(grid.last), list(grid.stride)
    first[along], last[along], stride[along] = first[along] + moved, last[along] + moved, stride[along] * step
    return replace(grid, first=tuple(first), last=tuple(last), stride=tuple(stride))


def padded(call: Call) -> Grid | None:
    """Padding shifts the plane: with zeros, and as well with copies, which exist at the border only."""
    grid, sides = call.input, call["pad"]  # left, right, top, bottom
    if grid is None or grid.axes != (2, 3):
        return None
    top = sides[2] if len(sides) > 2 else 0
    return _slide(grid, (Window(1, 1, top, 1), Window(1, 1, sides[0], 1)))


def permuted(call: Call) -> Grid | None:
    grid, order = call.input, axis_order(call)
    return grid and replace(grid, axes=(order.index(grid.axes[0]), order.index(grid.axes[1])))


def _slide(grid: Grid | None, axis_windows: tuple[Window, ...]) -> Grid | None:
    if grid is None or grid.axes != (2, 3) or len(axis_windows) != 2:
        return None
    (top, left), (bottom, right), (down, across) = grid.first, grid.last, grid.stride
    y, x = axis_windows
    return Grid(
        axes=grid.axes,
        first=(top - y.before * down, left - x.before * across),
        last=(bottom + (y.span - 1 - y.before) * down, right + (x.span - 1 - x.before) * across),
        stride=(down * y.stride, across * x.stride),
        alike=grid.alike,
    )
