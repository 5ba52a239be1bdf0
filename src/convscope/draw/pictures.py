"""Tensors → pictures, as uint8 arrays (H, W, 3), PNG and JPEG. Pixels are enlarged by repetition, never blurred."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Picture = UInt8[np.ndarray, "_ _ 3"]


def picture(image: Float[Tensor, "C H W"]) -> Picture:
    """An image in [0, 1] as it is; one channel becomes grey, of more than three the first three are shown."""
    pixels = image.detach().float().cpu().nan_to_num(0).clamp(0, 1)
    if len(pixels) < 3:
        pixels = pixels[:1].expand(3, -1, -1)
    return (pixels[:3] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def map_picture(feature_map: Float[Tensor, "H W"], top: float | None = None) -> Picture:
    """A feature map in grey: 0 and below, and what is no number, is black; `top` (by default the map's own largest finite
    value) is white."""
    return picture(_scaled(feature_map, top)[None])


def tinted_picture(
    feature_map: Float[Tensor, "h w"], image: Float[Tensor, "C H W"], top: float | None = None
) -> Picture:
    """A feature map in the image's own colours: each pixel of the image, as bright as the map is active there."""
    height, width = image.shape[1:]
    # the nearest position of the map for each pixel's centre, so that a position stays a crisp square
    rows = (torch.arange(height) * feature_map.shape[0]) // height
    columns = (torch.arange(width) * feature_map.shape[1]) // width
    return picture(image.detach().cpu() * _scaled(feature_map, top)[rows][:, columns])


def filter_picture(weights: Float[Tensor, "C h w"], top: float | None = None) -> Picture:
    """A filter on image channels in colour: grey is weight 0; ±`top` (by default the largest weight) is black or white."""
    weights = weights.detach().float().cpu()
    return picture(0.5 + 0.5 * weights / (top or max(largest(weights.abs()), 1e-12)))


def signed_picture(values: Float[Tensor, "H W"], top: float | None = None) -> Picture:
    """Signed values on a diverging scale: blue below 0, white at 0, red above; ±`top` is fully saturated."""
    values = values.detach().float().cpu()
    share = (values / (top or max(largest(values.abs()), 1e-12))).clamp(-1, 1)
    fade = 1 - share.abs()
    red, green, blue = torch.where(share > 0, 1, fade), fade, torch.where(share < 0, 1, fade)
    return picture(torch.stack([red, 0.15 + 0.85 * green, blue]))


def sheet(
    pictures: list[Picture], columns: int | None = None, gap: int = 1, scale: int = 1, ground: int = 255
) -> Picture:
    """Pictures of one size side by side in rows.

    Args:
        pictures: at least one, all of the same height and width.
        columns: of the sheet; about a square by default.
        gap: pixels between pictures, before enlarging.
        scale: how many times each pixel is repeated.
        ground: grey level of the gaps.
    """
    height, width = pictures[0].shape[:2]
    columns = min(columns or math.ceil(math.sqrt(len(pictures))), len(pictures))
    rows = math.ceil(len(pictures) / columns)
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), ground, np.uint8)
    for place, one in enumerate(pictures):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        whole[top : top + height, left : left + width] = one
    return enlarge(whole, scale)


def enlarge(shown: Picture, scale: int) -> Picture:
    """The picture with every pixel repeated `scale` times in both directions."""
    return shown.repeat(scale, 0).repeat(scale, 1)


def enlarge_to(shown: Picture, side: int) -> Picture:
    """The picture with every pixel repeated as often as keeps its longer side within `side`; once at least."""
    return enlarge(shown, max(1, side // max(shown.shape[:2])))


def shrink_to(shown: Picture, side: int) -> Picture:
    """The picture with its longer side at most `side`; what is larger is averaged."""
    image = Image.fromarray(shown)
    image.thumbnail((side, side))
    return np.asarray(image)


def png(shown: Picture) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def photo(shown: Picture, quality: int = 85) -> bytes:
    """The picture as a JPEG file: small, and near enough for photographs.

    Colours are kept at full resolution, and blocks of 8 × 8 pixels do not run into each other: what is aligned to them stays
    apart. Where PNG is smaller (drawings, letters), it is taken instead.
    """
    grey = bool((shown[..., :1] == shown).all())
    image, buffer = Image.fromarray(shown[..., 0] if grey else shown), io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    exact = io.BytesIO()
    image.save(exact, "PNG", optimize=grey)
    return min(buffer.getvalue(), exact.getvalue(), key=len)


def largest(values: Float[Tensor, ...]) -> float:
    """The largest finite value; 0 where there is none."""
    finite = values[values.isfinite()]
    return float(finite.max()) if len(finite) else 0.0


def _scaled(feature_map: Float[Tensor, "H W"], top: float | None) -> Float[Tensor, "H W"]:
    values = feature_map.detach().float().cpu()
    peak = largest(values) if top is None else top
    return (values / peak).clamp(0, 1) if peak > 0 else torch.zeros_like(values)
