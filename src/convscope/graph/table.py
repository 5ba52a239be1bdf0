"""What convscope knows of each operator: a row per aten overload.

A row holds the kind, the rule for receptive fields, and the rule for multiply-adds. To teach it another
operator, add a row. One without a row is named after itself, sees the whole image and costs nothing; the
anatomy's note then names it. Operators that torch tags as pointwise need no row: they are named after
themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch._ops import OpOverload
from torch.fx import Node

from convscope.graph import bounds, costs, grids
from convscope.graph.bounds import Bounds
from convscope.graph.calls import Call
from convscope.graph.carried import is_carried


@dataclass(frozen=True)
class Field:
    """How an operator passes receptive fields on: at each position of the image, and on the plane."""

    bounds: Callable[[Call], Bounds]
    grid: Callable[[Call], object] = grids.no_grid


@dataclass(frozen=True)
class Row:
    """An operator's kind in the field's words, its receptive field, and its multiply-adds for one image.

    `known` is false for an operator without a row, whose field is therefore taken as the whole image.
    """

    kind: str
    field: Field
    multiply_adds: Callable[[Call], int] = costs.nothing
    known: bool = True


def _dim(call: Call) -> list[int]:
    """The axes named by `dim`; none or an empty list means all but the batch's."""
    dim = call["dim"]
    return [dim] if isinstance(dim, int) else list(dim or range(1, len(call.input_shape)))


def _normalized(call: Call) -> list[int]:
    return list(range(-len(call["normalized_shape"]), 0))


def _positions(call: Call) -> list[int]:
    return list(range(2, len(call.input_shape)))


def _mixed(axes: Callable[[Call], list[int]]) -> Field:
    return Field(bounds.mixed(axes), grids.kept_beside(axes))


ELEMENTWISE = Field(bounds.elementwise, grids.joined)
REDUCED = Field(bounds.reduced(_dim), grids.kept_beside(_dim))
_CONV = Field(bounds.convolution, grids.convolution)
_CONV_TRANSPOSE = Field(bounds.transposed_convolution)
_DENSE = _mixed(lambda call: [-1])
_POOL = Field(bounds.pool, grids.windowed)
_ADAPTIVE = Field(bounds.adaptive_pool, grids.adaptive)
_MATMUL = Field(bounds.matmul)
_RECURRENT = Field(bounds.recurrent)
WHOLE = Field(bounds.whole_image)
_MOVED = Field(bounds.moved)

