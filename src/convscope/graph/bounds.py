"""Exact receptive fields at every position: the graph run on bounding boxes instead of values.

A tensor of *bounds* has the shape of an operation's output, with the batch axis taken by four rows: the first
row and the first column of the image that can reach each element, and the last ones, exclusive and negated.
With that sign the union of boxes is the minimum, so a rule is the operation's own form with the minimum in
place of its sum. What no pixel reaches (weights, constants, padding) is +∞, which a minimum leaves out. Row r
lies r · 2²⁰ higher than its pixels, so that a row can be told by its values where a network folds the batch's
axis into another one; float32 holds these whole numbers exactly.

Many operations treat all units alike; such axes are kept expanded (stride 0), so a rule looks at one unit and
expands again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from convscope.graph.calls import Call, batch_axes, resolve
from convscope.graph.windows import Window, adaptive_spans, transposed_windows, windows

Bounds = Tensor | Sequence[Tensor]
NOTHING = float("inf")
ROWS = 4
_APART = 2.0**20


def of_image(shape: tuple[int, ...]) -> Tensor:
    """The bounds of the image itself, C H W: each pixel sees itself, in every channel."""
    channels, height, width = shape
    y = torch.arange(height, dtype=torch.float32).view(1, height, 1).expand(1, height, width)
    x = torch.arange(width, dtype=torch.float32).view(1, 1, width).expand(1, height, width)
    rows = torch.stack([y, x, -y - 1, -x - 1])
    return (rows + _offsets().view(ROWS, 1, 1, 1)).expand(ROWS, channels, height, width)


def boxes(bounds: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Top, left, bottom, right of the union at each position along `axes`; zeros where no pixel reaches."""
    thin = cut_expanded(bounds)
    row_of = torch.floor(thin / _APART + 0.5)
    others = [axis for axis in range(thin.ndim) if axis not in axes]
    rows = [thin.where(row_of == row, NOTHING).amin(others) - row * _APART for row in range(ROWS)]
    union = torch.stack(rows).expand(ROWS, *(bounds.shape[axis] for axis in sorted(axes)))
    union = union.transpose(1, 2) if axes and axes[0] > axes[1] else union
    union = torch.where(union.isinf(), 0.0, union)
    return torch.cat([union[:2], -union[2:]]).to(torch.int64)


