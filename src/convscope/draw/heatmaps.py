"""Maps over an image → coloured pictures, overlays, and a sheet with a colour bar that says what the colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from convscope.draw.letters import length, write
from convscope.draw.pictures import Picture, enlarge_to, largest, picture

# dark violet over magenta and orange to pale yellow, rising evenly in lightness (CIELAB L* 5 … 97)
_SEQUENTIAL = (
    (8, 4, 26), (49, 15, 86), (104, 28, 109), (159, 42, 99), (211, 67, 70), (243, 120, 39), (250, 187, 62), (250, 250, 200),
)  # fmt: skip
_DIVERGING = (
    (20, 60, 140), (70, 130, 200), (165, 205, 230), (247, 247, 247), (245, 185, 155), (214, 96, 77), (140, 20, 40),
)  # fmt: skip
_INK, _PAPER, _FAINT = (30, 33, 39), (255, 255, 255), (110, 116, 126)
_MARK = (230, 60, 40)
_WARNING = (255, 226, 138)
_NO_NUMBER = (128, 128, 128)  # grey, which is on neither scale
_GAP, _TOP, _LINE, _BAR, _BAND = 16, 40, 30, 96, 30  # pixels


@dataclass(frozen=True)
class Scale:
    """What the colours of a map mean.

    Attributes:
        low, high: values at the two ends; a signed scale has low = -high, and white is 0.
        label: what is measured, with its unit.
        open: whether there are values beyond the ends, which have the ends' colours.
    """

    low: float
    high: float
    label: str
    open: bool = False

    @property
    def signed(self) -> bool:
        return self.low < 0


def scale_of(values: Float[Tensor, "H W"], label: str, signed: bool = False, share: float = 1.0) -> Scale:
    """The scale of a map's finite values: from 0 up, or symmetric about 0 where it is `signed` or has negatives.

    Args:
        share: of the positions that it spans; the rest, further from 0, gets the colour of its ends. For maps of which
            single pixels would else leave all others pale.
    """
    sizes = values.detach().abs()
    reach = whole = largest(sizes)
    if whole and share < 1:
        reach = float(sizes[sizes.isfinite()].float().quantile(share)) or whole
    beyond = bool((sizes > reach).any())
    if signed or bool((values < 0).any()):
        reach = max(reach, 1e-12)
        return Scale(-reach, reach, label, beyond)
    return Scale(0.0, reach or 1.0, label, beyond)


def coloured(values: Float[Tensor, "H W"], scale: Scale) -> Picture:
    """A map in the colours of its scale; grey where it has no number."""
    share = (values.detach().float().cpu() - scale.low) / max(scale.high - scale.low, 1e-12)
    anchors = np.array(_DIVERGING if scale.signed else _SEQUENTIAL)
    places = np.linspace(0, 1, len(anchors))
    channels = [np.interp(share.clamp(0, 1).numpy(), places, anchors[:, c]) for c in range(3)]
    numbers = ~share.isnan()[..., None].numpy()
    return np.where(numbers, np.rint(np.stack(channels, -1)), _NO_NUMBER).astype(np.uint8)


def on_image(values: Float[Tensor, "h w"], height: int, width: int) -> Float[Tensor, "H W"]:
    """A map enlarged to the image's size, bilinear between the centres of its positions."""
    grown = F.interpolate(values[None, None].float(), size=(height, width), mode="bilinear", align_corners=False)
    return grown[0, 0]


def overlay(
    image: Float[Tensor, "C H W"], values: Float[Tensor, "h w"], scale: Scale, strength: float = 0.6
) -> Picture:
    """The image in grey with the map's colours on it, the stronger the further a value is from 0."""
    height, width = image.shape[1:]
    grown = on_image(values.detach().cpu(), height, width)
    grey = image.detach().cpu().float().mean(0, keepdim=True).clamp(0, 1)
    ground = picture(grey).astype(np.float32)
    share = (grown.abs() / max(abs(scale.low), abs(scale.high), 1e-12)).nan_to_num(1.0).clamp(0, 1)
    opacity = share.numpy()[..., None] * strength
    return np.rint(ground * (1 - opacity) + coloured(grown, scale) * opacity).astype(np.uint8)