_TABLE: dict[str, Row] = {
    # products with weights or of activations
    **{f"aten.conv{n}d.{o}": Row("conv", _CONV, costs.convolution) for n in (1, 2, 3) for o in ("default", "padding")},
    "aten.conv_transpose1d.default": Row("conv_transpose", _CONV_TRANSPOSE, costs.transposed_convolution),
    "aten.conv_transpose2d.input": Row("conv_transpose", _CONV_TRANSPOSE, costs.transposed_convolution),
    "aten.conv_transpose3d.input": Row("conv_transpose", _CONV_TRANSPOSE, costs.transposed_convolution),
    "aten.linear.default": Row("dense", _DENSE, costs.dense),
    "aten.matmul.default": Row("matmul", _MATMUL, costs.matmul),
    "aten.mm.default": Row("matmul", _MATMUL, costs.matmul),
    "aten.bmm.default": Row("matmul", _MATMUL, costs.matmul),
    "aten.addmm.default": Row("matmul", WHOLE, costs.added_matmul, known=False),
    "aten.baddbmm.default": Row("matmul", WHOLE, costs.added_matmul, known=False),
    "aten.einsum.default": Row("matmul", WHOLE, costs.einsum, known=False),
    "aten.scaled_dot_product_attention.default": Row("attention", Field(bounds.attention), costs.attention),
    "aten.rnn_tanh.input": Row("rnn", _RECURRENT, costs.recurrent),
    "aten.rnn_relu.input": Row("rnn", _RECURRENT, costs.recurrent),
    "aten.lstm.input": Row("lstm", _RECURRENT, costs.recurrent),
    "aten.gru.input": Row("gru", _RECURRENT, costs.recurrent),
    "aten.rnn_tanh_cell.default": Row("rnn", _DENSE, costs.recurrent),
    "aten.rnn_relu_cell.default": Row("rnn", _DENSE, costs.recurrent),
    "aten.lstm_cell.default": Row("lstm", _DENSE, costs.recurrent),
    "aten.gru_cell.default": Row("gru", _DENSE, costs.recurrent),
    # norms and other layers that mix along axes
    # without running statistics batch norm measures each map as a whole
    "aten.batch_norm.default": Row("batch_norm", _mixed(lambda call: _positions(call) if call["training"] else [])),
    "aten._native_batch_norm_legit_no_training.default": Row(
        "batch_norm", Field(lambda call: (bounds.elementwise(call),), grids.joined)
    ),
    "aten.instance_norm.default": Row(
        "instance_norm", _mixed(lambda call: _positions(call) if call["use_input_stats"] else [])
    ),
    "aten.group_norm.default": Row("group_norm", Field(bounds.group_norm)),
    "aten.layer_norm.default": Row("layer_norm", _mixed(_normalized)),
    "aten.rms_norm.default": Row("rms_norm", _mixed(_normalized)),
    "aten.softmax.int": Row("softmax", _mixed(_dim)),
    "aten.log_softmax.int": Row("log_softmax", _mixed(_dim)),
    # pools and reductions
    **{f"aten.max_pool{n}d.default": Row("max_pool", _POOL) for n in (1, 2, 3)},
    **{f"aten.max_pool{n}d_with_indices.default": Row("max_pool", _POOL) for n in (2, 3)},
    **{f"aten.avg_pool{n}d.default": Row("avg_pool", _POOL) for n in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{n}d.default": Row("adaptive_avg_pool", _ADAPTIVE) for n in (1, 2, 3)},
    **{f"aten.adaptive_max_pool{n}d.default": Row("adaptive_max_pool", _ADAPTIVE) for n in (1, 2, 3)},
    "aten.mean.dim": Row("mean", REDUCED),
    "aten.sum.dim_IntList": Row("sum", REDUCED),
    "aten.amax.default": Row("max", REDUCED),
    "aten.amin.default": Row("min", REDUCED),
    "aten.max.dim": Row("max", REDUCED),
    "aten.min.dim": Row("min", REDUCED),
    "aten.var.correction": Row("var", REDUCED),
    "aten.std.correction": Row("std", REDUCED),
    "aten.var.dim": Row("var", REDUCED),
    "aten.std.dim": Row("std", REDUCED),
    "aten.var_mean.correction": Row("var", REDUCED),
    "aten.var_mean.dim": Row("var", REDUCED),
    "aten.prod.dim_int": Row("prod", REDUCED),
    "aten.median.dim": Row("median", REDUCED),
    "aten.logsumexp.default": Row("logsumexp", REDUCED),
    "aten.linalg_vector_norm.default": Row("norm", REDUCED),
    # elementwise operators that torch does not tag so
    "aten.hardswish.default": Row("hardswish", ELEMENTWISE),
    "aten.prelu.default": Row("prelu", ELEMENTWISE),
    "aten.log_sigmoid.default": Row("log_sigmoid", ELEMENTWISE),
    "aten.dropout.default": Row("dropout", ELEMENTWISE),
    "aten.feature_dropout.default": Row("dropout", ELEMENTWISE),
    "aten.alpha_dropout.default": Row("dropout", ELEMENTWISE),
    "aten.to.dtype": Row("to", ELEMENTWISE),
    "aten._to_copy.default": Row("to", ELEMENTWISE),
    "aten.contiguous.default": Row("contiguous", ELEMENTWISE),
    "aten.clone.default": Row("clone", ELEMENTWISE),
    "aten.alias.default": Row("alias", ELEMENTWISE),
    "aten.detach.default": Row("detach", ELEMENTWISE),
    # the same values elsewhere
    "aten.cat.default": Row("concat", Field(bounds.moved, grids.concatenated)),
    "aten.flatten.using_ints": Row("flatten", _MOVED),
    "aten.pad.default": Row("pad", Field(bounds.moved, grids.padded)),
    "aten.constant_pad_nd.default": Row("pad", Field(bounds.moved, grids.padded)),
    "aten.permute.default": Row("permute", Field(bounds.moved, grids.permuted)),
    "aten.transpose.int": Row("transpose", Field(bounds.moved, grids.permuted)),
    "aten.slice.Tensor": Row("slice", Field(bounds.moved, grids.sliced)),
    "aten.chunk.default": Row("split", Field(bounds.moved, grids.split)),
    "aten.split.Tensor": Row("split", Field(bounds.moved, grids.split)),
    "aten.split_with_sizes.default": Row("split", Field(bounds.moved, grids.split)),
    "aten.reshape.default": Row("reshape", _MOVED),
    "aten.unflatten.int": Row("reshape", _MOVED),
    "aten.squeeze.default": Row("squeeze", _MOVED),
    "aten.squeeze.dim": Row("squeeze", _MOVED),
    "aten.squeeze.dims": Row("squeeze", _MOVED),
    "aten.unsqueeze.default": Row("unsqueeze", _MOVED),
    "aten.expand.default": Row("expand", _MOVED),
    "aten.repeat.default": Row("repeat", _MOVED),
    "aten.tile.default": Row("repeat", _MOVED),
    "aten.repeat_interleave.self_int": Row("repeat", _MOVED),
    "aten.select.int": Row("select", _MOVED),
    "aten.narrow.default": Row("slice", _MOVED),
    "aten.unbind.int": Row("split", _MOVED),
    "aten.tensor_split.sections": Row("split", _MOVED),
    "aten.tensor_split.indices": Row("split", _MOVED),
    "aten.unfold.default": Row("unfold", _MOVED),
    "aten.im2col.default": Row("unfold", Field(bounds.patches)),
    "aten.diagonal.default": Row("diagonal", _MOVED),
    "aten.stack.default": Row("stack", _MOVED),
    "aten.roll.default": Row("roll", _MOVED),
    "aten.flip.default": Row("flip", _MOVED),
    "aten.fliplr.default": Row("flip", _MOVED),
    "aten.flipud.default": Row("flip", _MOVED),
    "aten.rot90.default": Row("rot90", _MOVED),
    "aten.index.Tensor": Row("index", _MOVED),
    "aten.index_select.default": Row("index", _MOVED),
    "aten.gather.default": Row("gather", _MOVED),
    "aten.select_scatter.default": Row("select_scatter", _MOVED),
    "aten.slice_scatter.default": Row("slice_scatter", _MOVED),
    "aten.pixel_shuffle.default": Row("pixel_shuffle", _MOVED),
    "aten.pixel_unshuffle.default": Row("pixel_unshuffle", _MOVED),
    "aten.channel_shuffle.default": Row("channel_shuffle", _MOVED),
    "aten.upsample_nearest2d.vec": Row("upsample", _MOVED),
}
_CARRIED = Field(lambda call: call.input, lambda call: call.input)  # the same value, with a gradient of its own
_PART = Row("part", Field(bounds.part, grids.part))


def row_of(node: Node) -> Row:
    """What is known of the operator that `node` calls."""
    if node.target is operator.getitem:
        return _PART
    if is_carried(node):
        return Row(node.target.__name__.lower(), _CARRIED)  # type: ignore[union-attr]
    if not isinstance(node.target, OpOverload):
        return Row(str(getattr(node.target, "__name__", node.target)), WHOLE, known=False)
    name = node.target._schema.name.split("::")[-1].strip("_")
    pointwise = torch.Tag.pointwise in node.target.tags
    unlisted = Row(name, ELEMENTWISE) if pointwise else Row(name, WHOLE, known=False)
    return _TABLE.get(str(node.target), unlisted)
