"""Worked convolutions and pools as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from convscope.courses.svg import DrawnChannel, DrawnWindow, svg_png, worked_svg
from convscope.courses.wording import add_up, in_words
from convscope.courses.worked import Window, Worked

MOST_WINDOWS, MOST_CELLS, MOST_CHANNELS = 16, 24, 8
"""Windows in one picture, rows and columns of one input, and channels, that can still be read."""
_OPERATIONS = {"max_pool": "largest", "avg_pool": "sum"}


def worked_drawing(worked: Worked, windows: Sequence[Window] | None = None) -> str:
    """A worked example as an SVG: of each window its input, filter, products and sums, and the output.

    Args:
        worked: the example.
        windows: which of its windows; by default all, or the first where there are too many to be read.
    """
    chosen = list(worked.windows() if windows is None else windows)
    shown, n_channels = chosen[:MOST_WINDOWS], len(chosen[0].channels)
    notes = list(worked.notes)
    if len(shown) < len(chosen):
        notes.append(f"the first {len(shown)} of {len(chosen)} windows")
    if n_channels > MOST_CHANNELS:
        notes.append(f"the first {MOST_CHANNELS} of {n_channels} channels")
    if max(worked.image.shape[1:]) > MOST_CELLS:
        notes.append("of the input only what lies about the window")
    drawn = [_drawn(worked, one) for one in shown]
    return worked_svg(in_words(worked), drawn, notes, across=_across(worked))


def worked_picture(worked: Worked, windows: Sequence[Window] | None = None) -> bytes:
    """The same as a PNG file."""
    return svg_png(worked_drawing(worked, windows))


def _across(worked: Worked) -> tuple[int, ...]:
    """How many windows may stand in a row: so that a row of them is one of the output, or a whole map, where there is room."""
    rows, columns = worked.step.output_shape[1:]
    return (1, 2, columns, rows * columns)


def _drawn(worked: Worked, window: Window) -> DrawnWindow:
    output = worked.output[window.unit].copy()
    height, width = output.shape
    later = np.arange(height * width).reshape(height, width) > window.row * width + window.column
    output[later] = np.nan
    top, left = (
        max(0, min(at - MOST_CELLS // 2, n - MOST_CELLS)) for at, n in ((window.row, height), (window.column, width))
    )
    unit = f"unit {window.unit}, " if worked.step.output_shape[0] > 1 and worked.weight is not None else ""
    return DrawnWindow(
        f"{unit}row {window.row}, column {window.column}",
        [_channel(worked, window, n) for n in range(min(len(window.channels), MOST_CHANNELS))],
        _OPERATIONS.get(worked.step.kind, "sum"),
        output[top : top + MOST_CELLS, left : left + MOST_CELLS],
        (window.row - top, window.column - left),
        add_up(window),
    )


def _channel(worked: Worked, window: Window, n: int) -> DrawnChannel:
    image = worked.image[window.channels[n]]
    (above, below), (before, behind) = (_margins(axis_places, size) for axis_places, size in _sides(worked, image))
    numbers = np.pad(image, ((above, below), (before, behind)))
    padding = np.pad(np.zeros(image.shape, bool), ((above, below), (before, behind)), constant_values=True)
    taps = np.zeros(numbers.shape, bool)
    for row, column in product(window.rows, window.columns):
        if row is not None and column is not None:
            taps[row + above, column + before] = True
    if worked.step.kind == "max_pool":
        numbers[padding] = np.nan
    near = _near(taps)
    weights = None if worked.weight is None else window.weights[n]
    name = worked.channels[window.channels[n]]
    return DrawnChannel(
        name, numbers[near], padding[near], taps[near], weights, window.products[n], float(window.per_channel[n])
    )


def _sides(worked: Worked, image: np.ndarray) -> list[tuple[list[int], int]]:
    """Of rows and columns: the positions that any window reads, and the size of the input."""
    found = []
    for axis, size in zip(worked.step.axes or (), image.shape, strict=True):
        places = [place for stop in (0, axis.n - 1) for place in axis.reads(stop) if place is not None]
        found.append((places, size))
    return found


def _margins(places: list[int], size: int) -> tuple[int, int]:
    """Padding to be drawn at the two ends."""
    return max(0, -min(places, default=0)), max(0, max(places, default=0) - size + 1)


def _near(taps: np.ndarray) -> tuple[slice, slice]:
    """What of a large input is shown: about the window."""
    found = []
    for axis in (1, 0):
        places, size = np.flatnonzero(taps.any(axis)), taps.shape[1 - axis]
        middle = int(places.mean()) if len(places) else 0
        first = max(0, min(middle - MOST_CELLS // 2, size - MOST_CELLS))
        found.append(slice(first, first + MOST_CELLS) if size > MOST_CELLS else slice(None))
    return found[0], found[1]