def whole_image(call: Call) -> Bounds:
    """Every element sees the whole image: the bounds of an operation about which nothing is known."""
    height, width = call.image_size
    rows = torch.tensor([0.0, 0.0, -height, -width]) + _offsets()
    bounds = []
    for shape, axis in zip(call.output_shapes, batch_axes(call.node), strict=True):
        if axis < 0:  # a by-product that nobody reads, else tracing would have refused it
            bounds.append(torch.full(shape, NOTHING))
            continue
        along = rows.repeat_interleave(shape[axis] // ROWS)  # several entries an image where axes were folded into one
        bounds.append(along.view(*[-1 if a == axis else 1 for a in range(len(shape))]).expand(shape))
    return tuple(bounds) if isinstance(call.node.meta["val"], list | tuple) else bounds[0]


def elementwise(call: Call) -> Tensor:
    """Each element sees what the elements at its place in the inputs see."""
    return reduce(torch.minimum, [cut_expanded(x) for x in call.inputs]).expand(call.output_shape)


def mixed(axes: Callable[[Call], list[int]]) -> Callable[[Call], Bounds]:
    """An output that sees all of its input along some axes: dense layers, norms, softmax; means and maxima may drop them."""

    def bounds(call: Call) -> Bounds:
        if not (along := axes(call)):  # for amin no axes are all
            return elementwise(call)
        keepdim = "keepdim" not in call or bool(call["keepdim"])  # a layer or norm keeps its axes
        unions = [cut_expanded(x).amin(along, keepdim) for x in call.inputs]
        return _as_yielded(reduce(torch.minimum, unions).expand(call.output_shape), call)

    return bounds


def group_norm(call: Call) -> Tensor:
    """Each unit sees its whole group of units, at all positions."""
    x = _units(call.input, call["num_groups"]).flatten(2).amin(2)  # 4, groups or 1
    x = _spread_groups(x, call.output_shape[1])
    return x.view(*x.shape, *[1] * (len(call.output_shape) - 2)).expand(call.output_shape)


def convolution(call: Call) -> Tensor:
    x, slid = _units(call.input, call["groups"]).amin(2), windows(call)
    if "output_padding" in call:  # transposed: it slides over its input spread out
        for axis, window in enumerate(slid, start=2):
            x = _insert_gaps(x, axis, window.stride)
        slid = transposed_windows(call)
    return _spread_groups(_slide(x, slid, call.output_shape), call.output_shape[1]).expand(call.output_shape)


def pool(call: Call) -> Bounds:
    x = _slide(_units_cut(call), windows(call), call.output_shape)
    return _as_yielded(x.expand(call.output_shape), call)


def adaptive_pool(call: Call) -> Bounds:
    x = _units_cut(call)
    for axis in range(x.ndim - call.n_spatial, x.ndim):
        spans = adaptive_spans(call.input_shape[axis], call.output_shape[axis])
        x = torch.stack([x.narrow(axis, a, b - a).amin(axis) for a, b in spans], axis)
    return _as_yielded(x.expand(call.output_shape), call)


def _units_cut(call: Call) -> Tensor:
    """The input of a pool; one that lacks the batch's axis takes the images for units, and has no other axis to cut."""
    return cut_expanded(call.input, axes=tuple(range(1, len(call.input_shape) - call.n_spatial)))


def matmul(call: Call) -> Tensor:
    """Element (i, j) sees row i of the left factor and column j of the right one; a vector has no axis in the product."""
    names = list(call.arguments)[:2]
    left, right = (call[name] for name in names)
    of_vectors = [len(call.shape(name)) == 1 for name in names]
    unions = [] if left is None else [left.amin(-1, keepdim=not of_vectors[1])]
    unions += [] if right is None else [right.amin(-2, keepdim=not of_vectors[0])]
    return reduce(torch.minimum, unions).expand(call.output_shape)


def attention(call: Call) -> Tensor:
    """Each query position sees itself and, through their keys and values, all others."""
    query, key, value, mask = (call[name] for name in ("query", "key", "value", "attn_mask"))
    unions = [] if query is None else [query.amin(-1, keepdim=True)]
    unions += [x.amin((-2, -1), keepdim=True) for x in (key, value, mask) if x is not None]
    if call["enable_gqa"]:  # several heads share keys
        unions = [x.repeat_interleave(call.output_shape[-3] // x.shape[-3], -3) for x in unions]
    return reduce(torch.minimum, unions).expand(call.output_shape)


def recurrent(call: Call) -> Bounds:
    """Step t sees the steps up to t, or all of them in a bidirectional layer; the last states see all, and all the first."""
    time = 1 if call["batch_first"] else 0
    x = torch.full(call.input_shape[:-1], NOTHING) if call.input is None else call.input.amin(-1)
    x = x.movedim(time, 0)  # steps, 4
    for state in call["hx"] if isinstance(call["hx"], list) else [call["hx"]]:
        x = x if state is None else torch.minimum(x, state.amin((0, -1)))
    steps = x.amin(0).expand_as(x) if call["bidirectional"] else x.cummin(0).values
    last = x.amin(0).view(1, -1, 1)
    shapes = call.output_shapes
    return (steps.movedim(0, time).unsqueeze(-1).expand(shapes[0]), *(last.expand(shape) for shape in shapes[1:]))


def part(call: Call) -> Tensor:
    """One of the tensors that an operation yields together."""
    return call.input[call.arguments["1"]]


def moved(call: Call) -> Bounds:
    """Reshaping, slicing, joining, padding: the operation itself, done to the bounds."""
    if any(node in call.values and not is_float(node) for node in call.node.all_input_nodes):
        return whole_image(call)  # where to read is itself worked out from the image
    arguments = {
        name: resolve(a, lambda node: _bounds_or_constant(call, node), call.n) for name, a in call.arguments.items()
    }
    if "value" in arguments and arguments.get("mode", "constant") == "constant":
        arguments["value"] = NOTHING  # the fill of a constant padding
    return call.node.target(**arguments)  # type: ignore[operator]


def patches(call: Call) -> Tensor:
    """The windows of `F.unfold`, side by side."""
    rows, columns = call["padding"]
    padded = F.pad(call.input, (columns, columns, rows, rows), value=NOTHING)
    return F.unfold(padded, call["kernel_size"], call["dilation"], 0, call["stride"])


def _bounds_or_constant(call: Call, node: Node) -> Any:
    """Of a tensor beside the image its own integers, which may be an index; else that no pixel reaches it."""
    if node in call.values:
        return call.values[node]
    value = call.constant(node) if call.constant else node.meta["val"]
    return torch.full_like(value, NOTHING, dtype=torch.float32) if value.is_floating_point() else value


def _offsets() -> Tensor:
    return torch.arange(ROWS) * _APART


def is_float(node: Node) -> bool:
    value = node.meta["val"]
    return value.is_floating_point() if isinstance(value, Tensor) else True


def cut_expanded(x: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """`x` with each expanded axis (of `axes`, or of all) cut to size 1."""
    for axis in range(x.ndim) if axes is None else axes:
        if x.stride(axis) == 0 and x.shape[axis] > 1:
            x = x.narrow(axis, 0, 1)
    return x


def _units(x: Tensor, groups: int) -> Tensor:
    """4, groups, units a group, …; a single group of one unit where all are alike."""
    x = cut_expanded(x, axes=(1,))
    return x.unsqueeze(1) if x.shape[1] == 1 else x.unflatten(1, (groups, -1))


def _spread_groups(x: Tensor, n_units: int) -> Tensor:
    """From one entry a group to one entry a unit."""
    groups = x.shape[1]
    return x if groups == 1 else x.repeat_interleave(n_units // groups, dim=1)


def _slide(x: Tensor, axis_windows: Sequence[Window], shape: Sequence[int]) -> Tensor:
    """The union over each position of the windows along the last axes, of which there are as many as in `shape`."""
    for axis, window in enumerate(axis_windows, start=x.ndim - len(axis_windows)):
        after = (shape[axis] - 1) * window.stride + window.span - window.before - x.shape[axis]
        padding = [0, 0] * (x.ndim - 1 - axis) + [window.before, after]  # negative: those positions are never read
        taps = F.pad(x, padding, value=NOTHING).unfold(axis, window.span, window.stride)
        x = taps[..., :: window.dilation].amin(-1)
    return x


def _insert_gaps(x: Tensor, axis: int, stride: int) -> Tensor:
    shape = list(x.shape)
    shape[axis] = (shape[axis] - 1) * stride + 1
    apart = x.new_full(shape, NOTHING)
    apart.transpose(0, axis)[::stride] = x.transpose(0, axis)
    return apart


def _as_yielded(x: Tensor, call: Call) -> Bounds:
    """`x` for every tensor that the operation yields (a max pool may give its indices too)."""
    return (x,) * len(call.output_shapes) if isinstance(call.node.meta["val"], tuple) else x
