"""What a head answers to images: the class it predicts, and the probability that it gives the true one."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from jaxtyping import Float, Float64, Int64
from torch import Tensor

from convscope.base.words import shape_text
from convscope.data import ImageSet
from convscope.errors import RequestError
from convscope.graph import check_finite
from convscope.nets import Head
from convscope.scans.exact import ByImage
from convscope.scans.scan import BatchOutputs, Images, PassSettings, Subject, scan


class Answered(NamedTuple):
    """Answers to images.

    Attributes:
        predicted: class of each.
        probability: of the true class, in [0, 1].
    """

    predicted: Int64[Tensor, " R"]
    probability: Float64[Tensor, " R"]


def answered(head: Head, outputs: Float[Tensor, "R K"], labels: Int64[Tensor, " R"]) -> Answered:
    """What the head makes of the network's outputs, on the CPU.

    Raises:
        FailedError: an output is no finite number.
    """
    check_finite(outputs, "with units ablated the network answers with NaN or infinity; its weights are broken")
    logits = head.logits(outputs.float().cpu())
    probability = logits.double().softmax(1).gather(1, labels[:, None])[:, 0]
    return Answered(logits.argmax(1), probability)


def head_of(scope: Subject, images: Images) -> Head:
    """The head whose answers count: the first of the run's, or else the one that the outputs themselves are.

    Raises:
        RequestError: the images came without classes, or with others than the network tells apart.
    """
    if not isinstance(images, ImageSet):
        raise RequestError("the images came without classes, and accuracy needs them; give an ImageSet")
    if scope.given_task is not None:
        head = scope.given_task.heads[0]
    else:
        shape = scope.graph.operation(scope.graph.outputs[0]).output_shape
        names = images.classes["class"]
        head = Head("class", "sigmoid" if shape == (1,) else "softmax", names)
        if shape != (head.width,) or len(names) < 2 or (head.kind == "sigmoid" and len(names) != 2):
            size = shape_text(shape)
            raise RequestError(
                f"the images have {len(names)} classes, and the network answers {size} numbers an image; "
                "give images of the classes that it was trained on"
            )
    classes = images.classes.get(head.target, ())
    if len(classes) != len(head.classes):
        raise RequestError(
            f"the images have {len(classes)} classes of {head.target!r}, and the network tells {len(head.classes)} apart; "
            "give images of the classes that it was trained on"
        )
    return head


def answers_of_both(
    scope: Subject, changed: Subject, images: Images, **settings: Unpack[PassSettings]
) -> dict[str, Any]:
    """What `PairedAnswers` holds of a network before and after a change; two passes over the same batches.

    Raises:
        RequestError: as `head_of`.
    """
    head = head_of(scope, images)
    [before] = scan(scope, images, [Answering(head)], **settings)
    [after] = scan(changed, images, [Answering(head)], **settings)
    return {
        "classes": list(head.classes),
        "index": before["index"],
        "target": before["target"],
        "before": before["predicted"],
        "after": after["predicted"],
        "probability_before": before["probability"],
        "probability_after": after["probability"],
    }


class Answering(ByImage):
    """A scan that keeps what a head answers to each image: `index`, `target`, `predicted` and `probability`, (N,) each, in the
    order of the images."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def update(self, seen: BatchOutputs) -> None:
        labels = seen.targets[self.head.target]
        self.keep(seen.index, target=labels, **answered(self.head, seen.outputs, labels)._asdict())
