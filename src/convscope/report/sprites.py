"""Many small images in a few large ones, from which a page cuts what it shows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from convscope.data import ImageSet
from convscope.draw import Picture, picture, sheet
from convscope.report.page import Photo

_SHEET_PX = 2048  # a side; phones refuse images much larger
_MOST_SIDE = 96
_BLOCK = 8  # of JPEG: a cell that begins on one shares none with its neighbours


def image_sheets(images: ImageSet, rows: list[int], most_pixels: int) -> dict[str, Any]:
    """Images of a set as sheets, in the order of `rows`.

    Returns:
        src: the sheets. width, height: of an image there. pitch: from one to the next, (across, down). columns,
        per: images in a row, on a sheet. scale: pixels of the sheet for one of the image, at most 1.
    """
    height, width = images.pixels.shape[-2:]
    side = min(_MOST_SIDE, max(24, math.isqrt(most_pixels // max(1, len(rows)))), max(height, width))
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    pitch = tuple(-(-edge // _BLOCK) * _BLOCK for edge in size)
    columns, lines = (max(1, _SHEET_PX // edge) for edge in (pitch[1], pitch[0]))
    parts = [rows[start : start + columns * lines] for start in range(0, len(rows), columns * lines)]
    return {
        "src": [Photo(_image_sheet(images, part, size, pitch, columns)) for part in parts],
        "width": size[1], "height": size[0], "pitch": [pitch[1], pitch[0]], "columns": columns, "per": columns * lines,
        "scale": [size[1] / width, size[0] / height],
    }  # fmt: skip


def picture_sheet(pictures: list[Picture], columns: int = 32) -> dict[str, Any]:
    """Small pictures of one size as one PNG, without loss."""
    height, width = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    return {
        "src": [sheet(pictures, columns, gap=0, ground=0)], "width": width, "height": height, "pitch": [width, height],
        "columns": columns, "per": len(pictures), "scale": [1, 1],
    }  # fmt: skip


def _image_sheet(
    images: ImageSet, rows: list[int], size: tuple[int, int], pitch: tuple[int, ...], columns: int
) -> Picture:
    margins = ((0, pitch[0] - size[0]), (0, pitch[1] - size[1]), (0, 0))
    cells = list[Picture]()
    for start in range(0, len(rows), 256):
        batch = images.images(torch.tensor(rows[start : start + 256]))
        if tuple(batch.shape[2:]) != size:
            batch = interpolate(batch, size, mode="bilinear", antialias=True)
        cells += [np.pad(picture(one), margins, "edge") for one in batch]
    return sheet(cells, columns, gap=0, ground=0)
