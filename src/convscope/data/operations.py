"""Changes of a whole batch of images in [0, 1], as tensors on its device; each image has a value of its own.

All give the result; brightness, contrast, saturation and sharpness write it into the images they are given. What changes
colours does nothing to images that have not three channels. Posterizing and equalizing count in steps of 1/255, as of 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, cos, pi, radians, sin
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

Images = Float[Tensor, "N C H W"]
Values = Float[Tensor, " N"]
Padding = Literal["zero", "reflect"]

_LUMA = (0.299, 0.587, 0.114)


def rotate(images: Images, degrees: Values, padding: Padding) -> Images:
    """Turned about the centre, bilinear."""
    cosine, sine = torch.cos(degrees * (pi / 180)), torch.sin(degrees * (pi / 180))
    return _resample(images, padding, x=(cosine, -sine, 0), y=(sine, cosine, 0))


def shear(images: Images, across: Values, down: Values, padding: Padding) -> Images:
    """Each pixel (x, y) from (x + across·y, y + down·x), counted from the centre, bilinear."""
    return _resample(images, padding, x=(1, across, 0), y=(down, 1, 0))


def shear_x(images: Images, values: Values, padding: Padding) -> Images:
    """As `shear`, with x alone, counted from the upper left corner (Cubuk et al. 2018, arXiv 1805.09501)."""
    return _resample(images, padding, x=(1, values, values * (images.shape[2] / 2)))


def shear_y(images: Images, values: Values, padding: Padding) -> Images:
    """As `shear_x`, with y."""
    return _resample(images, padding, y=(values, 1, values * (images.shape[3] / 2)))


def translate_x(images: Images, values: Values, padding: Padding) -> Images:
    """Each pixel from so many pixels further right, rounded towards 0."""
    return _resample(images, padding, x=(1, 0, values.trunc()))


def translate_y(images: Images, values: Values, padding: Padding) -> Images:
    """Each pixel from so many pixels further down, rounded towards 0."""
    return _resample(images, padding, y=(0, 1, values.trunc()))


def _resample(
    images: Images, padding: Padding, x: Sequence[Values | float] = (1, 0, 0), y: Sequence[Values | float] = (0, 1, 0)
) -> Images:
    """The pixel at (x, y) from (x₀·x + x₁·y + x₂, y₀·x + y₁·y + y₂), in pixels from the centre, bilinear."""
    height, width = images.shape[2:]
    # affine_grid counts both axes from -1 to 1, so that a turn of an oblong image must change the units
    rows = [x[0], x[1] * (height / width), x[2] * (2 / width)], [y[0] * (width / height), y[1], y[2] * (2 / height)]
    matrices = images.new_empty(len(images), 2, 3)
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            matrices[:, row, column] = value
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    outside = "zeros" if padding == "zero" else "reflection"
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def brightness(images: Images, factors: Values) -> Images:
    """`f·x`, clamped to [0, 1]."""
    return images.mul_(factors[:, None, None, None]).clamp_(0, 1)


def contrast(images: Images, factors: Values) -> Images:
    """`f·x + (1 − f)·m` with the mean luma m of the image, clamped to [0, 1]."""
    return _away_from(images, luma(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def saturation(images: Images, factors: Values) -> Images:
    """`f·x + (1 − f)·g` with the luma g of the pixel, clamped to [0, 1]."""
    return _away_from(images, luma(images), factors) if images.shape[1] == 3 else images


def sharpness(images: Images, factors: Values) -> Images:
    """`f·x + (1 − f)·s`, clamped to [0, 1]; s is x smoothed by 3×3 weights of 1/13, 5/13 in the middle, at the edge x."""
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    smooth = images.clone()
    inside = smooth[:, :, 1:-1, 1:-1]
    inside.mul_(4).add_(rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]).div_(13)
    return _away_from(images, smooth, factors)


def _away_from(images: Images, centre: Tensor, factors: Values) -> Images:
    factors = factors[:, None, None, None]
    return images.mul_(factors).add_(centre * (1 - factors)).clamp_(0, 1)


def luma(images: Images) -> Float[Tensor, "N 1 H W"]:
    """0.299 R + 0.587 G + 0.114 B (ITU-R 601); of another number of channels their mean."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def turn_hue(images: Images, turns: Values) -> Images:
    """The hue of HSV moved by a share of the whole circle, -1 to 1; saturation and value stay."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    scale = chroma.clamp(min=1e-12)
    sixths = torch.where(  # of the circle, from red over green and blue
        value == red,
        (green - blue) / scale,
        torch.where(value == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    sixths.add_(6 * turns[:, None, None])
    away = (torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None] + sixths[:, None]).remainder_(6)
    return torch.minimum(away, 4 - away).clamp_(0, 1).mul_(-chroma[:, None]).add_(value[:, None])


def posterize(images: Images, bits: Values) -> Images:
    """The highest so many of 8 bits, 1 to 8, rounded."""
    lost = 2 ** (8 - bits.round())[:, None, None, None]
    return (images * 255).round_().div_(lost).floor_().mul_(lost).div_(255)


def solarize(images: Images, thresholds: Values) -> Images:
    """`1 − x` where x is at least the threshold."""
    # 1e-4, below a step of 8 and above the rounding of their threshold: a pixel at the threshold is inverted
    return torch.where(images >= thresholds[:, None, None, None] - 1e-4, 1 - images, images)


def autocontrast(images: Images) -> Images:
    """Each channel stretched to reach from 0 to 1; one of a single value stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-12), images)


