"""The smallest square that changes the answer."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import TracedGraph
from convscope.lenses.occlusion import occlusion
from convscope.lenses.targets import Target, with_task

_SMALL_PX, _SIZES, _SIZES_OF_PHOTOGRAPHS = 64, 32, 16
"""How many sizes are tried at most of images up to 64 pixels, and of larger ones (every 14th of 224)."""


@dataclass(frozen=True)
class SmallestOcclusion:
    """The smallest square that changes the predicted class of an image.

    Attributes:
        box: (left, top, side) in pixels; None where no square does.
        before, after: the classes predicted without and with the square.
        whole: probability of the class before, with nothing covered.
        probability: of it, with the square covered.
        step: in pixels, from one size and from one position to the next.
        largest: side of the largest square that was tried.
    """

    box: tuple[int, int, int] | None
    before: int
    after: int
    whole: float
    probability: float
    step: int
    largest: int


def smallest_occlusion(
    graph: TracedGraph, image: Float[Tensor, "N C H W"], fill: Float[Tensor, "1 C H W"], target: Target = None
) -> SmallestOcclusion:
    """The smallest square whose occlusion changes the class that is predicted, and where it lies.

    Squares of rising side are tried at all positions; among those of the first side that changes the answer it is the one
    that leaves least of the class. Sides and positions go in steps of a 32nd of the shorter side of the image, at least 1;
    above 64 pixels of a 16th.

    Args:
        graph: the traced network.
        image: one, normalised.
        fill: what covers it, normalised.
        target: of a network with several heads the one that is asked, see `Target`; its class is always the one predicted.

    Raises:
        RequestError: there is more than one image.
        RequestError: the square or the fill does not fit the image, as in `occlusion`.

    Example:
        >>> smallest_occlusion(graph, image, fill_images(image, "grey")).box
    """
    if len(image) != 1:
        raise RequestError(f"images: {len(image)}; expected one")
    shortest = min(image.shape[2:])
    step = max(1, shortest // (_SIZES if shortest <= _SMALL_PX else _SIZES_OF_PHOTOGRAPHS))
    for side in range(step, shortest + 1, step):
        occluded = occlusion(graph, image, fill, side, step, target, logits=True)
        assert occluded.logits is not None
        task_target = with_task(target, occluded.logits.shape[-1])
        head, first = task_target.task.heads[task_target.head], task_target.task.first_class(task_target.head)
        before, predicted = int(occluded.targets[0]), head.logits(occluded.logits[0]).argmax(-1) + first
        changed = predicted != before
        if bool(changed.any()):
            remaining = occluded.probabilities[0].where(changed, 2.0)
            row, column = divmod(int(remaining.argmin()), remaining.shape[1])
            box, after = (column * step, row * step, side), int(predicted[row, column])
            return SmallestOcclusion(box, before, after, float(occluded.whole[0]), float(remaining.min()), step, side)
    whole = float(occluded.whole[0])
    return SmallestOcclusion(None, before, before, whole, whole, step, side)
