"""What convscope knows of each operator of aten: its kind, its receptive field, and its multiply-adds.

To teach it another operator, add the overload to the line of its field, and where its kind has another name or it
multiplies, to the tables below. One without a field sees the whole image, and the anatomy's note names it. Operators that
torch tags as pointwise need none.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch._ops import OpOverload
from torch.fx import Node

from convscope.graph import bounds, costs, grids
from convscope.graph.bounds import Bounds
from convscope.graph.calls import Call, named_axes
from convscope.graph.carried import is_carried
from convscope.graph.windows import adaptive_windows, border_windows, windows


@dataclass(frozen=True)
class Field:
    """How an operator passes receptive fields on: at each position of the image, and on the plane."""

    bounds: Callable[[Call], Bounds]
    grid: Callable[[Call], object] = lambda call: None


@dataclass(frozen=True)
class Row:
    """An operator's kind in the field's words, its receptive field, and its multiply-adds for one image.

    `known` is false for an operator without a field, which is therefore taken to see the whole image.
    """

    kind: str
    field: Field
    multiply_adds: Callable[[Call], int] = costs.nothing
    known: bool = True


def _positions(call: Call) -> list[int]:
    return list(range(2, len(call.input_shape)))


def _mixed(axes: Callable[[Call], list[int]]) -> Field:
    return Field(bounds.mixed(axes), grids.kept_beside(axes))


ELEMENTWISE = Field(bounds.elementwise, grids.joined)
REDUCED = _mixed(named_axes)
WHOLE = Field(bounds.whole_image)
_CONV = Field(bounds.convolution, grids.windowed(windows))
_DENSE = _mixed(lambda call: [-1])
_POOL = Field(bounds.pool, grids.windowed(windows))
_ADAPTIVE = Field(bounds.adaptive_pool, grids.windowed(adaptive_windows))
# without running statistics batch norm measures each map as a whole
_BATCH_NORM = _mixed(lambda call: _positions(call) if call["training"] else [])
_INSTANCE_NORM = _mixed(lambda call: _positions(call) if call["use_input_stats"] else [])
_CARRIED = Field(lambda call: call.input, lambda call: call.input)  # the same value, with a gradient of its own
_PART = Row("part", Field(bounds.part, grids.part))

_OPERATORS: dict[Field, str] = {
    _CONV: "conv1d.default conv2d.default conv3d.default conv1d.padding conv2d.padding conv3d.padding",
    Field(bounds.convolution): "conv_transpose1d.default conv_transpose2d.input conv_transpose3d.input",
    _DENSE: "linear.default rnn_tanh_cell.default rnn_relu_cell.default lstm_cell.default gru_cell.default",
    Field(bounds.matmul): "matmul.default mm.default bmm.default",
    Field(bounds.attention): "scaled_dot_product_attention.default",
    Field(bounds.recurrent): "rnn_tanh.input rnn_relu.input lstm.input gru.input",
    # norms and other layers that mix along axes
    _BATCH_NORM: "batch_norm.default",
    Field(lambda call: (bounds.elementwise(call),), grids.joined): "_native_batch_norm_legit_no_training.default",
    _INSTANCE_NORM: "instance_norm.default",
    Field(bounds.group_norm): "group_norm.default",
    _mixed(lambda call: list(range(-len(call["normalized_shape"]), 0))): "layer_norm.default rms_norm.default",
    _mixed(named_axes): "softmax.int log_softmax.int glu.default",
    _POOL: "max_pool1d.default max_pool2d.default max_pool3d.default max_pool2d_with_indices.default "
    "max_pool3d_with_indices.default avg_pool1d.default avg_pool2d.default avg_pool3d.default",
    _ADAPTIVE: "adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default "
    "adaptive_max_pool1d.default adaptive_max_pool2d.default adaptive_max_pool3d.default",
    REDUCED: "mean.dim sum.dim_IntList amax.default amin.default max.dim min.dim var.correction std.correction "
    "var.dim std.dim var_mean.correction var_mean.dim prod.dim_int median.dim logsumexp.default linalg_vector_norm.default",
    # torch does not tag these as pointwise
    ELEMENTWISE: "hardswish.default prelu.default log_sigmoid.default dropout.default feature_dropout.default "
    "alpha_dropout.default to.dtype _to_copy.default contiguous.default clone.default alias.default detach.default",
    # the same values elsewhere
    Field(bounds.moved, grids.concatenated): "cat.default",
    # padding shifts the plane: with zeros, and as well with copies, which exist at the border only
    Field(bounds.moved, grids.windowed(border_windows)): "pad.default constant_pad_nd.default",
    Field(bounds.moved, grids.permuted): "permute.default transpose.int",
    Field(bounds.moved, grids.sliced): "slice.Tensor",
    Field(bounds.moved, grids.split): "chunk.default split.Tensor split_with_sizes.default",
    Field(bounds.patches): "im2col.default",
    Field(bounds.moved): "flatten.using_ints reshape.default unflatten.int squeeze.default squeeze.dim squeeze.dims "
    "unsqueeze.default expand.default repeat.default tile.default repeat_interleave.self_int select.int narrow.default "
    "unbind.int tensor_split.sections tensor_split.indices stack.default unfold.default diagonal.default roll.default "
    "flip.default fliplr.default flipud.default rot90.default index.Tensor index_select.default gather.default "
    "select_scatter.default slice_scatter.default pixel_shuffle.default pixel_unshuffle.default "
    "channel_shuffle.default upsample_nearest2d.vec",
}
_FIELDS = {overload: field for field, overloads in _OPERATORS.items() for overload in overloads.split()}
_KINDS: dict[str, str] = {
    "linear": "dense",
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "einsum"), "matmul"),
    "scaled_dot_product_attention": "attention",
    **dict.fromkeys(("rnn_tanh", "rnn_relu", "rnn_tanh_cell", "rnn_relu_cell"), "rnn"),
    "lstm_cell": "lstm",
    "gru_cell": "gru",
    "_native_batch_norm_legit_no_training": "batch_norm",
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), "max_pool"),
    "amax": "max",
    "amin": "min",
    "var_mean": "var",
    "linalg_vector_norm": "norm",
    **dict.fromkeys(("feature_dropout", "alpha_dropout"), "dropout"),
    "_to_copy": "to",
    "cat": "concat",
    "constant_pad_nd": "pad",
    **dict.fromkeys(("chunk", "split_with_sizes", "unbind", "tensor_split"), "split"),
    "unflatten": "reshape",
    **dict.fromkeys(("tile", "repeat_interleave"), "repeat"),
    "narrow": "slice",
    **dict.fromkeys(("fliplr", "flipud"), "flip"),
    "index_select": "index",
    "im2col": "unfold",
    "upsample_nearest2d": "upsample",
}
"""Where an operator is no kind of its own; of others the kind is the name, without the number of its axes."""

_COSTS: dict[str, Callable[[Call], int]] = {
    "conv": costs.convolution,
    "conv_transpose": costs.transposed_convolution,
    "dense": costs.dense,
    "matmul": costs.matmul,
    **dict.fromkeys(("addmm", "baddbmm"), costs.added_matmul),
    "einsum": costs.einsum,
    "attention": costs.attention,
    **dict.fromkeys(("rnn", "lstm", "gru"), costs.recurrent),
}
"""By operator or kind."""


def row_of(node: Node) -> Row:
    """What is known of the operator that `node` calls."""
    if node.target is operator.getitem:
        return _PART
    if is_carried(node):
        return Row(node.target.__name__.lower(), _CARRIED)  # type: ignore[union-attr]
    if not isinstance(node.target, OpOverload):
        return Row(str(getattr(node.target, "__name__", node.target)), WHOLE, known=False)
    overload = str(node.target).removeprefix("aten.")
    name = overload.split(".")[0]
    elsewhere = ELEMENTWISE if torch.Tag.pointwise in node.target.tags else None
    field = _FIELDS.get(overload, elsewhere)
    kind = _KINDS.get(name) or (re.sub(r"\d+d$", "", name) if overload in _FIELDS else name.strip("_"))
    return Row(kind, field or WHOLE, _COSTS.get(name) or _COSTS.get(kind, costs.nothing), field is not None)
