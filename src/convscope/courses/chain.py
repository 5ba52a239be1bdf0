"""Layers one after another: shapes, parameters, multiply-adds and receptive fields, from a line of text or from settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from html import escape
from math import prod
from typing import Any

from convscope.courses.steps import Pair, Pool, Shape, Step, conv_step, pool_step
from convscope.courses.windows import MOST, Axis, Padding, seen
from convscope.courses.words import steps_of
from convscope.errors import SettingError

_TITLES = ("layer", "kind", "output", "parameters", "multiply-adds", "receptive field", "stride")
_MIXES = ("adaptive_avg_pool", "dense")
"""Layers that read all positions."""


@dataclass(frozen=True)
class Chain:
    """Layers one after another, worked out for one image.

    Attributes:
        input_shape: (C, H, W).
        steps: a layer each; ReLUs, which change no figure, are left out.
    """

    input_shape: Shape
    steps: tuple[Step, ...]

    @property
    def output_shape(self) -> Shape:
        return self.steps[-1].output_shape

    @property
    def parameters(self) -> int:
        return sum(step.parameters for step in self.steps)

    @property
    def multiply_adds(self) -> int:
        return sum(step.multiply_adds for step in self.steps)

    @property
    def receptive_field(self) -> tuple[int, int]:
        """(height, width) in pixels of what a position of the last layer sees, on a plane without borders."""
        return self.steps[-1].receptive_field

    def box(self, row: int = 0, column: int = 0) -> tuple[int, int, int, int] | None:
        """The part of the image that the last layer's units at a position see, cut at the borders of the maps.

        Returns:
            (top, left, bottom, right) in pixels, half-open; None for a position that sees only padding.

        Raises:
            SettingError: there is no such position, or the last layer has no rows and columns.
        """
        shape = self.output_shape
        if len(shape) < 3 or not (0 <= row < shape[1] and 0 <= column < shape[2]):
            raise SettingError(f"position: ({row}, {column}) is not on the last layer's output of {times(shape)}")
        mixing = next((n for n, step in enumerate(self.steps) if step.kind == _MIXES[0]), None)
        paths = [[step.axes[side] for step in self.steps[:mixing] if step.axes] for side in (0, 1)]
        ends = (row, column) if mixing is None else (None, None)
        rows, columns = (_places(path, n, end) for path, n, end in zip(paths, self.input_shape[1:], ends, strict=True))
        if not rows or not columns:
            return None
        return min(rows), min(columns), max(rows) + 1, max(columns) + 1

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "layers": [step.to_json() for step in self.steps],
        }

    def _repr_html_(self) -> str:
        rows = [[step.name, step.kind, *figures(step)] for step in self.steps]
        total = ["total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}", "", ""]
        caption = f"<caption>input {times(self.input_shape)} (channels, height, width)</caption>"
        parts = (("thead", [_TITLES], "th"), ("tbody", rows, "td"), ("tfoot", [total], "td"))
        return f"<table>{caption}{''.join(_html(*part) for part in parts)}</table>"


def conv(
    shape: tuple[int, int, int],
    filters: int,
    kernel: Pair = 3,
    stride: Pair = 1,
    padding: Padding | tuple[int, int] = 0,
    dilation: Pair = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: Pair = 0,
    bias: bool = True,
) -> Chain:
    """The shape, counts and receptive field of one convolution.

    Output: floor((n + 2·padding − span) / stride) + 1 positions along each axis, span = dilation·(kernel − 1) + 1;
    transposed: (n − 1)·stride − 2·padding + span + output padding.
    Every argument but the counts may be a pair, (rows, columns).

    Args:
        shape: (C, H, W) of the input. Mind the order: many reports write H×W×C.
        filters: units of the output.
        kernel: taps of the window.
        stride: positions from one window to the next.
        padding: zeros at each end; "same" for ceil(n / stride) positions (transposed: n · stride); "valid" for none.
        dilation: positions from one tap to the next.
        groups: parts into which channels and filters are divided, each filter reading its own part only.
        transposed: the convolution read backwards, which enlarges.
        output_padding: positions added at the end of a transposed output.
        bias: one for each filter.

    Raises:
        SettingError: an impossible setting, or a window that does not fit; names it and the cure.

    Example:
        >>> conv((32, 128, 128), 16, kernel=3, stride=2).output_shape
        (16, 63, 63)
    """
    _check_shape(shape)
    step = conv_step(shape, filters, kernel, stride, padding, dilation, groups, transposed, output_padding, bias)
    return chain_of(shape, [step])


def pool(
    shape: tuple[int, int, int],
    kind: Pool = "max",
    kernel: Pair = 2,
    stride: Pair | None = None,
    padding: Padding | tuple[int, int] = 0,
    dilation: Pair = 1,
    up: bool = False,
) -> Chain:
    """The shape and receptive field of one pool.

    Args:
        shape: (C, H, W) of the input.
        kind: "max" or "average".
        kernel: of the window.
        stride: by default the kernel.
        padding, dilation: as of `conv`; padding up to half of the window.
        up: a window that sticks out over the end counts ("ceil mode").

    Raises:
        SettingError: an impossible setting, or a window that does not fit.

    Example:
        >>> pool((16, 63, 63)).output_shape
        (16, 31, 31)
    """
    _check_shape(shape)
    return chain_of(shape, [pool_step(shape, kind, kernel, stride, padding, dilation, up)])


def chain(shape: tuple[int, int, int], layers: str) -> Chain:
    """Layers one after another, from a line of text: "c64k3p0 M c128 f10".

    The words are those of plain networks (convscope.nets.text), and two things more: k, s, p and d take two numbers for
    windows that are not square, rows first, "c64k3x5"; and t64 is a transposed convolution of 64 filters, by default
    k2 s2 p0, with o1 for output padding. No output layer is added.

    Args:
        shape: (C, H, W) of the image.
        layers: the text.

    Raises:
        SettingError: a word that the grammar does not have, or a layer that does not fit; it is named.

    Example:
        >>> chain((3, 32, 32), "c64k3p0 M c128").output_shape
        (128, 15, 15)
    """
    _check_shape(shape)
    return chain_of(shape, steps_of(shape, layers))


def times(shape: Iterable[object]) -> str:
    """A shape as it is written: 3×32×32."""
    return "×".join(map(str, shape))


def figures(step: Step) -> tuple[str, str, str, str, str]:
    """A layer's output, parameters, multiply-adds, receptive field and stride as words; empty where there are none."""
    counts = [f"{n:,}" if n else "" for n in (step.parameters, step.multiply_adds)]
    field, stride = (_side(pair) for pair in (step.receptive_field, step.stride))
    return times(step.output_shape), counts[0], counts[1], field, stride


