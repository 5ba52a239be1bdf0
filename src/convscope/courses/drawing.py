"""Worked convolutions and pools as drawings: of each window its input, filter, products, sums and output."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from convscope.courses.wording import add_up, in_words, number
from convscope.courses.worked import Worked, WorkedWindow
from convscope.draw import png

MOST_WINDOWS, MOST_CELLS, MOST_CHANNELS = 16, 24, 8
"""Windows in one picture, rows and columns of one input, and channels, that can still be read."""
_CELL, _GAP, _SIGN, _EDGE = 30, 30, 28, 18
_LETTER = 7.4
"""About the width of a digit of 14 pixels; SVG text cannot be measured here."""
_PAGE = 3 / 4
_INK, _FAINT, _LINE = "#1d2127", "#5f6672", "#cfd3d9"
_BLUE, _ORANGE = "#2459a8", "#b54e18"
_PALE_BLUE, _PALE_ORANGE, _PAD = "#dbe6f6", "#fbe3d3", "#f3f2ef"


def worked_drawing(worked: Worked, windows: Sequence[WorkedWindow] | None = None) -> str:
    """A worked example as an SVG.

    Args:
        worked: the example.
        windows: which of its windows; by default all, or the first where there are too many to be read.
    """
    chosen = list(worked.windows() if windows is None else windows)
    drawings = [_Drawing(worked, window) for window in chosen[:MOST_WINDOWS]]
    notes = list(worked.notes)
    if len(drawings) < len(chosen):
        notes.append(f"the first {len(drawings)} of {len(chosen)} windows")
    if (n_channels := len(chosen[0].channels)) > MOST_CHANNELS:
        notes.append(f"the first {MOST_CHANNELS} of {n_channels} channels")
    if max(worked.image.shape[1:]) > MOST_CELLS:
        notes.append("of the input only what lies about the window")
    return _svg(in_words(worked), drawings, notes, worked.step.output_shape[1:])


def worked_picture(worked: Worked, windows: Sequence[WorkedWindow] | None = None) -> bytes:
    """The same as a PNG file."""
    import vl_convert
    from PIL import Image

    _with_letters()
    picture = vl_convert.svg_to_png(worked_drawing(worked, windows), scale=2.0)
    with Image.open(io.BytesIO(picture)) as image:  # vl-convert packs it ten times as large
        return png(np.asarray(image.convert("RGB")))


@lru_cache
def _with_letters() -> None:
    import vl_convert
    from font_source_sans_pro import SourceSansPro

    vl_convert.register_font_directory(os.path.dirname(SourceSansPro))


def _svg(title: str, windows: Sequence[_Drawing], notes: Sequence[str], output: Sequence[int]) -> str:
    """The page: windows in rows, as many as in a row of the output or of the whole map, whatever comes nearest to a page."""
    size = max(one.size for one in windows)
    width, height = max(one.width(size) for one in windows), max(one.height for one in windows)
    across = (1, 2, output[1], output[0] * output[1])
    columns = min(across, key=lambda n: _unlike_a_page(n, len(windows), width + _GAP, height + _GAP))
    rows = -(-len(windows) // columns)
    whole = max(columns * (width + _GAP) - _GAP, *(_LETTER * len(line) for line in (title, *notes))) + 2 * _EDGE
    top = 52
    pieces = [_text(_EDGE, 31, title, size=18, anchor="start", weight=600)]
    for place, one in enumerate(windows):
        x, y = _EDGE + place % columns * (width + _GAP), top + place // columns * (height + _GAP)
        pieces.append(one.svg(x, y, size))
    bottom = top + rows * (height + _GAP) - _GAP
    pieces += [_text(_EDGE, bottom + 26 + 20 * n, line, colour=_FAINT, anchor="start") for n, line in enumerate(notes)]
    tall = bottom + _EDGE + 20 * len(notes) + 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole:.0f} {tall:.0f}" width="{whole:.0f}" '
        f'height="{tall:.0f}" font-family="Source Sans Pro, Segoe UI, system-ui, sans-serif" role="img" '
        f'aria-label="{escape(title)}"><rect width="100%" height="100%" fill="#ffffff"/>{"".join(pieces)}</svg>'
    )


def _unlike_a_page(columns: int, n: int, width: float, height: float) -> float:
    """How far windows in so many columns are from a shape of 4 to 3; rows that are not full count as worse."""
    columns = min(columns, n)
    rows = -(-n // columns)
    return abs(math.log(columns * width / (rows * height) * _PAGE)) + (rows * columns > n)


@dataclass(frozen=True, eq=False)
class _Channel:
    """A row of a drawing: the input with its padding, which of it are padding and which the window reads; the products."""

    name: str
    numbers: Float[np.ndarray, "H W"]
    padding: Bool[np.ndarray, "H W"]
    taps: Bool[np.ndarray, "H W"]
    weights: Float[np.ndarray, "h w"] | None
    products: Float[np.ndarray, "h w"]
    total: float


class _Drawing:
    """A window, laid out: a row a channel, and beside them the output as far as it has come."""

    def __init__(self, worked: Worked, window: WorkedWindow) -> None:
        output = worked.output[window.unit].copy()
        height, width = output.shape
        output[np.arange(height * width).reshape(height, width) > window.row * width + window.column] = np.nan
        top, left = (
            max(0, min(place - MOST_CELLS // 2, n - MOST_CELLS))
            for place, n in ((window.row, height), (window.column, width))
        )
        unit = f"unit {window.unit}, " if worked.step.output_shape[0] > 1 and worked.weight is not None else ""
        self.heading = f"{unit}row {window.row}, column {window.column}"
        self.operation = "largest" if worked.step.kind == "max_pool" else "sum"
        self.output = output[top : top + MOST_CELLS, left : left + MOST_CELLS]
        self.cell = window.row - top, window.column - left
        self.answer = add_up(window)
        self.channels = [_channel(worked, window, n) for n in range(min(len(window.channels), MOST_CHANNELS))]
        first = self.channels[0]
        self.block = 22 + _CELL * max(len(first.numbers), len(first.products))
        """The height of a channel's row: its name and the tallest of its grids."""

    @property
    def size(self) -> float:
        """The width of a cell: as wide as the longest number needs."""
        parts = [self.output, *(part for c in self.channels for part in (c.numbers, c.weights, c.products))]
        longest = max(len(number(value)) for part in parts if part is not None for value in part.flat)
        return max(_CELL, _LETTER * longest + 12)

    @property
    def totals_width(self) -> float:
        longest = max(len(number(c.total)) for c in self.channels)
        return 2 * _SIGN + _LETTER * max(longest, len(self.operation))

    def grids_width(self, size: float) -> float:
        """From the left of the input to the right of the products."""
        first = self.channels[0]
        weights = 0 if first.weights is None else first.weights.shape[1] * size + _SIGN
        return first.numbers.shape[1] * size + weights + _SIGN + first.products.shape[1] * size

    def width(self, size: float) -> float:
        output = max(self.output.shape[1] * size, _LETTER * len(self.answer) + 8)
        return self.grids_width(size) + self.totals_width + _GAP + output

    @property
    def height(self) -> float:
        blocks = len(self.channels) * (self.block + 12) - 12
        return 30 + max(blocks, 22 + _CELL * len(self.output) + 30)

    def svg(self, x: float, y: float, size: float) -> str:
        pieces = [_text(x, y + 15, self.heading, colour=_FAINT, anchor="start", size=15)]
        for place, channel in enumerate(self.channels):
            pieces.append(self._row(x, y + 30 + place * (self.block + 12), channel, size, place == 0))
        left = x + self.grids_width(size) + self.totals_width + _GAP
        middle = y + 30 + (self.height - 30 - (22 + _CELL * len(self.output) + 30)) / 2
        marked = np.zeros(self.output.shape, bool)
        marked[self.cell] = True
        pieces.append(_text(left, middle + 13, "output", anchor="start", colour=_FAINT))
        pieces.append(_grid(left, middle + 22, self.output, size, marked=marked, mark=_PALE_ORANGE, edge=_ORANGE))
        under = middle + 22 + _CELL * len(self.output) + 21
        pieces.append(_text(left, under, self.answer, anchor="start", weight=600, colour=_ORANGE, size=15))
        return "".join(pieces)

    def _row(self, x: float, y: float, channel: _Channel, size: float, first: bool) -> str:
        middle = y + 22 + (self.block - 22) / 2
        pieces = [_text(x, y + 13, channel.name or "input", anchor="start", weight=600)]

        def put(x0: float, numbers: np.ndarray, **marks: Any) -> float:
            pieces.append(_grid(x0, middle - _CELL * len(numbers) / 2, numbers, size, **marks))
            return x0 + numbers.shape[1] * size

        def sign(x0: float, text: str) -> float:
            pieces.append(_text(x0 + _SIGN / 2, middle + 6, text, size=18, colour=_FAINT))
            return x0 + _SIGN

        def label(x0: float, text: str) -> None:
            if first:
                pieces.append(_text(x0, y + 13, text, anchor="start", colour=_FAINT))

        parts = ~np.isnan(channel.products)
        right = put(x, channel.numbers, marked=channel.taps, grey=channel.padding, edge=_BLUE)
        if channel.weights is not None:
            left = sign(right, "×")
            right = put(left, channel.weights, marked=None if parts.all() else parts)
            label(left, "filter")
        left = sign(right, "→" if channel.weights is None else "=")
        label(left, "window" if channel.weights is None else "products")
        right = put(left, channel.products, marked=parts)
        centre = sign(right, "→") + (self.totals_width - 2 * _SIGN) / 2
        pieces.append(_text(centre, middle - 12, self.operation, colour=_FAINT, size=12.5))
        pieces.append(_text(centre, middle + 6, number(channel.total), size=16, weight=600, colour=_BLUE))
        return "".join(pieces)


