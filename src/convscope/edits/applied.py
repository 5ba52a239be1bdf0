"""What edits make of images."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from convscope.base.words import shape_text
from convscope.data import Change, ImageSet, operations, transform
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
    if not len(edited):
        return edited
    for name, *values in checked:
        if name in OF_OTHERS:
            values[0] = _other(others, values[0], edited)
        edited = _APPLIED[name](edited, *values).clamp_(0, 1)
    return edited


def _other(others: Any, index: int, images: Images) -> Image:
    image: Tensor = others[index][0] if isinstance(others, ImageSet) else others[index]
    if image.shape != images.shape[1:]:
        expected = shape_text(images.shape[1:])
        raise SettingError(
            f"others: images of {shape_text(image.shape)}; expected {expected}, as those that are edited"
        )
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


def _part(images: Any, box: Sequence[int]) -> Any:
    """The pixels of a box, of images or of a mask, to be read or written."""
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
        colour = images.new_tensor([[[[int(fill[start : start + 2], 16) / 255]] for start in (1, 3, 5)]])
        cover = colour if images.shape[1] == 3 else operations.luma(colour)
    return cover.expand_as(images)


def _mean(images: Images) -> Float[Tensor, "N C 1 1"]:
    """From sums in float64, where their order, which depends on the batch, makes no difference."""
    return images.mean((2, 3), keepdim=True, dtype=operations.exact(images)).to(images)


def _moved(images: Images, change: Change) -> Images:
    return transform(images, _mean(images), [change])


def _contrast(images: Images, factor: float) -> Images:
    exact = images.to(operations.exact(images))  # for the mean, see `_mean`
    return operations.contrast(exact, exact.new_full((len(images),), factor)).to(images)


def _noise(images: Images, deviation: float, seed: int) -> Images:
    noise = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed))
    return images + deviation * noise.to(images)


def _jpeg(images: Images, quality: int) -> Images:
    from PIL import Image as Pillow

    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).squeeze(-1).cpu().numpy()  # (N, H, W) or (N, H, W, 3)
    decoded = []
    for one in pixels:
        file = io.BytesIO()
        Pillow.fromarray(one).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Pillow.open(file, formats=["JPEG"])))
    return (
        torch.from_numpy(np.stack(decoded))
        .to(images)
        .div_(255)
        .view(len(images), *images.shape[2:], -1)
        .permute(0, 3, 1, 2)
    )


_APPLIED: dict[str, Callable[..., Images]] = {
    "paint": _paint,
    "rectangle": _rectangle,
    "paste": _paste,
    "blend": lambda images, other, share: (1 - share) * images + share * other,
    "shift": lambda images, right, down: _moved(images, Change("shift", (down, right))),
    "rotate": lambda images, degrees: _moved(images, Change("rotate", degrees)),
    "scale": lambda images, factor: _moved(images, Change("scale", factor)),
    "brightness": lambda images, factor: operations.brightness(images, images.new_full((len(images),), factor)),
    "contrast": _contrast,
    "saturation": lambda images, factor: operations.saturation(images, images.new_full((len(images),), factor)),
    "blur": lambda images, deviation: operations.blur(images, deviation) if deviation else images,
    "noise": _noise,
    "jpeg": _jpeg,
}
"""Each may write into the images that it is given."""


Box = tuple[int, int, int, int]
"""x, y, width, height in whole pixels."""


def touched(edits: str | Sequence[Any], shape: Sequence[int]) -> Box | None:
    """The smallest box outside of which nothing of an image can have changed; None where all of it may have.

    Args:
        edits: see `convscope.edits`.
        shape: of the image, whose last two entries are height and width.

    Returns:
        (x, y, width, height) within the image, of no size where nothing is changed. Edits of a part of the image, paint,
        rectangle and paste, have a box; all others may change every pixel.

    Raises:
        SettingError: as `check`.

    Example:
        >>> touched([["rectangle", [-2, 3, 5, 4], "grey"]], (3, 32, 32))
        (0, 3, 3, 4)
    """
    height, width = shape[-2:]
    changed = np.zeros((height, width), dtype=bool)
    for name, *values in check(edits):
        if name == "paint":
            changed |= stroke(values[0], values[1], height, width)
        elif name == "rectangle":
            _part(changed, inside(values[0], height, width))[:] = True
        elif name == "paste":
            _part(changed, pasted(values[1], values[2], height, width))[:] = True
        else:
            return None
    rows, columns = (np.flatnonzero(changed.any(axis)).tolist() for axis in (1, 0))
    if not rows:
        return 0, 0, 0, 0
    return columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]


def inside(box: tuple[float, float, float, float], height: int, width: int) -> Box:
    """The pixels of an image whose centre is inside a rectangle: x ≤ centre < x + width, and so for y."""
    x, y, across, down = box
    edges = np.ceil(np.array([x, y, x + across, y + down]) - 0.5)
    left, top, right, below = np.clip(edges, 0, [width, height, width, height]).astype(int).tolist()
    return left, top, right - left, below - top


def pasted(box: Box, place: tuple[int, int], height: int, width: int) -> Box:
    """Where a part of an image comes to lie in another of the same size, as far as both reach."""
    spans = []
    for source, size, start, side in zip(box[:2], box[2:], place, (width, height), strict=True):
        low = max(start, 0, start - source)
        high = min(start + size, side, start - source + side)
        spans.append((low, max(high - low, 0)))
    (left, across), (top, down) = spans
    return left, top, across, down


def stroke(points: Sequence[tuple[float, float]], radius: float, height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """The pixels whose centre is within a radius of a line through points.

    What lies within a radius of a segment is convex: in each row of pixels it is one interval, which ends on one of the two
    circles about the segment's ends or on one of the two lines beside it.
    """
    x, y = np.array(points if len(points) > 1 else [*points, *points]).T[..., None]
    rows = np.arange(height) + 0.5
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN stands for no intersection
        half = np.sqrt(radius**2 - (rows - y) ** 2)
        low, high = x - half, x + half
        low, high = np.fmin(low[:-1], low[1:]), np.fmax(high[:-1], high[1:])
        across, down = x[1:] - x[:-1], y[1:] - y[:-1]
        for aside in (radius / np.hypot(across, down), -radius / np.hypot(across, down)):
            share = (rows - y[:-1] - aside * across) / down
            crossing = np.where((share >= 0) & (share <= 1), x[:-1] - aside * down + share * across, np.nan)
            low, high = np.fmin(low, crossing), np.fmax(high, crossing)
        covered = low <= high
    row = covered.nonzero()[1] * (width + 1)
    steps = np.zeros(height * (width + 1), dtype=int)
    for edge, step in ((np.ceil(low[covered] - 0.5), 1), (np.floor(high[covered] + 0.5), -1)):
        place = np.clip(edge, 0, width).astype(int)
        steps += step * np.bincount(row + place, minlength=len(steps))
    return steps.reshape(height, width + 1).cumsum(1)[:, :width] > 0
