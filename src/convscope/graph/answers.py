"""Which of a network's results is its answer, and whether that is logits or probabilities already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

from convscope.errors import UnknownNameError
from convscope.graph.traced import INPUT, TracedGraph

NAMES = ("logits", "out", "output", "outputs")
"""What networks call their answer where they return several results; the first that is there is taken."""


def choose(graph: TracedGraph, output: str | int | None = None, n_classes: int | None = None) -> TracedGraph:
    """The graph with its answer first among its outputs.

    Args:
        graph: the traced network.
        output: the name or index of a result, see `TracedGraph.results`. By default, among those that are one row of numbers
            an image, that of a name in `NAMES`, else that of as many numbers as there are classes, else the first.
        n_classes: the number of classes, where it is known.

    Returns:
        The graph; with a note where the choice was not the user's and there was another.

    Raises:
        UnknownNameError: there is no such result.
    """
    if output is not None:
        return graph.answering(graph.results[_named(graph, output)])
    rows = {name: op for name, op in graph.results.items() if len(graph.operation(op).output_shape) == 1}
    if not rows:
        return graph
    by_name = [name for usual in NAMES for name in rows if name.rpartition(".")[2] == usual]
    by_width = [name for name in rows if _width(graph, name) == n_classes]
    not_auxiliary = [name for name in rows if "aux" not in name]
    name = next(iter([*by_name, *by_width, *not_auxiliary, *rows]))
    if len(rows) == 1:
        return graph.answering(rows[name])
    listed = ", ".join(f"{other} ({_width(graph, other)} numbers)" for other in rows)
    return graph.answering(rows[name], f"of the network's results {listed}, {name} is taken: output= names another")


def answering_logits(graph: TracedGraph) -> TracedGraph:
    """The graph with its answer before a softmax, sigmoid or log sigmoid that the network ends in.

    A network that gives probabilities in another way answers their logarithms: the softmax of these is the same
    probabilities. It is noticed by one run on noise.
    """
    answer = graph.operation(graph.outputs[0])
    if len(answer.output_shape) != 1 or answer.n_parameters:
        return graph
    if answer.kind in ("softmax", "sigmoid", "log_sigmoid"):
        before, note = answer.inputs[0], f"the network ends in a {answer.kind}; its logits are taken before it"
        if answer.kind != "softmax" and answer.output_shape != (1,):
            note = f"{note}, and probabilities are one softmax over the classes, not a sigmoid of each"
        if before != INPUT:
            return graph.answering(before, note)
    if answer.kind not in ("log_softmax", "softmax") and _gives_probabilities(graph):
        extended = graph.inserting(answer.name, _logarithm)
        logarithm = extended.outputs[0]
        [clamped] = extended.operation(logarithm).inputs
        [own] = extended.operation(clamped).inputs  # what the network itself gives, with which gradients are compared
        extended.results = {key: own if name == logarithm else name for key, name in extended.results.items()}
        return extended.answering(
            logarithm, "the network gives probabilities; their logarithms are taken for its logits"
        )
    return graph


def _named(graph: TracedGraph, output: str | int) -> str:
    name = dict(enumerate(graph.results)).get(output, str(output)) if isinstance(output, int) else output
    if name not in graph.results:
        names = [name or "0" for name in graph.results]
        raise UnknownNameError("output", str(output), names, "among the network's results")
    return name


def _width(graph: TracedGraph, name: str) -> int:
    return graph.operation(graph.results[name]).output_shape[0]


def _gives_probabilities(graph: TracedGraph) -> bool:
    """Whether the answer to two images of noise is not negative and sums to 1."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((2, *graph.input_shape), generator=generator).to(graph.like)
    with torch.no_grad():
        answer = graph.run(noise, graph.outputs[:1])[graph.outputs[0]].float()
    one = answer.new_ones(())
    return bool((answer >= 0).all()) and torch.allclose(answer.sum(1), one, atol=1e-3) and answer.shape[1] > 1


def _logarithm(graph: Graph, node: Node, constants: Mapping[str, Node]) -> Node:
    result: Any = node.meta["val"]
    positive = graph.call_function(torch.ops.aten.clamp_min.default, (node, torch.finfo(result.dtype).tiny))
    logarithm = graph.call_function(torch.ops.aten.log.default, (positive,))
    positive.meta, logarithm.meta = dict(node.meta), dict(node.meta)
    return logarithm
