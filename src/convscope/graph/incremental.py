"""A network run on images that differ from a remembered one inside a box: only what the box can reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx import Node

from convscope.graph.boxes import Box, Patch, Span, hull, joined
from convscope.graph.calls import Call, batch_axes, is_tensor_node, shapes_at
from convscope.graph.local import Rule, rule_of
from convscope.graph.table import ELEMENTWISE
from convscope.graph.traced import Operation, TracedGraph

HEAD = (
    *("flatten", "reshape", "squeeze", "mean", "sum", "max", "part", "adaptive_avg_pool", "adaptive_max_pool"),
    *("dense", "batch_norm", "softmax", "log_softmax"),
)
"""Kinds that end a classifier: what they read is all reached, or they cost next to nothing."""

# In multiply-adds, at 50 of them a nanosecond: 0.4 ns to move a value or to make ready a weight, 20 µs for a call.
PER_VALUE, PER_WEIGHT, PER_CALL = 20, 20, 1e6
PER_CALL_ON_GPU = 1e8  # it multiplies a few hundred times faster, and calls hardly so


@dataclass(frozen=True)
class Step:
    """One operation that is worked out inside boxes.

    Attributes:
        sources: its inputs that depend on the image.
        products: its multiply-adds for each changed position of its input.
        weights: the number of its weights, where it multiplies with them.
        units: of its output.
    """

    op: Operation
    sources: tuple[Node, ...]
    rule: Rule
    products: float
    weights: int
    units: int


class Incremental:
    """A traced network that goes over changed images by recomputing at each layer what the change can reach.

    It follows maps (N, C, H, W) up to the *edge*: those that are flattened, pooled as a whole, or read by an
    operation that it has no rule for. From the edge on the whole network runs, on all images at once.

    Args:
        graph: the traced network.
        image: the image that the others differ from, normalised; it is run whole, once. What its layers
            answer is kept, and the weights must stay as they are.

    Attributes:
        logits: the answer to the image.
        note: one line on operations that run whole though they are no classifier's head; None without any.

    Example:
        >>> passes = Incremental(graph, image)
        >>> logits = passes.run([Patch(Box(Span(0, 5), Span(0, 5)), torch.zeros(1, 3, 5, 5))])
    """

    def __init__(self, graph: TracedGraph, image: Float[Tensor, "1 C H W"]) -> None:
        self.graph = graph
        self.steps = local_steps(graph)
        self.note = _note(graph, self.steps)
        self._edge = _edge(graph, self.steps)
        self._constants: dict[Node, Tensor] = {}
        names = [step.op.name for step in self.steps if isinstance(step.op.node.meta["val"], Tensor)]
        with torch.no_grad():
            found = graph.run(image, [*names, graph.outputs[0]])
        self.logits: Float[Tensor, "1 K"] = found[graph.outputs[0]]
        self._before = {graph.image: image} | {graph.operation(name).node: found[name] for name in names}

    def run(self, patches: Iterable[Patch]) -> Float[Tensor, "P K"]:
        """The network's answer to each changed image, P counted over all patches.

        Args:
            patches: new pixels of the image, (P, C, height, width) in a box; the images of one patch share
                what their box reaches.
        """
        with torch.no_grad():
            found = [self._follow(patch) for patch in patches]
            given = {node: torch.cat([self._whole(node, *one) for one in found]) for node in self._edge}
            images = given.pop(self.graph.image, None)
            named = {op.name: given[op.node] for op in self.graph.operations if op.node in given}
            return self.graph.run(images, given=named)[self.graph.outputs[0]]

    def cost(self, rows: Sequence[tuple[Span, int]], columns: Sequence[tuple[Span, int]]) -> float:
        """What patches of the image would cost up to the edge, in multiply-adds, by the constants above.

        Args:
            rows, columns: of the boxes, which are all pairs of them, each with its number of images; a box has
                the product of both numbers.
        """
        areas = self._areas(rows, columns)
        n_calls = len(rows) * len(columns) * (PER_CALL if self.logits.device.type == "cpu" else PER_CALL_ON_GPU)
        return sum(
            step.products * areas[step.sources[0]]
            + PER_VALUE * step.units * areas[step.op.node]
            + PER_WEIGHT * step.weights * len(rows) * len(columns)
            + n_calls
            for step in self.steps
        )

    def _areas(self, *axes: Sequence[tuple[Span, int]]) -> dict[Node, int]:
        """How many positions of each map change, summed over the images of all boxes."""
        lengths: list[dict[Node, int]] = []
        for axis, spans in enumerate(axes):
            at = {self.graph.image: [span for span, _ in spans]}
            for step in self.steps:
                sources = zip(*(at[source] for source in step.sources), strict=True)
                at[step.op.node] = [step.rule.reach(axis, joined(of_one)) for of_one in sources]
            counts = [n for _, n in spans]
            lengths.append({node: sum(n * max(0, s.length) for n, s in zip(counts, at[node], strict=True)) for node in at})
        return {node: lengths[0][node] * lengths[1][node] for node in lengths[0]}

    def _follow(self, patch: Patch) -> tuple[int, dict[Node, Patch]]:
        """The number of images of a patch, and the patches that it makes of the maps at the edge."""
        maps = _Maps(self, len(patch.values), {self.graph.image: patch})
        for step in self.steps:
            boxes = [maps.patches[source].box for source in step.sources if source in maps.patches]
            if not boxes:
                continue
            changed = hull(boxes)
            box = Box(*(step.rule.reach(axis, span) for axis, span in enumerate(changed)))
            if box.area:
                maps.patches[step.op.node] = Patch(box, step.rule.run(maps, changed, box))
        return maps.n, {node: maps.patches[node] for node in self._edge if node in maps.patches}

    def _whole(self, node: Node, n: int, patches: Mapping[Node, Patch]) -> Tensor:
        before = self._before[node]
        if node not in patches:
            return before.expand(n, -1, -1, -1)
        rows, columns = before.shape[2:]
        return patches[node].over(Box(Span(0, rows), Span(0, columns)), lambda box: before)


class _Maps:
    """The maps of one patch's images, as its rules read them."""

    def __init__(self, passes: Incremental, n: int, patches: dict[Node, Patch]) -> None:
        self.passes, self.n, self.patches = passes, n, patches

    def now(self, node: Node, box: Box) -> Any:
        if node not in self.patches:
            return self.before(node, box).expand(self.n, -1, -1, -1)
        return self.patches[node].over(box, lambda larger: self.before(node, larger))

    def before(self, node: Node, box: Box) -> Tensor:
        return box.cut(self.passes._before[node])

    def constant(self, node: Node) -> Tensor | None:
        if node in self.passes._before or node in self.patches:
            return None
        kept = self.passes._constants
        if node not in kept:
            kept[node] = self.passes.graph.constant(node, 1)
        return kept[node]


