"""Occlusion: the drop in probability that each covered square causes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.attribution import target_of
from convscope.analyses.request import Fill, ImageRequest, Sizes, Stride, Target
from convscope.analyses.view import Figure, View
from convscope.base.words import shape_text

if TYPE_CHECKING:
    from convscope.draw import Scale
    from convscope.lenses import OcclusionMap
    from convscope.scope import Scope

_PHOTOGRAPH_PX = 64


class Request(ImageRequest):
    """Occlusion: the drop in the target's probability with a square of the image covered (Zeiler & Fergus 2013)."""

    target: Target = None
    size: Sizes = None
    stride: Stride = None
    fill: Fill = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> list[OcclusionMap]:
    """A map for each size of the square."""
    settings: dict[str, Any] = request.model_dump(include={"stride", "fill"}, exclude_none=True)
    side = min(inputs.image.shape[1:])
    if request.size is None and request.stride is None and side > _PHOTOGRAPH_PX:  # every pixel would take minutes
        settings["stride"] = side // 28
    sizes: list[Any] = list(request.size or [max(3, round(side / 7))])  # 5 of 32
    return scope.occlusion(inputs.image, sizes, target=target_of(scope, request.target), **settings)


def view(scope: Scope, request: Request, result: list[OcclusionMap], inputs: Inputs) -> View:
    """The image, and for each size of the square the drop in probability over it and alone, on one scale."""
    image, scale = inputs.image, drop_scale(result)
    figures: list[Figure] = []
    for one in result:  # a row for each size
        shape = shape_text(one.size)
        figures.append(("image", draw.picture(image)))
        figures.append((f"{shape} over the image", draw.overlay(image, one.on_image(*image.shape[1:])[0], scale)))
        figures.append((f"{shape}: {sum_in_words(one)}", draw.coloured(one.drop[0], scale)))
    first = result[0]
    sizes = ", ".join(shape_text(one.size) for one in result)
    heading = (
        f"occlusion by {sizes} pixels: {scope.class_name(int(first.targets[0]))}, "
        f"probability {float(first.whole[0]):.3f} uncovered"
    )
    tensors = {f"probabilities.{'x'.join(map(str, one.size))}": one.probabilities for one in result}
    return View(heading, figures, tensors, scale=scale, remark=first.note, columns=3)


def drop_scale(result: Sequence[OcclusionMap], images: slice = slice(None)) -> Scale:
    """One scale for all sizes and for some of the images, symmetric about 0."""
    reach = max(max(float(one.drop[images].abs().max()) for one in result), 1e-6)
    return draw.Scale(-reach, reach, "drop in probability")


def sum_in_words(result: OcclusionMap, index: int = 0) -> str:
    """The sum of the map, and what it would be if nothing mattered."""
    rows, columns = result.probabilities.shape[1:]
    return f"sum {float(result.sum[index]):.1f} of {rows * columns * float(result.whole[index]):.1f}"
