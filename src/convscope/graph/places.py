"""Where in the image each value of a result belongs: the graph run on coordinates instead of values.

The *places* of a result are a tensor of its shape for a batch of two images: the first holds the row of each element,
the second its column, as the centre of its share of the image, in (0, 1). An element that belongs nowhere (a class token,
padding, a constant) holds +∞. Operations that only move values (reshape, permute, roll, slice, join) are run on the
places themselves, so whatever a network does to its tensors is followed. Where a layer mixes values along an axis, its
result lies at the mean of their places; attention answers at the place of its query.

Axes along which all places are alike are kept expanded (stride 0), which costs no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from convscope.graph import bounds
from convscope.graph.bounds import NOTHING, is_float
from convscope.graph.calls import Call, named_axes
from convscope.graph.windows import windows

IMAGES = 2  # one that holds rows and one that holds columns
SAME = 1e-5  # what rounding may make of one place


def of_map(shape: tuple[int, ...]) -> Tensor:
    """The places of a map (N, C, H, W) whose positions cover equal shares of the image."""
    return of_list((shape[2], shape[3])).unflatten(1, shape[2:]).unsqueeze(1).expand(IMAGES, *shape[1:])


def of_list(size: tuple[int, int]) -> Tensor:
    """The places (2, P) of rows × columns positions that cover equal shares of the image, row by row."""
    rows, columns = ((torch.arange(n, dtype=torch.float32) + 0.5) / n for n in size)
    return torch.stack([rows.repeat_interleave(size[1]), columns.repeat(size[0])])


def moved(call: Call) -> Any:
    """The operation itself, done to the places; None where the image decides what is moved."""
    index = (node for node in call.values if node in call.node.all_input_nodes and not is_float(node))
    return None if next(index, None) is not None else bounds.moved(call)


def mixed_last(call: Call) -> Tensor:
    """A dense layer, an attention's query: one place for all that is mixed along the last axis."""
    return mean_place(_input(call), -1).expand(call.output_shape)


def mixed_units(call: Call) -> Tensor:
    """A convolution that keeps the shape of the map, or of the windows that it is cut into.

    An axis whose size changes is mixed along: a pool of three axes over the units, as in a local response norm.
    """
    places = mean_place(_input(call), 1)
    for axis, (before, after) in enumerate(zip(call.input_shape, call.output_shape, strict=True)):
        if axis > 1 and before != after:
            places = mean_place(places, axis)
    return places.expand(call.output_shape)


def under_windows(call: Call) -> Tensor:
    """A convolution or pool over a map in any order, as after a flip: each position lies where the middle of its window does.

    Of one that does not slide, such as an adaptive pool, that of an equal share of the map.
    """
    places = mean_place(call.input, 1)
    sliding = windows(call) if "stride" in call and "output_padding" not in call else ()
    for axis, n in enumerate(call.output_shape[2:], start=2):
        middles = ((torch.arange(n) + 0.5) * call.input_shape[axis] / n).long()
        if sliding:
            window = sliding[axis - 2]
            middles = torch.arange(n) * window.stride - window.before + (window.span - 1) // 2
        places = places.index_select(axis, middles.clamp(0, call.input_shape[axis] - 1))
    return places.expand(call.output_shape)


def ascend(places: Tensor) -> bool:
    """Whether the rows of a map (2, C, H, W) lie one below the other and its columns side by side, as in the image."""
    lines = (
        mean_place(mean_place(each, 1), axis).flatten() for each, axis in zip(places.split(1), (3, 2), strict=True)
    )
    return all(bool((line[line.isfinite()].diff() > 0).all()) for line in lines)


def reduced(call: Call) -> Any:
    """A mean, sum or maximum over some axes."""
    axes, places = named_axes(call), call.input
    for axis in axes:
        places = mean_place(places, axis)
    places = places if call["keepdim"] else places.squeeze([axis % places.ndim for axis in axes])
    places = places.expand(call.output_shape)
    return (places,) * len(call.output_shapes) if len(call.output_shapes) > 1 else places


def multiplied(call: Call) -> Tensor:
    """Row i of the left factor, whose place is that of a query; where all its rows are alike, column j of the right."""
    left, right = (call[name] for name in list(call.arguments)[:2])
    rows, columns = (None if x is None else mean_place(x, axis) for x, axis in ((left, -1), (right, -2)))
    by_column = rows is None or (columns is not None and _is_one_place(rows))
    kept: Any = columns if by_column else rows
    if kept.ndim > len(call.output_shape):  # the other factor is a vector
        kept = kept.squeeze(-2 if by_column else -1)
    return kept.expand(call.output_shape)


def mean_place(places: Tensor, axis: int) -> Tensor:
    """The mean along an axis, which is kept at size 1, of what belongs somewhere."""
    if places.stride(axis) == 0 or places.shape[axis] == 1:
        return places.narrow(axis, 0, 1)
    has_place = places.isfinite()
    total = places.where(has_place, 0).sum(axis, keepdim=True)
    return (total / has_place.sum(axis, keepdim=True)).nan_to_num(nan=NOTHING)  # 0 / 0 where nothing belongs anywhere


def of_positions(axes: tuple[int, ...], size: tuple[int, int], order: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """The places of a result of that shape with positions so, see `convscope.graph.Positions`."""
    listed = torch.full((IMAGES, prod(shape[axis] for axis in axes)), NOTHING)
    listed[:, torch.tensor(order)] = of_list(size)
    return listed.view(IMAGES, *(n if axis in axes else 1 for axis, n in enumerate(shape) if axis)).expand(shape)


def are_alike(places: Tensor, axis: int) -> bool:
    """Whether all along an axis belong to the same place, or to none."""
    thin = bounds.cut_expanded(places)
    first, last = thin.narrow(axis, 0, 1), thin.narrow(axis, -1, 1)
    # mostly the last tells
    return all(bool(torch.isclose(each, first, rtol=0, atol=SAME).all()) for each in (last, thin))


def _input(call: Call) -> Tensor:
    """Of what does not depend on the image, such as queries that the network has learned, all belongs nowhere."""
    return torch.tensor(NOTHING).expand(call.input_shape) if call.input is None else call.input


def _is_one_place(rows: Tensor) -> bool:
    """Whether all rows belong to the same place, not to none."""
    return bool(rows.isfinite().all()) and float((rows.amax(-2) - rows.amin(-2)).max()) < SAME