def local_steps(graph: TracedGraph) -> list[Step]:
    """The operations that can be worked out inside boxes, as their inputs are known by boxes."""
    depending = {graph.image, *(op.node for op in graph.operations)}
    local, steps = {graph.image}, []
    for op in graph.operations:
        tensors = [source for source in op.node.all_input_nodes if is_tensor_node(source)]
        sources = [source for source in tensors if source in depending]
        constants = [source for source in tensors if source not in depending]
        if local.issuperset(sources) and all(batch_axes(c)[0] < 0 for c in constants):
            rule = rule_of(op.node, sources)
            if rule is not None:
                local.add(op.node)
                steps.append(_step(op, sources, rule))
    return steps


def _step(op: Operation, sources: list[Node], rule: Rule) -> Step:
    call = Call(op.node, 1)
    products = op.row.multiply_adds(call)
    weights = call.numel("weight") if products else 0
    return Step(op, tuple(sources), rule, products / prod(shapes_at(sources[0], 1)[0][2:]), weights, call.output_shape[1])


def _edge(graph: TracedGraph, steps: Sequence[Step]) -> list[Node]:
    """The maps known by boxes that the rest of the network reads, in order of execution."""
    local = {step.op.node for step in steps}
    answer = graph.operation(graph.outputs[0]).node
    read = {source for op in graph.operations if op.node not in local for source in op.node.all_input_nodes}
    return [node for node in (graph.image, *(step.op.node for step in steps)) if node in read or node is answer]


def _note(graph: TracedGraph, steps: Sequence[Step]) -> str | None:
    local = {step.op.node for step in steps}
    rest = [op for op in graph.operations if op.node not in local]
    if all(op.kind in HEAD or op.row.field is ELEMENTWISE for op in rest):
        return None
    reading = [op for op in rest if any(s in local or s is graph.image for s in op.node.all_input_nodes)]
    return f"run whole from here on: {', '.join(f'{op.name} ({op.target})' for op in reading)}"