def framed(shown: Picture, box: tuple[int, int, int, int]) -> Picture:
    """The picture with a frame around a box of its pixels, (top, left, bottom, right), half-open."""
    top, left, bottom, right = box
    lined, width = shown.copy(), min(3, (bottom - top) // 4 or 1, (right - left) // 4 or 1)
    for edge in range(width):
        lined[top:bottom, [left + edge, right - 1 - edge]] = _MARK
        lined[[top + edge, bottom - 1 - edge], left:right] = _MARK
    return lined


def panel(
    parts: Sequence[tuple[str, Picture]],
    heading: str,
    scale: Scale | None = None,
    side: int = 256,
    note: str | None = None,
    columns: int | None = None,
) -> Picture:
    """Pictures under a heading, each with a line below it, and the colour bar of their scale.

    Args:
        parts: (line, picture) each; small pictures are enlarged by repetition to about `side` pixels, never blurred.
        heading: one line above all.
        scale: of the maps among them.
        side: of each picture in pixels.
        note: a line at the foot.
        columns: pictures in a row; all of them by default.
    """
    heading, note = _one_line(heading), _one_line(note or "")
    cells = [(_one_line(line), enlarge_to(one, side)) for line, one in parts]
    across = columns or len(cells)
    rows = [cells[first : first + across] for first in range(0, len(cells), across)]
    widths = [[max(one.shape[1], round(length(line, 15))) for line, one in row] for row in rows]
    if len(rows) > 1:  # columns stand below each other
        widths = [[max(map(max, widths))] * len(row) for row in rows]
    heights = [max(one.shape[0] for _, one in row) for row in rows]
    pictures = max(sum(row) + _GAP * (len(row) + 1) for row in widths)
    # the bar is as high as the pictures beside it, but so that its label and three ticks have room
    bar_height = max(heights[0], round(length(scale.label, 14)) + 1, 3 * 16) if scale else 0
    lines = max(length(heading, 18), length(note, 15)) + 2 * _GAP
    width = max(pictures + (_bar_width(scale) if scale else 0), lines)
    below = max(sum(heights) + _LINE * len(rows), bar_height)
    canvas = Image.new("RGB", (round(width), _TOP + below + (28 if note else 6)), _PAPER)
    write(canvas, (_GAP, 11), heading, 18, _INK)
    y = _TOP
    for row, row_widths, height in zip(rows, widths, heights, strict=True):
        x = _GAP
        for (line, one), cell_width in zip(row, row_widths, strict=True):
            canvas.paste(Image.fromarray(one), (x, y))
            write(canvas, (x, y + height + 6), line, 15, _FAINT)
            x += cell_width + _GAP
        y += height + _LINE
    if note:
        write(canvas, (_GAP, _TOP + below + 2), note, 15, _FAINT)
    if scale:
        _bar(canvas, scale, pictures, bar_height)
    return np.asarray(canvas)


def remarked(shown: Picture, remark: str) -> Picture:
    """A picture under a line on a band of its own."""
    remark = _one_line(remark)
    width = max(shown.shape[1], round(length(remark, 18)) + 2 * _GAP)
    canvas = Image.new("RGB", (width, shown.shape[0] + _BAND), _WARNING)
    write(canvas, (_GAP, 4), remark, 18, _INK)
    canvas.paste(_PAPER, (0, _BAND, *canvas.size))
    canvas.paste(Image.fromarray(shown), (0, _BAND))
    return np.asarray(canvas)


def _one_line(text: str) -> str:
    """Text with a space for each line break, such as one in the name of a class: Pillow measures a single line alone."""
    return " ".join(text.splitlines())


def _bar(canvas: Any, scale: Scale, x: int, height: int) -> None:
    steps = torch.linspace(scale.high, scale.low, height)[:, None].expand(-1, 14)
    canvas.paste(Image.fromarray(coloured(steps, scale)), (x, _TOP))
    for place, tick in enumerate(_ticks(scale)):
        write(canvas, (x + 19, _TOP + place * (height - 13) // 2 - 1), tick, 14, _INK)
    turned = Image.new("RGB", (height, 17), _PAPER)
    write(turned, (0, 0), scale.label, 14, _FAINT)
    canvas.paste(turned.rotate(90, expand=True), (x + _bar_width(scale) - 24, _TOP))


def _ticks(scale: Scale) -> list[str]:
    """What stands beside the bar at its upper end, its middle and its lower end."""
    signs = ["≥ ", "", "≤ " if scale.signed else ""] if scale.open else [""] * 3
    values = (scale.high, (scale.high + scale.low) / 2, scale.low)
    return [f"{sign}{value:.3g}" for sign, value in zip(signs, values, strict=True)]


def _bar_width(scale: Scale) -> int:
    """Of the bar with its ticks and its label, in pixels."""
    return max(_BAR, 19 + round(max(length(tick, 14) for tick in _ticks(scale))) + 4 + 24)
