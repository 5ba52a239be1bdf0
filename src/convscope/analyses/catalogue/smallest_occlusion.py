"""The smallest square that changes the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import Fill, ImageRequest
from convscope.analyses.view import Figure, View, framed

if TYPE_CHECKING:
    from convscope.lenses import SmallestOcclusion
    from convscope.scope import Scope


class Request(ImageRequest):
    """The smallest square whose occlusion changes the predicted class, and where it lies."""

    fill: Fill = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> SmallestOcclusion:
    """Of squares of all sizes, at all positions."""
    return scope.smallest_occlusion(inputs.image, "grey" if request.fill is None else request.fill)


def view(scope: Scope, request: Request, result: SmallestOcclusion, inputs: Inputs) -> View:
    """The image with the square framed, and a sentence; the table has a row where there is such a square."""
    import pandas as pd
    import torch

    image = inputs.image
    name, fill = scope.class_name(result.before), "grey" if request.fill is None else request.fill
    figures: list[Figure] = [("image", draw.picture(image))]
    if result.box is None:
        size = f"{result.largest}×{result.largest}"
        heading = f"smallest occlusion: no square of {fill}, up to {size} pixels, changes {name} ({result.whole:.3f})"
        return View(heading, figures, {"box": torch.zeros(0, dtype=torch.int64)}, pd.DataFrame())
    left, top, side = result.box
    after = scope.class_name(result.after)
    heading = (
        f"smallest occlusion: {fill}, {side}×{side} pixels at {left}, {top}, turns {name} ({result.whole:.3f}) into {after}; "
        f"{name} keeps {result.probability:.3f}"
    )
    figures.append(("the square", framed(image, (top, left, top + side, left + side), 256)))
    row = {"left": left, "top": top, "width": side, "height": side, "before": name, "after": after,
           "probability": result.probability, "whole": result.whole}  # fmt: skip
    remark = None if result.step == 1 else f"sizes and positions were tried in steps of {result.step} pixels"
    return View(heading, figures, {"box": torch.tensor(result.box)}, pd.DataFrame([row]), remark=remark)
