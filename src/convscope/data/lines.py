"""The Lines set: one straight line on black, drawn exactly; 96 classes from four factors.

| factor | values |
| --- | --- |
| length | 7 or 15 px |
| width | 1 px (thin) or 3 px (thick) |
| colour | red or blue |
| angle | 0° … 165° in steps of 15°, counted from horizontal, anticlockwise |

Every combination is a class of 1,000 images of 28×28×3. The line is a rectangle of length × width whose
centre lies anywhere, in fractions of a pixel too, as long as the whole of it is inside the image. A pixel's
value is 255 × the share of its area that the rectangle covers.
"""

from __future__ import annotations

import math
import os
from functools import partial
from itertools import product

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from convscope.data.seeds import generator
from convscope.data.source import PerRow
from convscope.data.store import Filling

SIDE_PX = 28
PER_CLASS = 1000
DRAWING = 1  # raise it when the same seed draws other pixels
_FACTORS = {
    "length": ("7px", "15px"),
    "width": ("thin", "thick"),
    "colour": ("red", "blue"),
    "angle": tuple(f"{degrees}°" for degrees in range(0, 180, 15)),
}
CLASSES = {"class": tuple(" ".join(values) for values in product(*_FACTORS.values())), **_FACTORS}
"""The 96 names "7px thin red 0°", "7px thin red 15°" …, and the values of each factor, in the order of their indices."""
_LENGTH_PX = (7, 15)
_WIDTH_PX = (1, 3)
_CHANNEL = (0, 2)
_COMBINATIONS = tuple(product(*(range(len(values)) for values in _FACTORS.values())))
_AT_ONCE = 125  # images whose working arrays stay in the processor's cache


def targets(per_class: int) -> dict[str, PerRow]:
    """The class and the four factors of each image, class after class."""
    factors = np.repeat(np.array(_COMBINATIONS, np.int64), per_class, axis=0)
    classes = np.repeat(np.arange(len(_COMBINATIONS)), per_class)
    return {"class": classes, **{name: factors[:, i].copy() for i, name in enumerate(_FACTORS)}}


def filling(per_class: int, seed: int) -> Filling:
    """What fills the cache with `per_class` images of each class, class after class.

    The first images of a class are the same however many there are.
    """
    shape = (len(_COMBINATIONS) * per_class, 3, SIDE_PX, SIDE_PX)
    draw = partial(draw_class, per_class=per_class, seed=seed)
    return Filling("drawing lines", shape, range(len(_COMBINATIONS)), draw, os.cpu_count() or 1)


def draw_class(index: int, per_class: int, seed: int) -> UInt8[np.ndarray, "n 3 28 28"]:
    """The images of one class."""
    length, width, colour, angle = _COMBINATIONS[index]
    corners = _corners(_LENGTH_PX[length], _WIDTH_PX[width], 15 * angle)
    reach = corners.max(axis=0)
    places = generator("lines", seed, index).random((per_class, 2))
    centres = reach + places * (SIDE_PX - 2 * reach)
    images = np.zeros((per_class, 3, SIDE_PX, SIDE_PX), np.uint8)
    for start in range(0, per_class, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        images[some, _CHANNEL[colour]] = np.rint(255 * coverage(corners, centres[some], SIDE_PX).clip(0, 1))
    return images


def coverage(
    corners: Float64[np.ndarray, "V 2"], centres: Float64[np.ndarray, "n 2"], side: int
) -> Float32[np.ndarray, "n H W"]:
    """The share of each pixel's area that a convex polygon covers, (n, H, W), exact up to rounding.

    The area under an edge y(x) within the pixel [j, j+1] × [i, i+1] is the integral of clamp(y(x) − i, 0, 1)
    over the edge's part of [j, j+1]. With G(t) = c·(t − c/2), c = clamp(t, 0, 1), the integral of clamp, and
    slope m, it is (G at the right end − G at the left end) / m. The edges below the polygon count negative.

    Args:
        corners: (x, y) of the polygon about its centre, in order around it.
        centres: (x, y) of the centre in each image; pixel (i, j) spans y from i to i + 1, x from j to j + 1.
        side: H and W in pixels.
    """
    columns = np.arange(side + 1, dtype=np.float32)
    area = np.zeros((len(centres), side, side), np.float32)  # n, column, row
    for start, stop in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        run, rise = stop - start
        if abs(run) < 1e-9:  # an upright edge has nothing under it
            continue
        left, right = sorted((start[0], stop[0]))
        x = np.clip(columns, *(centres[:, :1] + (left, right)).astype(np.float32).T[..., None])
        y = (centres[:, 1:] + start[1] + (x - centres[:, :1] - start[0]) * (rise / run)).astype(np.float32)
        above = y[:, :, None] - columns[:-1]
        inside = above.clip(0, 1)
        if abs(rise) < 1e-9:
            part = inside[:, :-1] * np.diff(x, axis=1)[:, :, None]
        else:
            part = np.diff(inside * (above - inside / 2), axis=1) * np.float32(run / rise)
        area += part if run > 0 else -part
    return np.abs(area).transpose(0, 2, 1)


def _corners(length_px: float, width_px: float, degrees: float) -> Float64[np.ndarray, "4 2"]:
    """The corners about the centre, (x to the right, y downwards)."""
    turn = math.radians(degrees)
    along = np.array([math.cos(turn), -math.sin(turn)]) * length_px / 2
    across = np.array([math.sin(turn), math.cos(turn)]) * width_px / 2
    return np.stack([along + across, along - across, -along - across, -along + across])
