"""A number of a convolution's output and what it is made of, as a drawing: input, filter, products, sums, output."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import numpy as np
from jaxtyping import Bool, Float

_CELL, _GAP, _SIGN, _EDGE = 30, 30, 28, 18
_LETTER = 7.4
"""About the width of a digit of 14 pixels; SVG text cannot be measured here."""
_PAGE = 3 / 4
_INK, _FAINT, _LINE = "#1d2127", "#5f6672", "#cfd3d9"
_BLUE, _ORANGE = "#2459a8", "#b54e18"
_PALE_BLUE, _PALE_ORANGE, _PAD = "#dbe6f6", "#fbe3d3", "#f3f2ef"


@dataclass(frozen=True, eq=False)
class DrawnChannel:
    """One row of the drawing.

    Attributes:
        name: of the channel.
        numbers: of the input, with its padding.
        padding: which of these are padding.
        taps: which of these the window reads.
        weights: of the filter; None of a pool.
        products: NaN where a tap has no part.
        total: what the channel gives.
    """

    name: str
    numbers: Float[np.ndarray, "H W"]
    padding: Bool[np.ndarray, "H W"]
    taps: Bool[np.ndarray, "H W"]
    weights: Float[np.ndarray, "h w"] | None
    products: Float[np.ndarray, "h w"]
    total: float


@dataclass(frozen=True, eq=False)
class DrawnWindow:
    """A window, drawn.

    Attributes:
        heading: which one it is.
        channels: a row each.
        operation: on the products: "sum" or "largest".
        output: numbers of the output so far; NaN where they are yet to come.
        cell: the row and column of this one.
        answer: its sum in words: "9 + 18 + 18 = 45"; empty where there is nothing to add.
    """

    heading: str
    channels: Sequence[DrawnChannel]
    operation: str
    output: Float[np.ndarray, "H W"]
    cell: tuple[int, int]
    answer: str


def worked_number(value: float) -> str:
    """A number as it is written: up to four digits, a true minus, nothing for NaN."""
    return "" if np.isnan(value) else f"{value + 0.0:.4g}".replace("-", "−")  # − 0 is 0


def worked_svg(
    title: str, windows: Sequence[DrawnWindow], notes: Sequence[str] = (), across: Sequence[int] = (1,)
) -> str:
    """An SVG of windows, one below or beside the other.

    Args:
        title: one line above all.
        windows: at least one, of the same layer.
        notes: lines at the foot.
        across: how many windows may stand in a row; what comes nearest to a page is taken.
    """
    size = max(_size(one) for one in windows)
    widths = [_width(one, size) for one in windows]
    width, height = max(widths), max(_height(one) for one in windows)
    columns = min(across, key=lambda n: _unlike_a_page(n, len(windows), width + _GAP, height + _GAP))
    rows = -(-len(windows) // columns)
    whole = max(columns * (width + _GAP) - _GAP, *(_LETTER * len(line) for line in (title, *notes))) + 2 * _EDGE
    top = 52
    pieces = [_text(_EDGE, 31, title, size=18, anchor="start", weight=600)]
    for place, one in enumerate(windows):
        x, y = _EDGE + place % columns * (width + _GAP), top + place // columns * (height + _GAP)
        pieces.append(_window(x, y, one, size))
    bottom = top + rows * (height + _GAP) - _GAP
    pieces += [_text(_EDGE, bottom + 26 + 20 * n, line, colour=_FAINT, anchor="start") for n, line in enumerate(notes)]
    tall = bottom + _EDGE + 20 * len(notes) + 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:.0f} {tall:.0f}" width="{whole:.0f}" '
        f'height="{tall:.0f}" font-family="Source Sans Pro, Segoe UI, system-ui, sans-serif" role="img" '
        f'aria-label="{escape(title)}"><rect width="100%" height="100%" fill="#ffffff"/>{"".join(pieces)}</svg>'
    )


def svg_png(svg: str, scale: float = 2.0) -> bytes:
    """An SVG as a PNG file."""
    import vl_convert
    from PIL import Image

    _with_letters()
    drawn, buffer = Image.open(io.BytesIO(vl_convert.svg_to_png(svg, scale=scale))), io.BytesIO()
    drawn.convert("RGB").save(buffer, "PNG", optimize=True)  # vl-convert packs it ten times as large
    return buffer.getvalue()


@lru_cache
def _with_letters() -> None:
    import vl_convert
    from font_source_sans_pro import SourceSansPro

    vl_convert.register_font_directory(os.path.dirname(SourceSansPro))


def _unlike_a_page(columns: int, n: int, width: float, height: float) -> float:
    """How far windows in so many columns are from a shape of 4 to 3; rows that are not full count as worse."""
    columns = min(columns, n)
    rows = -(-n // columns)
    return abs(math.log(columns * width / (rows * height) * _PAGE)) + (rows * columns > n)


def _size(one: DrawnWindow) -> float:
    """The width of a cell: as wide as the longest number needs."""
    arrays = [
        one.output,
        *(part for c in one.channels for part in (c.numbers, c.weights, c.products) if part is not None),
    ]
    longest = max(len(worked_number(value)) for array in arrays for value in array.flat)
    return max(_CELL, _LETTER * longest + 12)


def _grids_width(one: DrawnWindow, size: float) -> float:
    """From the left of the input to the right of the products."""
    first = one.channels[0]
    weights = 0 if first.weights is None else first.weights.shape[1] * size + _SIGN
    return first.numbers.shape[1] * size + weights + _SIGN + first.products.shape[1] * size


def _totals_width(one: DrawnWindow) -> float:
    longest = max(len(worked_number(c.total)) for c in one.channels)
    return 2 * _SIGN + _LETTER * max(longest, len(one.operation))


def _output_width(one: DrawnWindow, size: float) -> float:
    return max(one.output.shape[1] * size, _LETTER * len(one.answer) + 8)


def _width(one: DrawnWindow, size: float) -> float:
    return _grids_width(one, size) + _totals_width(one) + _GAP + _output_width(one, size)


def _block(one: DrawnWindow) -> float:
    """The height of a channel's row: its name and the tallest of its grids."""
    first = one.channels[0]
    return 22 + _CELL * max(len(first.numbers), len(first.products))


