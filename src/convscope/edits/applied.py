"""What edits make of images."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from convscope.data import Change, ImageSet, operations, transform
from convscope.edits.places import Box, inside, pasted, stroke
from convscope.edits.read import OF_OTHERS, Others, check
from convscope.errors import SettingError

Images = Float[Tensor, "N C H W"]
Image = Float[Tensor, "C H W"]

_LEVELS = {"grey": 0.5, "black": 0.0, "white": 1.0}


@torch.no_grad()
def apply(images: Images, edits: str | Sequence[Any], others: Others | None = None) -> Images:
    """The images after edits, one after the other; the given ones stay as they are.

    Args:
        images: in [0, 1], before normalisation.
        edits: see `convscope.edits`.
        others: what "paste" and "blend" take from.

    Returns:
        New images in [0, 1]. What becomes of one does not depend on the rest of the batch, and is the same on every call.

    Raises:
        SettingError: as `check`; or the other images are of another shape.

    Example:
        >>> apply(torch.rand(2, 3, 32, 32), [["paint", [[4, 4], [20, 9]], 2, "grey"], ["rotate", 15]]).shape
        torch.Size([2, 3, 32, 32])
    """
    checked = check(edits, images.shape[1], 0 if others is None else len(others))
    edited = images.clone(memory_format=torch.contiguous_format)
    for name, *values in checked:
        if name in OF_OTHERS:
            values[0] = _other(others, values[0], edited)
        edited = _APPLIED[name](edited, *values).clamp_(0, 1)
    return edited


def _other(others: Any, index: int, images: Images) -> Image:
    image: Tensor = others[index][0] if isinstance(others, ImageSet) else others[index]
    if image.shape != images.shape[1:]:
        given, expected = ("×".join(map(str, shape)) for shape in (image.shape, images.shape[1:]))
        raise SettingError(f"others: images of {given}; expected {expected}, as those that are edited")
    return image.to(images)


def _paint(images: Images, points: Any, radius: float, fill: str) -> Images:
    mask = torch.from_numpy(stroke(points, radius, *images.shape[2:])).to(images.device)
    return torch.where(mask, _cover(images, fill), images)


def _rectangle(images: Images, box: Any, fill: str) -> Images:
    covered = inside(box, *images.shape[2:])
    _part(images, covered)[:] = _part(_cover(images, fill), covered)
    return images


def _paste(images: Images, other: Image, box: Box, place: tuple[int, int]) -> Images:
    x, y, *size = pasted(box, place, *images.shape[2:])
    source = (x - place[0] + box[0], y - place[1] + box[1], *size)
    _part(images, (x, y, *size))[:] = _part(other, source)
    return images


def _part(images: Tensor, box: Any) -> Tensor:
    x, y, width, height = box
    return images[..., y : y + height, x : x + width]


def _cover(images: Images, fill: str) -> Images:
    """What a part of each image is filled with."""
    cover = images.new_tensor(_LEVELS.get(fill, 0.0))
    if fill == "mean":
        cover = _mean(images)
    elif fill == "blur":
        cover = operations.blur(images, min(images.shape[2:]) / 16)
    elif fill == "noise":
        cover = torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)
    elif fill.startswith("#"):
        colour = images.new_tensor([[[[int(fill[at : at + 2], 16) / 255]] for at in (1, 3, 5)]])
        cover = colour if images.shape[1] == 3 else operations.luma(colour)
    return cover.expand_as(images)


def _mean(images: Images) -> Float[Tensor, "N C 1 1"]:
    """Of sums in float64, in which their order, another in a larger batch, does not show."""
    return images.mean((2, 3), keepdim=True, dtype=operations.exact(images)).to(images)


def _blend(images: Images, other: Image, share: float) -> Images:
    return (1 - share) * images + share * other


def _moved(kind: str) -> Callable[..., Images]:
    def apply_change(images: Images, *amounts: float) -> Images:
        change = Change(kind, (amounts[1], amounts[0]) if kind == "shift" else amounts[0])
        return transform(images, _mean(images), [change])

    return apply_change


def _contrast(images: Images, factor: float) -> Images:
    exact = images.to(operations.exact(images))  # for the mean, see `_mean`
    return operations.contrast(exact, exact.new_full((len(images),), factor)).to(images)


def _blur(images: Images, deviation: float) -> Images:
    return operations.blur(images, deviation) if deviation else images


def _noise(images: Images, deviation: float, seed: int) -> Images:
    noise = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed))
    return images + deviation * noise.to(images)


def _jpeg(images: Images, quality: int) -> Images:
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()  # (N, H, W) or (N, H, W, 3)
    decoded = np.stack([_through_jpeg(one, quality) for one in pixels]) if len(pixels) else pixels
    return torch.from_numpy(decoded).to(images).div_(255).view(len(images), *images.shape[2:], -1).permute(0, 3, 1, 2)


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Pillow.open(file, formats=["JPEG"]))


_APPLIED: dict[str, Callable[..., Images]] = {
    "paint": _paint,
    "rectangle": _rectangle,
    "paste": _paste,
    "blend": _blend,
    **{kind: _moved(kind) for kind in ("shift", "rotate", "scale")},
    "brightness": lambda images, factor: operations.brightness(images, images.new_full((len(images),), factor)),
    "contrast": _contrast,
    "saturation": lambda images, factor: operations.saturation(images, images.new_full((len(images),), factor)),
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
}
"""Each may write into the images that it is given."""
