"""Receptive fields on the infinite plane, where all positions of a map are alike: size, stride, first centre.

A `Grid` follows a map through the graph as long as its positions lie evenly on the image. Where they do not
any more (flattening, dense layers, global pools, branches that disagree) there is none, and only the exact
boxes remain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convscope.graph.calls import Call, axis_order, shapes_at
from convscope.graph.windows import Window, slice_window

Pair = tuple[int, int]


@dataclass(frozen=True)
class Line:
    """Where the positions along one axis look, in input pixels, as if the plane had no border.

    Attributes:
        axis: of the tensor.
        first: top or left of what position 0 sees.
        last: its bottom or right, exclusive.
        stride: how far the field moves from one position to the next, down or to the right.
    """

    axis: int
    first: int = 0
    last: int = 1
    stride: int = 1

    def through(self, window: Window) -> Line:
        """Where the positions of an operation look that slides a window along this axis."""
        first = self.first - window.before * self.stride
        last = self.last + (window.span - 1 - window.before) * self.stride
        return Line(self.axis, first, last, self.stride * window.stride)


@dataclass(frozen=True)
class Grid:
    """Where the positions of a map look.

    Attributes:
        rows: from top to bottom.
        columns: from left to right.
        alike: whether all units see the same; if not, this is their union, and says nothing of some of them.
    """

    rows: Line
    columns: Line
    alike: bool = True

    @property
    def axes(self) -> Pair:
        return self.rows.axis, self.columns.axis

    @property
    def size(self) -> Pair:
        return self.rows.last - self.rows.first, self.columns.last - self.columns.first

    @property
    def stride(self) -> Pair:
        return self.rows.stride, self.columns.stride

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of what position (0, 0) sees; pixel centres are at integers."""
        return (self.rows.first + self.rows.last - 1) / 2, (self.columns.first + self.columns.last - 1) / 2

    def each(self, change: Callable[[Line], Line]) -> Grid:
        """The grid with its rows and its columns changed."""
        return Grid(change(self.rows), change(self.columns), self.alike)


OF_IMAGE = Grid(Line(axis=2), Line(axis=3))


def joined(call: Call) -> Grid | None:
    """The union of the inputs' fields, where they move alike over maps of one size."""
    grids = call.inputs
    if not grids or None in grids or len({(g.axes, g.stride) for g in grids}) > 1:
        return None
    shapes = [call.output_shape, *(shapes_at(n, call.n)[0] for n in call.node.all_input_nodes if n in call.values)]
    row, column = grids[0].axes
    if len({len(shape) for shape in shapes}) > 1 or len({(shape[row], shape[column]) for shape in shapes}) > 1:
        return None
    rows, columns = (
        replace(lines[0], first=min(line.first for line in lines), last=max(line.last for line in lines))
        for lines in ([g.rows for g in grids], [g.columns for g in grids])
    )
    return Grid(rows, columns, all(g.alike for g in grids))


def windowed(windows: Callable[[Call], Sequence[Window] | None]) -> Callable[[Call], Grid | None]:
    """That of an operation which slides windows over rows and columns; None where they are not alike."""

    def slid(call: Call) -> Grid | None:
        grid, pair = call.input, windows(call)
        if grid is None or grid.axes != (2, 3) or pair is None or len(pair) != 2:
            return None
        # Without groups each unit of a convolution sees all units of the input.
        alike = grid.alike or call.arguments.get("groups") == 1
        return Grid(grid.rows.through(pair[0]), grid.columns.through(pair[1]), alike)

    return slid


def kept_beside(axes: Callable[[Call], list[int]]) -> Callable[[Call], Grid | None]:
    """The input's grid, as long as the operation mixes only along other axes than rows and columns."""

    def grid(call: Call) -> Grid | None:
        union = joined(call)
        n_axes = len(call.output_shape)
        return union if union and not {a % n_axes for a in axes(call)} & set(union.axes) else None

    return grid


def concatenated(call: Call) -> Grid | None:
    grids, together = call.inputs, joined(call)
    if together is None or call["dim"] % len(call.output_shape) in together.axes:
        return None
    same = len({(g.rows, g.columns) for g in grids}) == 1
    return replace(together, alike=together.alike and same)


def split(call: Call) -> Any:
    """One grid for each of the parts of a map that is cut along its units."""
    grid = call.input
    axis = call["dim"] % len(call.input_shape)
    return [grid if grid and grid.alike and axis not in grid.axes else None] * len(call.output_shapes)


def part(call: Call) -> Grid | None:
    together = call.input
    return together[call.arguments["1"]] if isinstance(together, list) else together


def sliced(call: Call) -> Grid | None:
    grid, (axis, window) = call.input, slice_window(call)
    if grid is None or axis in grid.axes:
        return grid and grid.each(lambda line: line.through(window) if line.axis == axis else line)
    return grid if grid.alike or call.output_shape == call.input_shape else None


def permuted(call: Call) -> Grid | None:
    grid, order = call.input, axis_order(call)
    return grid and grid.each(lambda line: replace(line, axis=order.index(line.axis)))
