"""A network run on images that differ from a remembered one inside a box: only what the box can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx import Node

from convscope.graph.boxes import Box, Patch, Span, hull, joined, laid_out
from convscope.graph.calls import batch_axes, is_tensor_node, shapes_at
from convscope.graph.local import Maps, Rule, Work, rule_of
from convscope.graph.table import ELEMENTWISE
from convscope.graph.traced import Operation, TracedGraph
from convscope.graph.winograd import TILES

HEAD = (
    *("flatten", "reshape", "squeeze", "mean", "sum", "max", "part", "adaptive_avg_pool", "adaptive_max_pool"),
    *("dense", "batch_norm", "softmax", "log_softmax"),
)
"""Kinds that end a classifier: all that they read is reached, or they cost next to nothing."""

# What work costs in multiply-adds, of which the two cores measured do some 100 in a nanosecond: 0.2 ns for a value
# that is passed on, 0.2 ns for a weight (PER_WEIGHT), 50 µs for the calls of an operation. From them the time of
# net4's map in blocks of 3×3 to 7×7 squares is foretold within a tenth.
# A GPU multiplies hundreds of times faster and calls no faster: its figure is an estimate.
PER_VALUE, PER_CALL, PER_CALL_ON_GPU = 20, 5e6, 1e9

MadeReady = Callable[[Tensor], Tensor]
"""What brings a weight into the form that an operation takes."""

Counted = tuple[Span, int]
"""Rows or columns of a box, and how many of its images there are along this axis."""


@dataclass(frozen=True)
class Step:
    """One operation that is worked out inside boxes.

    Attributes:
        sources: its inputs that depend on the image.
        finished: the maps that nobody inside the boxes reads after it.
        units: of its output.
    """

    node: Node
    sources: tuple[Node, ...]
    finished: tuple[Node, ...]
    rule: Rule
    units: int


class Incremental:
    """A traced network that goes over changed images by recomputing at each layer what the change can reach.

    It follows maps (N, C, H, W) up to the *edge*: those that are flattened, pooled as a whole, or read by an
    operation that it has no rule for. From the edge on the whole network runs, on all images at once.

    Args:
        graph: the traced network.

    Attributes:
        note: one line on what is run whole though it is no classifier's head; None without any.
        values_each: at most how many values one image takes while it is run.

    Example:
        >>> remembered = Incremental(graph).remember(image)
        >>> logits = remembered.run([Patch(Box(Span(0, 5), Span(0, 5)), torch.zeros(1, 3, 5, 5))])
    """

    def __init__(self, graph: TracedGraph) -> None:
        self.graph = graph
        rules = _rules(graph)
        rest = [op for op in graph.operations if op.node not in rules]
        read = {source for op in rest for source in op.node.all_input_nodes} | {graph.operation(graph.outputs[0]).node}
        self.edge = [node for node in (graph.image, *rules) if node in read]
        self.steps = _steps(rules, set(self.edge))
        self.note = _note(rest, set(self.edge))
        self.values_each = sum(map(_size, self.edge)) + 4 * max(_size(op.node) for op in graph.operations)

    def remember(self, image: Float[Tensor, "1 C H W"]) -> Remembered:
        """Runs an image whole, for others that differ from it in a box.

        Args:
            image: normalised. What its layers answer is kept as long as the result is, and the weights must
                stay as they are meanwhile.
        """
        followed = {step.node for step in self.steps if isinstance(step.node.meta["val"], Tensor)}
        names = {op.name: op.node for op in self.graph.operations if op.node in followed}
        answer = self.graph.outputs[0]
        with torch.no_grad():
            image = laid_out(image)
            found = self.graph.run(image, [*names, answer])
        maps = {node: found[name] for name, node in names.items()}
        return Remembered(self, found[answer], {self.graph.image: image, **maps})

    def cost(self, rows: Sequence[Counted], columns: Sequence[Counted], device: torch.device) -> float:
        """What boxes of changed pixels cost up to the edge, in multiply-adds by the constants above.

        Args:
            rows, columns: the boxes are all pairs of them, each with the product of both numbers of images.
            device: where it will run.
        """
        areas, n_boxes = self._areas(rows, columns), len(rows) * len(columns)
        tiled = [self._areas(rows, columns, side) for side in TILES]
        per_call, on_cpu = PER_CALL_ON_GPU if device.type == "cuda" else PER_CALL, device.type == "cpu"
        return sum(
            step.rule.multiply_adds(
                Work(areas[step.sources[0]], [of[step.sources[0]] for of in tiled], n_boxes), on_cpu
            )
            + PER_VALUE * step.units * areas[step.node]
            + per_call * n_boxes
            for step in self.steps
        )

    def _areas(self, rows: Sequence[Counted], columns: Sequence[Counted], side: int = 1) -> dict[Node, int]:
        """How many tiles hold the positions of each map that change, summed over the images of all boxes."""
        heights, widths = (self._lengths(axis, spans, side) for axis, spans in enumerate((rows, columns)))
        return {node: heights[node] * widths[node] for node in heights}

    def _lengths(self, axis: int, spans: Sequence[Counted], side: int) -> dict[Node, int]:
        at = {self.graph.image: [span for span, _ in spans]}
        for step in self.steps:
            together = zip(*(at[source] for source in step.sources), strict=True)
            at[step.node] = [step.rule.reach(axis, joined(of_box)) for of_box in together]
        numbers = [n for _, n in spans]
        return {
            node: sum(n * ceil(max(0, span.length) / side) for n, span in zip(numbers, reached, strict=True))
            for node, reached in at.items()
        }


class Remembered:
    """The answers of all layers to one image, and passes over others that differ from it in a box.

    Attributes:
        logits: the network's answer to the image.
    """

    def __init__(self, network: Incremental, logits: Float[Tensor, "1 K"], maps: dict[Node, Tensor]) -> None:
        self.network, self.logits, self._maps = network, logits, maps
        self._constants: dict[tuple[Node, MadeReady], Tensor] = {}

    def run(self, patches: Iterable[Patch]) -> Float[Tensor, "P K"]:
        """The network's answer to each changed image, P counted over all patches.

        Args:
            patches: new pixels of the image, (P, C, height, width) in a box; the images of one patch share
                what their box reaches.
        """
        graph = self.network.graph
        with torch.no_grad():
            found = [self._follow(patch) for patch in patches]
            given = {node: self._whole(node, found) for node in self.network.edge}
            images = given.pop(graph.image, None)
            named = {op.name: given[op.node] for op in graph.operations if op.node in given}
            return graph.run(images, given=named)[graph.outputs[0]]

    def _follow(self, patch: Patch) -> Maps:
        """What becomes of a patch at the edge."""
        maps = Maps(len(patch.values), self._maps, self._constant, {})
        maps.patches[self.network.graph.image] = patch._replace(values=laid_out(patch.values))
        for step in self.network.steps:
            boxes = [maps.patches[source].box for source in step.sources if source in maps.patches]
            if boxes:
                changed = hull(boxes)
                box = Box(*(step.rule.reach(axis, span) for axis, span in enumerate(changed)))
                if box.area:
                    maps.patches[step.node] = Patch(box, step.rule.run(maps, changed, box))
            for node in step.finished:
                maps.patches.pop(node, None)
        return maps

    def _whole(self, node: Node, found: Sequence[Maps]) -> Float[Tensor, "P C H W"]:
        """A map of all images, rows side by side: most edges are flattened next."""
        numbers = [maps.n for maps in found]
        whole = self._maps[node].expand(sum(numbers), -1, -1, -1).clone(memory_format=torch.contiguous_format)
        for maps, values in zip(found, whole.split(numbers), strict=True):
            if node in maps.patches:
                box, new = maps.patches[node]
                box.cut(values).copy_(new)
        return whole

    def _constant(self, node: Node, made_ready: MadeReady) -> Tensor:
        if (node, made_ready) not in self._constants:
            self._constants[node, made_ready] = made_ready(self.network.graph.constant(node, 1))
        return self._constants[node, made_ready]


def _rules(graph: TracedGraph) -> dict[Node, tuple[Rule, list[Node]]]:
    """For each operation that can be worked out inside boxes its rule and its inputs that depend on the image."""
    depending = {graph.image, *(op.node for op in graph.operations)}
    found: dict[Node, tuple[Rule, list[Node]]] = {}
    for op in graph.operations:
        tensors = [source for source in op.node.all_input_nodes if is_tensor_node(source)]
        sources = [source for source in tensors if source in depending]
        known = all(source in found or source is graph.image for source in sources)
        alike = all(batch_axes(source)[0] < 0 for source in tensors if source not in depending)
        rule = rule_of(op.node, sources) if known and alike else None
        if rule is not None:
            found[op.node] = rule, sources
    return found


def _steps(rules: dict[Node, tuple[Rule, list[Node]]], kept: set[Node]) -> list[Step]:
    last = {source: node for node, (_, sources) in rules.items() for source in sources}
    steps = []
    for node, (rule, sources) in rules.items():
        steps.append(
            Step(
                node=node,
                sources=tuple(sources),
                finished=tuple(s for s in sources if last[s] is node and s not in kept),
                rule=rule,
                units=shapes_at(node, 1)[0][1],
            )
        )
    return steps


def _note(rest: Sequence[Operation], edge: set[Node]) -> str | None:
    if all(op.kind in HEAD or op.row.field is ELEMENTWISE for op in rest):
        return None
    first = [f"{op.name} ({op.target})" for op in rest if edge.intersection(op.node.all_input_nodes)]
    return f"run whole, with all that follows: {', '.join(first)}"


def _size(node: Node) -> int:
    return sum(map(prod, shapes_at(node, 1)))
