"""Occlusion as pictures: what each square, covered, takes from the probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from convscope.draw import Scale, coloured, overlay, panel, picture
from convscope.lenses import OcclusionMap
from convscope.looks.records import Asked, Look
from convscope.scope import Scope


def look_occlusion(scope: Scope, asked: Asked) -> Look:
    """The image, and for each size of the square the drop in probability over it and alone, on one scale."""
    image = asked.given()["image"]
    settings: dict[str, Any] = {key: value for key, value in asked.given().items() if key in ("stride", "fill")}
    side = min(image.shape[1:])
    if asked.size is None and asked.stride is None and side > 64:  # a photograph: every pixel would take minutes
        settings["stride"] = side // 28
    found = scope.occlusion(image, asked.size or [default_size(side)], target=asked.target, **settings)
    scale = drop_scale(found)
    parts = []
    for one in found:  # a row for each size
        shape = "×".join(map(str, one.size))
        parts.append(("image", picture(image)))
        parts.append((f"{shape} over the image", overlay(image, on_pixels(one, image), scale)))
        parts.append((f"{shape}: {sum_in_words(one)}", coloured(one.drop[0], scale)))
    first = found[0]
    sizes = ", ".join("×".join(map(str, one.size)) for one in found)
    heading = (
        f"occlusion by {sizes} pixels: {scope.class_name(int(first.targets[0]))}, "
        f"probability {float(first.whole[0]):.3f} uncovered"
    )
    tensors = {f"probabilities.{'x'.join(map(str, one.size))}": one.probabilities for one in found}
    return Look(panel(parts, heading, scale, note=first.note, columns=3), tensors, heading)


def default_size(side: int) -> int:
    """Of the square, for an image of that many pixels: a seventh, 5 of 32."""
    return max(3, round(side / 7))


def drop_scale(found: Sequence[OcclusionMap], images: slice = slice(None)) -> Scale:
    """One scale for all sizes and for some of the images, symmetric about 0."""
    reach = max(max(float(one.drop[images].abs().max()) for one in found), 1e-6)
    return Scale(-reach, reach, "drop in probability")


def on_pixels(found: OcclusionMap, image: Float[Tensor, "C H W"], index: int = 0) -> Float[Tensor, "H W"]:
    """The drop at each pixel, with it at the centre of the square."""
    return found.on_image(*image.shape[1:])[index]


def sum_in_words(found: OcclusionMap, index: int = 0) -> str:
    """The sum of the map, and what it would be if nothing mattered."""
    rows, columns = found.probabilities.shape[1:]
    return f"sum {float(found.sum[index]):.1f} of {rows * columns * float(found.whole[index]):.1f}"
