"""Which pixels edits of a part of an image change."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Bool

from convscope.edits.read import check

Box = tuple[int, int, int, int]
"""x, y, width, height in whole pixels."""

_NOTHING = (0, 0, 0, 0)


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
    boxes = []
    for name, *values in check(edits):
        if name == "paint":
            boxes.append(_box_of(stroke(values[0], values[1], height, width)))
        elif name == "rectangle":
            boxes.append(inside(values[0], height, width))
        elif name == "paste":
            boxes.append(pasted(values[1], values[2], height, width))
        else:
            return None
    boxes = [box for box in boxes if box[2] and box[3]]
    if not boxes:
        return _NOTHING
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    right, below = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    return left, top, right - left, below - top


def inside(box: tuple[float, float, float, float], height: int, width: int) -> Box:
    """The pixels of an image whose centre is inside a rectangle: x ≤ centre < x + width, and so for y."""
    x, y, across, down = box
    left, right = (min(max(ceil(edge - 0.5), 0), width) for edge in (x, x + across))
    top, below = (min(max(ceil(edge - 0.5), 0), height) for edge in (y, y + down))
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
        place = np.minimum(np.maximum(edge, 0), width).astype(int)
        steps += step * np.bincount(row + place, minlength=len(steps))
    return steps.reshape(height, width + 1).cumsum(1)[:, :width] > 0


def _box_of(mask: Bool[np.ndarray, "H W"]) -> Box:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return _NOTHING
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