def _height(one: DrawnWindow) -> float:
    blocks = len(one.channels) * (_block(one) + 12) - 12
    return 30 + max(blocks, 22 + _CELL * len(one.output) + 30)


def _window(x: float, y: float, one: DrawnWindow, size: float) -> str:
    pieces = [_text(x, y + 15, one.heading, colour=_FAINT, anchor="start", size=15)]
    for place, channel in enumerate(one.channels):
        pieces.append(_channel(x, y + 30 + place * (_block(one) + 12), channel, one, size, place == 0))
    left = x + _grids_width(one, size) + _totals_width(one) + _GAP
    middle = y + 30 + (_height(one) - 30 - (22 + _CELL * len(one.output) + 30)) / 2
    shown = np.zeros(one.output.shape, bool)
    shown[one.cell] = True
    pieces.append(_text(left, middle + 13, "output", anchor="start", colour=_FAINT))
    pieces.append(_grid(left, middle + 22, one.output, size, marked=shown, mark=_PALE_ORANGE, edge=_ORANGE))
    under = middle + 22 + _CELL * len(one.output) + 21
    pieces.append(_text(left, under, one.answer, anchor="start", weight=600, colour=_ORANGE, size=15))
    return "".join(pieces)


def _channel(x: float, y: float, channel: DrawnChannel, one: DrawnWindow, size: float, first: bool) -> str:
    tall = _block(one) - 22
    middle = y + 22 + tall / 2
    pieces = [_text(x, y + 13, channel.name or "input", anchor="start", weight=600)]

    def put(at: float, numbers: np.ndarray, **marks: object) -> float:
        pieces.append(_grid(at, middle - _CELL * len(numbers) / 2, numbers, size, **marks))  # type: ignore[arg-type]
        return at + numbers.shape[1] * size

    def sign(at: float, text: str) -> float:
        pieces.append(_text(at + _SIGN / 2, middle + 6, text, size=18, colour=_FAINT))
        return at + _SIGN

    def label(at: float, text: str) -> None:
        if first:
            pieces.append(_text(at, y + 13, text, anchor="start", colour=_FAINT))

    parts = ~np.isnan(channel.products)
    right = put(x, channel.numbers, marked=channel.taps, grey=channel.padding, edge=_BLUE)
    if channel.weights is not None:
        left = sign(right, "×")
        right = put(left, channel.weights, marked=None if parts.all() else parts)
        label(left, "filter")
    left = sign(right, "→" if channel.weights is None else "=")
    label(left, "window" if channel.weights is None else "products")
    right = put(left, channel.products, marked=parts)
    pieces.append(_text(right + _SIGN / 2, middle + 6, "→", size=18, colour=_FAINT))
    at = right + _SIGN + (_totals_width(one) - 2 * _SIGN) / 2
    pieces.append(_text(at, middle - 12, one.operation, colour=_FAINT, size=12.5))
    pieces.append(_text(at, middle + 6, worked_number(channel.total), size=16, weight=600, colour=_BLUE))
    return "".join(pieces)


def _grid(
    x: float,
    y: float,
    numbers: np.ndarray,
    size: float,
    marked: np.ndarray | None = None,
    grey: np.ndarray | None = None,
    mark: str = _PALE_BLUE,
    edge: str | None = None,
) -> str:
    """Numbers in squares; marked ones tinted, their box framed; grey ones are no part of the input."""
    pieces = []
    for (row, column), value in np.ndenumerate(numbers):
        on, out = marked is not None and marked[row, column], grey is not None and grey[row, column]
        fill = mark if on else _PAD if out else "#ffffff"
        left, top = x + column * size, y + row * _CELL
        pieces.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{size:.1f}" height="{_CELL}" fill="{fill}" stroke="{_LINE}"/>'
        )
        colour = _FAINT if out else _INK
        pieces.append(_text(left + size / 2, top + _CELL / 2 + 5, worked_number(value), colour=colour))
    if edge and marked is not None and marked.any():
        pieces.append(_frame(x, y, marked, size, edge))
    return "".join(pieces)


def _frame(x: float, y: float, marked: np.ndarray, size: float, colour: str) -> str:
    rows, columns = (np.flatnonzero(marked.any(axis)) for axis in (1, 0))
    left, top = x + columns[0] * size, y + rows[0] * _CELL
    width, height = (columns[-1] - columns[0] + 1) * size, (rows[-1] - rows[0] + 1) * _CELL
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="none" '
        f'stroke="{colour}" stroke-width="2.5"/>'
    )


def _text(
    x: float, y: float, text: str, size: float = 14, anchor: str = "middle", colour: str = _INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
