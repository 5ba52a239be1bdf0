"""What it costs to run changed images: followed in boxes for some steps, and whole from there on.

Costs are in multiply-adds of a wide convolution, of which a core makes some 30 to 50 in a nanosecond. Only their ratios
count: they choose between ways that give the same answers up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import inf, prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import Node

from convscope.graph.boxes import Span, joined
from convscope.graph.calls import Call
from convscope.graph.local import Work

if TYPE_CHECKING:
    from convscope.graph.incremental import Incremental
    from convscope.graph.traced import Operation

PER_VALUE = 20
"""A value that is written or read once more."""

PER_CALL, PER_CALL_ON_GPU = 2e6, 2e9
"""The call of an operation: 50 µs of one core. A GPU calls no faster, and multiplies some 6e12 in a second (net4 whole,
H200); a step in boxes takes several calls: an estimate."""

IN_TURNS = 0.4
"""The share of a call that is Python's, which a CPU's threads do one after the other."""

IN_BOXES = 1.3
"""How much longer a product or value takes in boxes than in whole maps: small, cut out, put back."""

GAIN = 0.75
"""The share of the cost of whole passes from which on following is worth it: estimates are right to some 25 %."""

Counted = tuple[Span, int]
"""Rows or columns of a box, and how many of its images there are along this axis."""

Way = tuple[Sequence[Counted], Sequence[Counted]]
"""Rows and columns: the boxes are all pairs of them, each with the product of both numbers of images."""


def cheapest(network: Incremental, ways: Sequence[Way], at_once: int, device: torch.device) -> tuple[int, int]:
    """Which of several ways to cut changed pixels into boxes, and how many steps to follow them, 0 where whole is best.

    Args:
        network: as far as it can be followed.
        ways: of the same images, each in fewer boxes than the one before.
        at_once: how many images are run whole in one pass.
        device: where it will run.
    """
    per_call = PER_CALL_ON_GPU if device.type == "cuda" else PER_CALL * max(1, IN_TURNS * torch.get_num_threads())
    n_images = prod(sum(n for _, n in spans) for spans in ways[0])
    whole = _whole_after(network, per_call / at_once)
    after = [n_images * (PER_VALUE * edge + rest) for edge, rest in zip(edge_values(network), whole, strict=True)]
    largest = [prod(max(n for _, n in spans) for spans in way) for way in ways]
    fewest = max((i for i, n in enumerate(largest) if n <= at_once), default=0)  # the last whose boxes are small enough
    costs = {(fewest, 0): GAIN * after[0]}
    for i, way in enumerate(ways):
        boxed = accumulate(_boxed(network, way, per_call))
        # What is followed has to be run for the image as it is, too.
        costs |= {(i, k): cost + whole[0] - whole[k] + after[k] for k, cost in enumerate(boxed, start=1)}
    return min(costs, key=costs.__getitem__)


def changed(network: Incremental, axis: int, spans: Sequence[Span]) -> dict[Node, list[Span]]:
    """The rows (axis 0) or columns (1) of each map that change with those of the image."""
    spans_of = {network.graph.image: list(spans)}
    for step in network.steps:
        together = zip(*(spans_of[source] for source in step.sources), strict=True)
        spans_of[step.node] = [step.reach(axis, joined(of_box)) for of_box in together]
    return spans_of


def areas(network: Incremental, way: Way) -> dict[Node, int]:
    """How many positions of each map change, summed over the images of all boxes."""
    heights, widths = (
        {
            node: sum(n * max(0, span.length) for (_, n), span in zip(counted, spans, strict=True))
            for node, spans in changed(network, axis, [span for span, _ in counted]).items()
        }
        for axis, counted in enumerate(way)
    )
    return {node: heights[node] * widths[node] for node in heights}


def edge_values(network: Incremental) -> list[float]:
    """How many values of one image lie at the edge after 0, 1, … all steps; inf where it splits several results."""
    nodes = [network.graph.image, *(step.node for step in network.steps)]
    place = {node: i for i, node in enumerate(nodes)}
    never = len(nodes)
    last_read = dict.fromkeys(nodes, 0)
    for op in network.graph.operations:
        for source in op.node.all_input_nodes:
            if source in last_read:
                last_read[source] = max(last_read[source], place.get(op.node, never))
    last_read |= {n: never for n in [network.graph.operation(network.graph.outputs[0]).node] if n in last_read}
    sizes = {node: network.sizes[node] if isinstance(node.meta["val"], Tensor) else inf for node in nodes}
    return [sum(sizes[node] for node in nodes[: k + 1] if last_read[node] > k) for k in range(len(nodes))]


def _boxed(network: Incremental, way: Way, per_call: float) -> list[float]:
    """What each step costs in boxes."""
    positions, n_boxes = areas(network, way), prod(map(len, way))
    costs = []
    for step in network.steps:
        work = Work(positions[step.sources[0]], positions[step.node], n_boxes)
        values = step.units * work.outputs + step.copied(work)
        costs.append(IN_BOXES * (step.multiply_adds(work) + PER_VALUE * values) + per_call * n_boxes)
    return costs


def _whole_after(network: Incremental, per_call: float) -> list[float]:
    """What one image costs from the end of 0, 1, … all steps on."""
    followed = {step.node for step in network.steps}
    rest = sum(_whole(network, op, per_call) for op in network.graph.operations if op.node not in followed)
    in_order = [_whole(network, op, per_call) for op in network.graph.operations if op.node in followed]
    return list(accumulate(reversed(in_order), initial=rest))[::-1]


def _whole(network: Incremental, op: Operation, per_call: float) -> float:
    return op.row.multiply_adds(Call(op.node, 1)) + PER_VALUE * network.sizes[op.node] + per_call
