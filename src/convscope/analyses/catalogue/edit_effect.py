"""The effect of the same edits of all test images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import Edits
from convscope.analyses.testset import SampleRequest
from convscope.analyses.view import Figure, View
from convscope.base.words import counted

if TYPE_CHECKING:
    from convscope.scans import EditEffect, Estimate
    from convscope.scope import Scope

_SHOWN = 8
_SIDE_PX = 264


class Request(SampleRequest):
    """Edits of all test images: accuracy before and after them, by class, and the images that change most."""

    default_images = 1000

    edit: Edits


def compute(scope: Scope, request: Request, inputs: Inputs) -> EditEffect:
    """On 1,000 test images by default; edits take from all."""
    return scope.edit_effect(request.sample(inputs.test), request.edit, inputs.test)


def view(scope: Scope, request: Request, result: EditEffect, inputs: Inputs) -> View:
    """The images that change most, before and after the edits; the table has a row for each class."""
    from convscope.edits import describe

    before, after = (100 * figure.figures[0] for figure in (result.accuracy_before(), result.accuracy_after()))
    heading = (
        f"{describe(request.edit)}: accuracy of {counted(len(result.index), 'test image')} {before:.2f} → {after:.2f} %, "
        f"difference {_points(result.change())}"
    )
    remark = (
        f"{len(result.flipped)} are predicted as another class: {len(result.lost)} were right and are wrong now, "
        f"{len(result.gained)} the other way round; mean change of the true class's probability "
        f"{_points(result.probability_change())}"
    )
    tensors = {name: getattr(result, name) for name in ("probability_before", "probability_after", "before", "after")}
    figures = _most_changed(request, result, inputs)
    return View(heading, figures, tensors, result.table(), remark=remark, side=_SIDE_PX, columns=4)


def _points(difference: Estimate) -> str:
    """In percentage points with its interval, where there is one."""
    value, *limits = (f"{100 * figure:+.2f}".replace("-", "−") for figure in difference.figures)
    return f"{value} points" + ("" if difference.low is None else f" (95 % {limits[0]} to {limits[1]})")


def _most_changed(request: Request, result: EditEffect, inputs: Inputs) -> list[Figure]:
    """Each image beside what becomes of it: its number among the test images, its class, what is predicted."""
    import torch

    from convscope.edits import apply

    test, rows = inputs.test, result.most_changed(_SHOWN)
    numbers = request.rows(test)[result.index[rows]]
    images = test.images(numbers)
    pairs = zip(images, apply(images, request.edit, test), strict=True)
    pictures = [draw.sheet([draw.picture(one) for one in pair], columns=2) for pair in pairs]
    classes = torch.stack([result.target, result.before, result.after], 1)[rows].tolist()
    lines = [
        "{}, {}: {} → {}".format(number, *(result.classes[k] for k in of_image))
        for number, of_image in zip(numbers.tolist(), classes, strict=True)
    ]
    return list(zip(lines, pictures, strict=True))