def _channel(worked: Worked, window: WorkedWindow, n: int) -> _Channel:
    image = worked.image[window.channels[n]]
    margins = [_margins(worked, side) for side in (0, 1)]
    (above, _), (before, _) = margins
    numbers = np.pad(image, margins)
    padding = np.pad(np.zeros(image.shape, bool), margins, constant_values=True)
    taps = np.zeros(numbers.shape, bool)
    for row, column in product(window.rows, window.columns):
        if row is not None and column is not None:
            taps[row + above, column + before] = True
    if worked.step.kind == "max_pool":
        numbers[padding] = np.nan
    near = _near(taps, 0), _near(taps, 1)
    weights = None if worked.weight is None else window.weights[n]
    name, total = worked.channels[window.channels[n]], float(window.per_channel[n])
    return _Channel(name, numbers[near], padding[near], taps[near], weights, window.products[n], total)


def _margins(worked: Worked, side: int) -> tuple[int, int]:
    """Padding to be drawn at the two ends of rows or columns: as far as any window reads."""
    axis = (worked.step.axes or ())[side]
    places = [place for stop in (0, axis.n - 1) for place in axis.reads(stop) if place is not None]
    return max(0, -min(places, default=0)), max(0, max(places, default=0) - axis.size + 1)


def _near(taps: Bool[np.ndarray, "H W"], side: int) -> slice:
    """The rows or columns of a large input that are shown: about the window."""
    places, size = np.flatnonzero(taps.any(1 - side)), taps.shape[side]
    middle = int(places.mean()) if len(places) else 0
    first = max(0, min(middle - MOST_CELLS // 2, size - MOST_CELLS))
    return slice(first, first + MOST_CELLS) if size > MOST_CELLS else slice(None)


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
        pieces.append(_text(left + size / 2, top + _CELL / 2 + 5, number(value), colour=colour))
    if edge and marked is not None and marked.any():
        rows, columns = (np.flatnonzero(marked.any(axis)) for axis in (1, 0))
        left, top = x + columns[0] * size, y + rows[0] * _CELL
        width, height = (columns[-1] - columns[0] + 1) * size, (rows[-1] - rows[0] + 1) * _CELL
        pieces.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="none" '
            f'stroke="{edge}" stroke-width="2.5"/>'
        )
    return "".join(pieces)


def _text(
    x: float, y: float, text: str, size: float = 14, anchor: str = "middle", colour: str = _INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
