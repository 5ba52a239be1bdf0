"""The receptive field of each operation: what part of the image its units see."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import bounds, grids
from convscope.graph.bounds import ROWS, Bounds
from convscope.graph.calls import Call
from convscope.graph.grids import Grid
from convscope.graph.positions import Positions, positions
from convscope.graph.table import WHOLE
from convscope.graph.traced import TracedGraph, last_uses


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """What part of the image the units of one operation see.

    Size, stride and centre are those on the infinite plane, as papers give them; `box` is exact on this
    image, with what borders cut off, holes of dilation skip and branches add.

    Attributes:
        size: (height, width) in pixels. Where an operation has no rows and columns, or they do not lie evenly
            on the image, the size of the largest exact box.
        stride: (down, across), pixels from one position's field to the next; None where there is no such
            step.
        centre: (y, x) of position (0, 0)'s field, pixel centres at integers; None as stride.
        boxes: top, left, bottom, right of each position, bottom and right exclusive; zeros where a position
            sees nothing. One position for an operation without rows and columns.
    """

    size: tuple[int, int]
    stride: tuple[int, int] | None
    centre: tuple[float, float] | None
    boxes: Int[Tensor, "4 rows columns"]

    def box(self, row: int = 0, column: int = 0) -> tuple[int, int, int, int]:
        """The smallest box of the image that holds all pixels which the units at this position see.

        Positions are counted as the image lies. A network that flips or transposes its feature maps keeps them in another
        order: there row r of a tensor of activations is not row r here.

        Args:
            row: from 0 at the top of the image.
            column: from 0 at its left.

        Returns:
            (top, left, bottom, right) in pixels, half-open, so that `image[:, top:bottom, left:right]` is the
            patch.

        Raises:
            RequestError: there is no such position.
        """
        rows, columns = self.boxes.shape[1:]
        if not (0 <= row < rows and 0 <= column < columns):
            raise RequestError(
                f"position ({row}, {column}) is not on this map; it has {rows} rows and {columns} columns"
            )
        top, left, bottom, right = self.boxes[:, row, column].tolist()
        return top, left, bottom, right


def receptive_fields(graph: TracedGraph) -> dict[str, ReceptiveField]:
    """The receptive field of each operation, by name, in order of execution.

    It counts which pixels *can* matter, whatever the weights' values. Units of one operation share one field:
    the union. An operation that convscope does not know (`Operation.known`) is taken to see the whole image.

    Source: Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", for the
        sizes on the infinite plane; the boxes are worked out position by position instead, so that they hold for any graph.

    Example:
        >>> receptive_fields(graph)["conv3"].size
        (7, 7)
    """
    height, width = graph.input_shape[-2:]
    node_bounds: dict = {graph.image: bounds.of_image(graph.input_shape)}
    planes: dict = {graph.image: grids.OF_IMAGE}
    where = positions(graph)
    finished = last_uses([op.node for op in graph.operations])
    fields = {}
    for op in graph.operations:
        call = Call(op.node, ROWS, node_bounds, lambda node: graph.constant(node, ROWS), (height, width))
        dynamic_weights = call.arguments.get("weight") in node_bounds  # worked out from the image
        field = WHOLE if dynamic_weights else op.row.field
        planes[op.node] = field.grid(Call(op.node, ROWS, planes))
        node_bounds[op.node] = field.bounds(call)
        fields[op.name] = _summary(node_bounds[op.node], planes[op.node], where.get(op.name))
        for node in finished[op.node]:
            node_bounds.pop(node, None)
    return fields


def _summary(op_bounds: Bounds, grid: Grid | list | None, where: Positions | None) -> ReceptiveField:
    """The boxes are of the union over the units at each position; over everything where there are no positions."""
    first = op_bounds if isinstance(op_bounds, Tensor) else op_bounds[0]
    if where is not None:
        boxes = bounds.boxes(where.as_map(first), (2, 3))
    else:
        boxes = bounds.boxes(first, grid.axes) if isinstance(grid, Grid) else bounds.boxes(first, ()).view(ROWS, 1, 1)
    if isinstance(grid, Grid):
        return ReceptiveField(grid.size, grid.stride, grid.centre, boxes)
    height, width = (boxes[2] - boxes[0]).max(), (boxes[3] - boxes[1]).max()
    return ReceptiveField((int(height), int(width)), None, None, boxes)
