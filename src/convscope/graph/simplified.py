"""Operations of an exported graph that read no more of a tensor than its shape and type, made independent of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

aten = torch.ops.aten
Rewrite = Callable[[Graph, Node, Tensor], Node]
"""From the graph, a node and an example of its result to the node that takes its place."""


def simplify(graph: Graph) -> None:
    """Rewrites each operation of `_REWRITES` in place.

    Else constants such as `x.new_zeros(8)` would count as worked out from the images. A written slice becomes what was
    written: PyTorch knows no derivative of `aten.copy`.
    """
    for node in list(graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is None:
            continue
        with graph.inserting_before(node):
            new = rewrite(graph, node, node.meta["val"])
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def _filled(value: Callable[[Node], Any]) -> Rewrite:
    def rewrite(graph: Graph, node: Node, result: Tensor) -> Node:
        place: dict[str, Any] = {"dtype": result.dtype, "device": result.device}
        return graph.call_function(aten.full.default, (list(result.shape), value(node)), place)

    return rewrite


def _reshaped(operator: Any) -> Rewrite:
    return lambda graph, node, result: graph.call_function(operator, (node.args[0], list(result.shape)))


def _as_type(graph: Graph, node: Node, result: Tensor) -> Node:
    return graph.call_function(aten.to.dtype, (node.args[0], result.dtype))


def _copied(graph: Graph, node: Node, result: Tensor) -> Node:
    source: Any = node.args[1]
    like: Tensor = source.meta["val"]
    if like.dtype != result.dtype:
        source = graph.call_function(aten.to.dtype, (source, result.dtype))
        source.meta = {**node.meta, "val": like.to(result.dtype)}
    return graph.call_function(aten.expand.default, (source, list(result.shape)))


_zeros, _ones, _given = _filled(lambda node: 0), _filled(lambda node: 1), _filled(lambda node: node.args[-1])
_REWRITES: dict[Any, Rewrite] = {
    **dict.fromkeys((aten.new_zeros.default, aten.zeros_like.default), _zeros),
    # What an uninitialised tensor holds counts for nothing: it is written before it is read.
    **dict.fromkeys((aten.new_empty.default, aten.new_empty_strided.default, aten.empty_like.default), _zeros),
    **dict.fromkeys((aten.new_ones.default, aten.ones_like.default), _ones),
    **dict.fromkeys((aten.new_full.default, aten.full_like.default), _given),
    aten.expand_as.default: _reshaped(aten.expand.default),
    # A view holds for the strides of the device that it was traced on.
    **dict.fromkeys((aten.view.default, aten.view_as.default), _reshaped(aten.reshape.default)),
    aten.reshape_as.default: _reshaped(aten.reshape.default),
    **dict.fromkeys((aten.type_as.default, aten.to.other, aten.to.dtype_layout, aten.to.device), _as_type),
    aten.copy.default: _copied,
}
