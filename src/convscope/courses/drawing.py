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


@dataclass(frozen=True)
class _Grid:
    """Numbers in squares; marked ones tinted, with a frame in the colour `edge`; grey ones are no part of the input."""

    numbers: Float[np.ndarray, "H W"]
    marked: Bool[np.ndarray, "H W"]
    grey: Bool[np.ndarray, "H W"] | None = None
    tint: str = _PALE_BLUE
    edge: str = ""
    label: str = ""

    def svg(self, x: float, y: float, size: float) -> str:
        pieces = []
        for (row, column), value in np.ndenumerate(self.numbers):
            out = self.grey is not None and self.grey[row, column]
            fill = self.tint if self.marked[row, column] else _PAD if out else "#ffffff"
            left, top = x + column * size, y + row * _CELL
            pieces.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{size:.1f}" height="{_CELL}" fill="{fill}" stroke="{_LINE}"/>'
            )
            pieces.append(_text(left + size / 2, top + _CELL / 2 + 5, number(value), colour=_FAINT if out else _INK))
        if self.edge and self.marked.any():
            rows, columns = (np.flatnonzero(self.marked.any(axis)) for axis in (1, 0))
            left, top = x + columns[0] * size, y + rows[0] * _CELL
            width, height = (columns[-1] - columns[0] + 1) * size, (rows[-1] - rows[0] + 1) * _CELL
            pieces.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="none" '
                f'stroke="{self.edge}" stroke-width="2.5"/>'
            )
        return "".join(pieces)


class _Drawing:
    """A window, laid out: a row a channel, and beside them the output as far as it has come."""

    def __init__(self, worked: Worked, window: WorkedWindow) -> None:
        output = worked.output[window.unit].copy()
        marked, (height, width) = np.zeros(output.shape, bool), output.shape
        marked[window.row, window.column] = True
        output[np.arange(height * width).reshape(height, width) > window.row * width + window.column] = np.nan
        near = _about(window.row, height), _about(window.column, width)
        self.output = _Grid(output[near], marked[near], tint=_PALE_ORANGE, edge=_ORANGE)
        unit = f"unit {window.unit}, " if worked.step.output_shape[0] > 1 and worked.weight is not None else ""
        self.heading = f"{unit}row {window.row}, column {window.column}"
        self.operation = "largest" if worked.step.kind == "max_pool" else "sum"
        self.answer = add_up(window)
        shown = range(min(len(window.channels), MOST_CHANNELS))
        self.names = [worked.channels[window.channels[n]] or "input" for n in shown]
        self.totals = [number(window.per_channel[n]) for n in shown]
        self.rows = [_row(worked, window, n) for n in shown]
        """Of each channel its grids, and the signs behind them."""
        self.block = 22 + _CELL * max(len(grid.numbers) for grid in (self.rows[0][0][0], self.rows[0][-1][0]))
        """The height of a channel's row: its name and the tallest of its grids."""

    @property
    def size(self) -> float:
        """The width of a cell: as wide as the longest number needs."""
        grids = [self.output, *(grid for row in self.rows for grid, _ in row)]
        longest = max(len(number(value)) for grid in grids for value in grid.numbers.flat)
        return max(_CELL, _LETTER * longest + 12)

    @property
    def totals_width(self) -> float:
        return _LETTER * max(map(len, (*self.totals, self.operation)))

    def rows_width(self, size: float) -> float:
        """From the left of the input to the left of the output."""
        grids = sum(grid.numbers.shape[1] * size + _SIGN for grid, _ in self.rows[0])
        return grids + self.totals_width + _SIGN + _GAP

    def width(self, size: float) -> float:
        return self.rows_width(size) + max(self.output.numbers.shape[1] * size, _LETTER * len(self.answer) + 8)

    @property
    def output_height(self) -> float:
        """With its name above it and the answer below."""
        return 22 + _CELL * len(self.output.numbers) + 30

    @property
    def height(self) -> float:
        return 30 + max(len(self.rows) * (self.block + 12) - 12, self.output_height)

    def svg(self, x: float, y: float, size: float) -> str:
        pieces = [_text(x, y + 15, self.heading, colour=_FAINT, anchor="start", size=15)]
        pieces += [self._row_svg(place, x, y + 30 + place * (self.block + 12), size) for place in range(len(self.rows))]
        left = x + self.rows_width(size)
        top = y + 30 + (self.height - 30 - self.output_height) / 2
        pieces.append(_text(left, top + 13, "output", anchor="start", colour=_FAINT))
        pieces.append(self.output.svg(left, top + 22, size))
        under = top + self.output_height - 9
        pieces.append(_text(left, under, self.answer, anchor="start", weight=600, colour=_ORANGE, size=15))
        return "".join(pieces)

    def _row_svg(self, place: int, x: float, y: float, size: float) -> str:
        middle = y + 22 + (self.block - 22) / 2
        pieces = [_text(x, y + 13, self.names[place], anchor="start", weight=600)]
        for grid, sign in self.rows[place]:
            if place == 0 and grid.label:
                pieces.append(_text(x, y + 13, grid.label, anchor="start", colour=_FAINT))
            pieces.append(grid.svg(x, middle - _CELL * len(grid.numbers) / 2, size))
            x += grid.numbers.shape[1] * size
            pieces.append(_text(x + _SIGN / 2, middle + 6, sign, size=18, colour=_FAINT))
            x += _SIGN
        centre = x + self.totals_width / 2
        pieces.append(_text(centre, middle - 12, self.operation, colour=_FAINT, size=12.5))
        pieces.append(_text(centre, middle + 6, self.totals[place], size=16, weight=600, colour=_BLUE))
        return "".join(pieces)


def _row(worked: Worked, window: WorkedWindow, n: int) -> list[tuple[_Grid, str]]:
    """One channel of a window: what lies around the taps, the filter, and the products; each with the sign behind it."""
    image, products = worked.image[window.channels[n]], window.products[n]
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
    read, used = _Grid(numbers[near], taps[near], padding[near], edge=_BLUE), ~np.isnan(products)
    if worked.weight is None:
        return [(read, "→"), (_Grid(products, used, label="window"), "→")]
    filter = _Grid(window.weights[n], np.zeros_like(used) if used.all() else used, label="filter")
    return [(read, "×"), (filter, "="), (_Grid(products, used, label="products"), "→")]


def _margins(worked: Worked, side: int) -> tuple[int, int]:
    """Padding to be drawn at the two ends of rows or columns: as far as any window reads."""
    axis = (worked.step.axes or ())[side]
    places = [place for stop in (0, axis.n - 1) for place in axis.reads(stop) if place is not None]
    return max(0, -min(places, default=0)), max(0, max(places, default=0) - axis.size + 1)


def _near(taps: Bool[np.ndarray, "H W"], side: int) -> slice:
    """The rows or columns of a large input that are shown: about the window."""
    places = np.flatnonzero(taps.any(1 - side))
    return _about(int(places.mean()) if len(places) else 0, taps.shape[side])


def _about(place: int, n: int) -> slice:
    """At most MOST_CELLS of n rows or columns, with a place in the middle as far as can be."""
    first = max(0, min(place - MOST_CELLS // 2, n - MOST_CELLS))
    return slice(first, first + MOST_CELLS)


def _text(
    x: float, y: float, text: str, size: float = 14, anchor: str = "middle", colour: str = _INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