def equalize(images: Images) -> Images:
    """Each channel with as many pixels in each range of values as can be, by a table of 256 values as Pillow's."""
    values = (images * 255).round_().long().flatten(2)
    counts = values.new_zeros(*values.shape[:2], 256).scatter_add_(2, values, torch.ones_like(values))
    last = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - last) // 255
    table = (counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)
    equal = table.clamp_(max=255).gather(2, values).view_as(images).to(images.dtype) / 255
    return torch.where(step[..., None] > 0, equal, images)


def exact(images: Images) -> torch.dtype:
    """Float64, in which the order of a sum, another in a larger batch, does not show; Apple's GPUs have none."""
    return images.dtype if images.device.type == "mps" else torch.float64


def blur(images: Images, deviation_px: float) -> Images:
    """Through a Gaussian that is cut off at three deviations; borders are continued.

    A product with a matrix for each axis: it takes as long for any deviation.
    """
    wide = images.to(exact(images))
    down, across = (torch.from_numpy(_gaussian(side, deviation_px)).to(wide) for side in images.shape[2:])
    return (down @ (wide @ across.T)).to(images)


@lru_cache(maxsize=16)
def _gaussian(side: int, deviation_px: float) -> Float64[np.ndarray, "S S"]:
    """For each place along an axis the weight of every place; those beyond the border count for the one at it."""
    radius = ceil(3 * deviation_px)
    offsets = np.arange(-radius, radius + 1)
    bell = np.exp(-0.5 * (offsets / deviation_px) ** 2)
    places, weights = np.arange(side)[:, None], np.zeros((side, side))
    np.add.at(weights, (places, np.clip(places + offsets, 0, side - 1)), bell / bell.sum())
    return weights


@dataclass(frozen=True)
class Change:
    """One change of an image, about its centre.

    Attributes:
        kind: "shift", "rotate" or "scale".
        amount: of a shift (down, right) in px; of a rotation degrees, anticlockwise as seen; of a scaling the factor, above
            1 for a larger picture.
    """

    kind: str
    amount: float | tuple[float, float]

    def __str__(self) -> str:
        amount = self.amount
        if isinstance(amount, tuple):
            return f"shift {amount[0]:g}, {amount[1]:g} px"
        return f"rotate {amount:g}°" if self.kind == "rotate" else f"scale ×{amount:g}"

    def source(self, down: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Where in the image each pixel of the result comes from; all in px from the centre."""
        if isinstance(self.amount, tuple):
            return down - self.amount[0], right - self.amount[1]
        if self.kind == "scale":
            return down / self.amount, right / self.amount
        c, s = cos(radians(self.amount)), sin(radians(self.amount))
        return down * c + right * s, right * c - down * s


def transform(
    images: Float[Tensor, "N C H W"], cover: Float[Tensor, ...], changes: Sequence[Change]
) -> Float[Tensor, "T C H W"]:
    """One image after each of T changes, or T images after one change, interpolated bilinearly; `cover`, which is broadcast,
    shows where nothing of an image comes to lie."""
    height, width = images.shape[2:]
    axes = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in (height, width))
    down, right = torch.meshgrid(*axes, indexing="ij")
    sources = [change.source(down, right) for change in changes]
    # grid_sample counts from the centre in halves of the image, the column first.
    grid = torch.stack([torch.stack([2 * x / width, 2 * y / height], -1) for y, x in sources]).to(images)
    n = max(len(images), len(changes))
    whole = images.new_ones(len(changes), 1, height, width)
    visible, moved = (
        F.grid_sample(each.expand(len(xy), -1, -1, -1), xy, mode="bilinear", padding_mode="zeros", align_corners=False)
        for each, xy in ((whole, grid), (images, grid.expand(n, -1, -1, -1)))
    )
    return moved + (1 - visible) * cover
