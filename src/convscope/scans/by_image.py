"""What scans of single images share: their questions, and the network's results in portions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from convscope.base.console import progress_bar
from convscope.errors import RequestError
from convscope.graph import TracedGraph, check_finite, check_weights
from convscope.lenses import Attribution, Fill, Target, TaskTarget, choose_targets, fill_images, portions, with_task
from convscope.nets import Task, no_logits, task_over
from convscope.scans.scan import check_outputs

Prepare = Callable[[Tensor], Tensor]
"""From images in [0, 1] to what the network takes; a scope's `prepare`."""

TiedLens = Callable[[Tensor, Tensor], Attribution | Tensor]
"""From images in [0, 1] and the class asked about for each, to a map of each: a lens, tied to a network."""


@dataclass(frozen=True, eq=False)
class Questions:
    """Images of a set, and the class asked about for each.

    Attributes:
        index: of each image in its set.
        images: in [0, 1], before normalisation.
        target: class indices.
    """

    index: Int[Tensor, " N"]
    images: Float[Tensor, "N C H W"]
    target: Int[Tensor, " N"]


def one_by_one(asked: Questions, doing: str) -> Iterator[Questions]:
    """The images one at a time; with a progress bar on a terminal."""
    with progress_bar(doing, len(asked.index)) as advance:
        for i in range(len(asked.index)):
            one = slice(i, i + 1)
            yield Questions(asked.index[one], asked.images[one], asked.target[one])
            advance(1)


def cover_of(one: Questions, fill: Fill) -> Float[Tensor, "C H W"]:
    """What parts of a single image are covered with, see `convscope.lenses.fill_images`.

    Raises:
        RequestError: the fill does not fit, or holds an image for each, and here each is on its own.
    """
    if isinstance(fill, Tensor) and fill.ndim == 4 and len(fill) != 1:
        raise RequestError(f"fill: {len(fill)} images; give a colour, or one image for all")
    return fill_images(one.images, fill)[0]


def check_map(values: Tensor) -> None:
    """Raises FailedError where a value that a lens gives is no finite number."""
    check_finite(values, "the lens gives NaN or infinity; look at the network's weights, they may be broken")


class Answers:
    """A network's results for images in [0, 1], in portions that fit the memory; no gradients.

    Args:
        graph: the traced network.
        prepare: see `Prepare`.
        max_memory: bytes that the images worked on at once may take; by default a share of what is free.
        task: what the outputs mean; by default one head over all of them.
    """

    def __init__(
        self, graph: TracedGraph, prepare: Prepare, max_memory: int | None = None, task: Task | None = None
    ) -> None:
        self.graph, self.prepare, self.max_memory = graph, prepare, max_memory
        self._task = task

    def asked(self, images: Float[Tensor, "N C H W"], targets: Target = None) -> Questions:
        """The images, numbered from 0, with the class to ask about for each, see `Target`.

        Raises:
            RequestError: a target is not one of the classes, or the network gives no row of logits.
        FailedError: weights of the network are NaN or infinite, or its answers are.
        """
        output = self.graph.outputs[0]
        shape = self.graph.operation(output).output_shape
        if len(shape) != 1:
            raise no_logits(shape)
        check_weights(self.graph.net)
        if self._task is not None and not isinstance(targets, TaskTarget):
            targets = TaskTarget(self._task, targets)
        if with_task(targets, shape[0]).classes is None:
            logits = torch.cat([results[output] for results in self.portions(images)])
            check_outputs(logits)
        else:
            logits = images.new_zeros(()).expand(len(images), *shape)
        return Questions(torch.arange(len(images)), images, choose_targets(logits, targets))

    def portions(self, images: Float[Tensor, "N C H W"], layers: Sequence[str] = ()) -> Iterator[dict[str, Tensor]]:
        """Name → tensor of some layers, for portions of the images in their order."""
        for part in portions(len(images), self._bytes_each(images, layers), images.device, self.max_memory):
            with torch.no_grad():
                results = self.graph.run(self.prepare(images[part]), [*layers, self.graph.outputs[0]])
            yield results

    def probabilities(self, images: Float[Tensor, "N C H W"], target: Int[Tensor, ""]) -> Float[Tensor, " N"]:
        """What the network gives one class, for each image."""
        return torch.cat([self.probability(results, target) for results in self.portions(images)])

    def probability(self, found: dict[str, Tensor], target: Int[Tensor, ""]) -> Float[Tensor, " N"]:
        """That of one class, among those of its head.

        Raises:
            FailedError: a logit is no finite number; figures of such a network would be nonsense.
        """
        logits = found[self.graph.outputs[0]]
        check_outputs(logits)
        return self._task_over(logits).probabilities(logits)[:, int(target)]

    def classes(self, found: dict[str, Tensor], target: Int[Tensor, ""]) -> Int[Tensor, " N"]:
        """The most probable class among results, of those that the head tells apart which has the target."""
        logits = found[self.graph.outputs[0]]
        task = self._task_over(logits)
        return task.heads[task.head_of(int(target))].logits(logits).argmax(1)

    def _task_over(self, logits: Tensor) -> Task:
        return self._task or task_over(logits.shape[1])

    def _bytes_each(self, images: Tensor, layers: Sequence[str]) -> int:
        """What one image takes: the layers that are kept, and the largest result beside what it is made from."""
        sizes = {op.name: prod(op.output_shape) for op in self.graph.operations}
        largest = max(sizes[op.name] + sum(sizes.get(name, 0) for name in op.inputs) for op in self.graph.operations)
        return (sum(sizes[name] for name in layers) + 2 * largest + 2 * images[0].numel()) * images.element_size()