def _side(pair: tuple[object, object] | None) -> str:
    return "" if pair is None else str(pair[0]) if pair[0] == pair[1] else times(pair)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or not all(1 <= n <= MOST for n in shape):
        raise SettingError(
            f"input: {times(shape)} is no shape of images; expected channels, height and width, each from 1 to {MOST}"
        )


def chain_of(shape: Shape, steps: list[Step]) -> Chain:
    """Layers, each worked out by itself, as a chain, with what each sees of the image."""
    rows: list[Axis] = []
    columns: list[Axis] = []
    found: list[Step] = []
    whole: tuple[int, int] | None = None
    for step in steps:
        if step.axes:
            rows.append(step.axes[0])
            columns.append(step.axes[1])
        if whole is None and step.kind in _MIXES:
            whole = _reach(_places(rows, shape[1])), _reach(_places(columns, shape[2]))
        field = whole or (_field(rows), _field(columns))
        stride = None if whole or step.kind == "flatten" else (_pace(rows), _pace(columns))
        found.append(replace(step, receptive_field=field, stride=stride))
    return Chain(shape, tuple(found))


def _places(path: list[Axis], size: int, stop: int | None = None) -> set[int]:
    """What a position behind a path over an axis of `size` sees, cut at the borders; by default all of them together."""
    return seen(path, range(path[-1].n if path else size) if stop is None else [stop], cut=True)


def _field(path: list[Axis]) -> int:
    """The receptive field along one axis; behind transposed convolutions the largest of those that repeat."""
    if not path:
        return 1
    period = min(prod(axis.stride for axis in path if axis.transposed), path[-1].n)
    return max(_reach(seen(path, [stop])) for stop in range(period))


def _reach(places: set[int]) -> int:
    return max(places) - min(places) + 1 if places else 0


def _pace(path: list[Axis]) -> Fraction:
    return prod(
        (Fraction(1, axis.stride) if axis.transposed else Fraction(axis.stride) for axis in path), start=Fraction(1)
    )


def _html(part: str, rows: Iterable[Iterable[str]], cell: str) -> str:
    lines = ("".join(f"<{cell}>{escape(text)}</{cell}>" for text in row) for row in rows)
    return f"<{part}>{''.join(f'<tr>{line}</tr>' for line in lines)}</{part}>"
