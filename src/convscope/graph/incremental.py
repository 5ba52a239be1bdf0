"""A network run on images that differ from a remembered one inside a box: only what the box can reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx import Node

from convscope.compute import share_threads
from convscope.graph import plans
from convscope.graph.boxes import Box, BoxValues, hull, laid_out
from convscope.graph.calls import batch_axes, is_tensor_node, shapes_at
from convscope.graph.local import FIRST, Maps, Rule, arranged, restored, rule_of
from convscope.graph.table import ELEMENTWISE
from convscope.graph.traced import Operation, TracedGraph, last_uses

HEAD = (
    *("flatten", "reshape", "squeeze", "mean", "sum", "max", "part", "adaptive_avg_pool", "adaptive_max_pool"),
    *("dense", "batch_norm", "softmax", "log_softmax"),
)
"""Kinds that end a classifier: all that they read is reached, or they cost next to nothing."""

SMALLEST_BATCH, LARGEST_BATCH, LARGEST_MAP = 4, 256, 8 << 20
"""Images in one pass, and bytes of its largest map on a CPU: beyond the cache, and in pages that the system hands out
anew each time, whole passes take longer. Fewer than 4 images lose more to the calls of a pass than the cache saves."""

Piece = tuple[Maps, range]
"""Some of the images of a patch, followed to the edge."""


class Incremental:
    """A traced network that goes over changed images by recomputing at each layer what the change can reach.

    It follows maps (N, C, H, W) up to the *edge*: those that are flattened, pooled as a whole, or read by an
    operation that it has no rule for. From the edge on the whole network runs, on all images at once.

    Args:
        graph: the traced network.

    Attributes:
        steps: what is worked out in boxes, in order.
        edge: the maps from which the rest is run.
        finished: for each step the maps that no later one reads.
        note: one line on what is run whole though it is no classifier's head; None without any.
        sizes: how many values of one image the image and each operation have.
        values_each: at most how many values one image takes while it is run.

    Example:
        >>> remembered = Incremental(graph).remember(image)
        >>> logits = remembered.run([BoxValues(Box(Span(0, 5), Span(0, 5)), torch.zeros(1, 3, 5, 5))])
    """

    def __init__(self, graph: TracedGraph) -> None:
        self.graph, self._rules = graph, _rules(graph)
        nodes = [graph.image, *(op.node for op in graph.operations)]
        self.sizes = {node: sum(map(prod, shapes_at(node, 1))) for node in nodes}
        rest = self._follow(len(self._rules))
        self.note = _note(rest, set(self.edge))

    def shortened(self, n_steps: int) -> Incremental:
        """The same network followed for that many steps alone: where the rest is cheaper run whole; 0 for all of it."""
        other = copy(self)
        other._follow(n_steps)
        return other

    def _follow(self, n_steps: int) -> list[Operation]:
        """Sets what is worked out in boxes; what is left for whole maps."""
        self.steps = self._rules[:n_steps]
        nodes = dict.fromkeys(step.node for step in self.steps)
        rest = [op for op in self.graph.operations if op.node not in nodes]
        read = {source for op in rest for source in op.node.all_input_nodes}
        read.add(self.graph.operation(self.graph.outputs[0]).node)
        self.edge = [node for node in (self.graph.image, *nodes) if node in read]
        self.finished = last_uses(list(nodes), keep=self.edge)
        self._largest = max(self.sizes[node] for node in (*self.edge, *(op.node for op in rest)))
        self.values_each = sum(self.sizes[node] for node in self.edge) + 4 * max(self.sizes.values())
        return rest

    def at_once(self, image: Tensor, n_images: int, room: int = LARGEST_BATCH) -> int:
        """How many of `n_images` like this one to run whole in one pass, at most `room`; on a CPU each thread has its own."""
        if image.device.type != "cpu":
            return min(LARGEST_BATCH, room)
        n_threads = torch.get_num_threads()
        in_cache = LARGEST_MAP // (self._largest * image.element_size() * n_threads)
        return max(1, min(room // n_threads, LARGEST_BATCH, -(-n_images // n_threads), max(SMALLEST_BATCH, in_cache)))

    def cheapest(self, ways: Sequence[plans.Way], at_once: int, device: torch.device) -> tuple[int, int]:
        """See `plans.cheapest`."""
        return plans.cheapest(self, ways, at_once, device)

    def remember(self, image: Float[Tensor, "1 C H W"]) -> Remembered:
        """Runs an image whole, for others that differ from it in a box.

        Args:
            image: normalised. What its layers answer is kept as long as the result is, and the weights must
                stay as they are meanwhile.
        """
        axes = {step.node: step.axes for step in self.steps if isinstance(step.node.meta["val"], Tensor)}
        names = {op.name: op.node for op in self.graph.operations if op.node in axes}
        with torch.no_grad():
            image = laid_out(image)
            results = self.graph.run(image, list(names)) if names else {}
        maps = {node: restored(results[name], axes[node]) for name, node in names.items()}
        return Remembered(self, {self.graph.image: image, **maps})


class Remembered:
    """The answers of the followed layers to one image, and passes over others that differ from it in a box."""

    def __init__(self, network: Incremental, maps: dict[Node, Tensor]) -> None:
        self.network, self._maps = network, maps
        self._axes = {step.node: step.axes for step in network.steps}
        self._on_cpu = maps[network.graph.image].device.type == "cpu"
        self._constants: dict[Node, Tensor] = {}

    def run(self, patches: Iterable[BoxValues], at_once: int = LARGEST_BATCH) -> Float[Tensor, "P K"]:
        """The network's answer to each changed image, P counted over all patches.

        Args:
            patches: new pixels of the image, (P, C, height, width) in a box; the images of one patch share
                what their box reaches.
            at_once: how many images to run whole in one pass, from the edge on.
        """
        tasks = _batches(patches, at_once)
        work = partial(self._run, at_once=at_once)
        return torch.cat(list(share_threads(work, tasks) if self._on_cpu else map(work, tasks)))

    @torch.no_grad()
    def _run(self, patches: Sequence[BoxValues], at_once: int) -> Float[Tensor, "P K"]:
        followed = [self._follow(patch) for patch in patches]
        if sum(maps.n for maps in followed) <= at_once:
            return self._finish([(maps, range(maps.n)) for maps in followed])
        [maps] = followed
        pieces = (range(first, min(maps.n, first + at_once)) for first in range(0, maps.n, at_once))
        return torch.cat([self._finish([(maps, piece)]) for piece in pieces])

    def _finish(self, pieces: Sequence[Piece]) -> Float[Tensor, "P K"]:
        """The answer to some images from the edge on."""
        graph = self.network.graph
        edge = {node: self._whole(node, pieces) for node in self.network.edge}
        images = edge.pop(graph.image, None)
        named = {op.name: edge[op.node] for op in graph.operations if op.node in edge}
        return graph.run(images, given=named)[graph.outputs[0]]

    def _follow(self, patch: BoxValues) -> Maps:
        """What becomes of a patch at the edge."""
        maps = Maps(len(patch.values), self._maps, self._constant, {})
        maps.patches[self.network.graph.image] = patch._replace(values=laid_out(patch.values))
        for step in self.network.steps:
            boxes = [maps.patches[source].box for source in step.sources if source in maps.patches]
            if boxes:
                changed = hull(boxes)
                box = Box(*(step.reach(axis, span) for axis, span in enumerate(changed)))
                if box.area:
                    maps.patches[step.node] = BoxValues(box, step.run(maps, changed, box))
            for node in self.network.finished[step.node]:
                maps.patches.pop(node, None)
        return maps

    def _whole(self, node: Node, pieces: Sequence[Piece]) -> Tensor:
        """A map of all images as the network has it, rows side by side: most edges are flattened next."""
        numbers = [len(images) for _, images in pieces]
        whole = self._maps[node].expand(sum(numbers), -1, -1, -1).clone(memory_format=torch.contiguous_format)
        for (maps, images), values in zip(pieces, whole.split(numbers), strict=True):
            if node in maps.patches:
                box, new = maps.patches[node]
                box.cut(values).copy_(new[images.start : images.stop])
        return arranged(whole, self._axes.get(node, FIRST))

    def _constant(self, node: Node) -> Tensor:
        """A value that does not depend on the image, in the form that an operation takes."""
        if node not in self._constants:
            self._constants[node] = laid_out(self.network.graph.constant(node, 1))
        return self._constants[node]


def _rules(graph: TracedGraph) -> list[Rule]:
    """The operations that can be worked out inside boxes."""
    depending = {graph.image, *(op.node for op in graph.operations)}
    axes = {graph.image: FIRST}
    rules = []
    for op in graph.operations:
        tensors = [source for source in op.node.all_input_nodes if is_tensor_node(source)]
        sources = [source for source in tensors if source in depending]
        if not all(source in axes for source in sources):
            continue
        alike = all(batch_axes(source)[0] < 0 for source in tensors if source not in depending)
        rule = rule_of(op.node, sources, [axes[source] for source in sources]) if alike else None
        if rule is not None:
            axes[op.node] = rule.axes
            rules.append(rule)
    return rules


def _note(rest: Sequence[Operation], edge: set[Node]) -> str | None:
    if all(op.kind in HEAD or op.row.field is ELEMENTWISE for op in rest):
        return None
    first = [f"{op.name} ({op.target})" for op in rest if edge.intersection(op.node.all_input_nodes)]
    return f"run whole, with all that follows: {', '.join(first)}"


def _batches(patches: Iterable[BoxValues], at_once: int) -> Iterator[list[BoxValues]]:
    """Patches together, of at most so many images unless a single one has more."""
    batch: list[BoxValues] = []
    for patch in patches:
        if batch and sum(len(one.values) for one in (*batch, patch)) > at_once:
            yield batch
            batch = []
        batch.append(patch)
    if batch:
        yield batch
