"""Layers one after another: shapes, parameters, multiply-adds and receptive fields, with the formulas that lead there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from html import escape
from math import prod
from typing import Any, Literal

from convscope.base.words import shape_text
from convscope.courses.windows import MOST, Axis, Padding, Path, make_axis
from convscope.errors import SettingError

Shape = tuple[int, ...]
Pair = int | tuple[int, int]
Pool = Literal["max", "average"]
_POOLS: dict[str, str] = {"max": "max_pool", "average": "avg_pool"}
_TITLES = ("layer", "kind", "output", "parameters", "multiply-adds", "receptive field", "stride")
_MIXES = ("adaptive_avg_pool", "adaptive_max_pool", "dense")
"""Layers that read all positions."""


@dataclass(frozen=True)
class ChainStep:
    """One layer of a chain, worked out for one image.

    Attributes:
        name: such as conv1.
        kind: conv, conv_transpose, max_pool, avg_pool, adaptive_avg_pool, adaptive_max_pool, batch_norm, dropout, flatten or
            dense.
        input_shape, output_shape: (C, H, W), or (units,) once the maps are flattened.
        paths: along rows and columns, the windows from the image to this layer.
        axes: its own windows along rows and columns, where there are any.
        groups: of a convolution.
        bias: whether there is one for each unit.
    """

    name: str
    kind: str
    input_shape: Shape
    output_shape: Shape
    paths: tuple[Path, Path]
    axes: tuple[Axis, Axis] | None = None
    groups: int = 1
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        if self.kind == "batch_norm":
            return 2 * self.output_shape[0]
        return prod(self._weights) + self.output_shape[0] * self.bias if self._weights else 0

    @property
    def multiply_adds(self) -> int:
        """Multiplications with their additions; those with padding count, biases do not, pools count 0."""
        return prod(self._weights + self._places) if self._weights else 0

    @property
    def receptive_field(self) -> tuple[int, int]:
        """(height, width) in pixels of the chain's image, on a plane without borders; the largest where positions differ.
        Behind a layer that mixes all positions: what it sees of this image."""
        return self.paths[0].field, self.paths[1].field

    @property
    def stride(self) -> tuple[Fraction, Fraction] | None:
        """(down, across), pixels from one position to the next, below 1 behind a transposed convolution; None where there
        is no such step."""
        mixed = self.kind == "flatten" or self.paths[0].mixed
        return None if mixed else (self.paths[0].stride, self.paths[1].stride)

    @property
    def formulas(self) -> dict[str, str]:
        """How the figures come about, by name: height, width, parameters, multiply_adds; those that there are."""
        formulas = {name: axis.formula for name, axis in zip(("height", "width"), self.axes or (), strict=False)}
        if self._weights:
            units, fan_in = self._weights[0], _product(self._weights[1:])
            each = f"({fan_in} + 1)" if self.bias else fan_in
            formulas["parameters"] = f"{units}·{each} = {self.parameters:,}"
            places = f" · {_product(self._places)}" if self.axes else ""
            formulas["multiply_adds"] = f"{_product(self._weights)}{places} = {self.multiply_adds:,}"
        return formulas

    @property
    def figures(self) -> tuple[str, str, str, str, str]:
        """Output, parameters, multiply-adds, receptive field and stride as words; empty where there are none."""
        counts = [f"{n:,}" if n else "" for n in (self.parameters, self.multiply_adds)]
        return shape_text(self.output_shape), counts[0], counts[1], _side(self.receptive_field), _side(self.stride)

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values; pairs as [height, width]."""
        windows = {
            name: {
                "kernel": axis.kernel,
                "stride": axis.stride,
                "padding": [axis.before, axis.after],
                "dilation": axis.dilation,
                **({"output_padding": axis.output_padding} if axis.transposed else {}),
            }
            for name, axis in zip(("rows", "columns"), self.axes or (), strict=False)
        }
        return {
            "name": self.name,
            "kind": self.kind,
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            **({"windows": windows} if windows else {}),
            "groups": self.groups,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "receptive_field": list(self.receptive_field),
            "stride": None
            if self.stride is None
            else [int(one) if one.denominator == 1 else float(one) for one in self.stride],
            "formulas": self.formulas,
        }

    @property
    def _weights(self) -> tuple[int, ...]:
        """The factors of the number of weights; none of a layer without."""
        if self.kind == "dense":
            return self.output_shape[0], prod(self.input_shape)
        if self.axes is None or self.kind in _POOLS.values():
            return ()
        return self.output_shape[0], self.input_shape[0] // self.groups, *(axis.kernel for axis in self.axes)

    @property
    def _places(self) -> tuple[int, ...]:
        """Positions at which all weights are used."""
        return (self.input_shape if self.kind == "conv_transpose" else self.output_shape)[1:]


@dataclass(frozen=True)
class Chain:
    """Layers one after another, worked out for one image.

    Attributes:
        input_shape: (C, H, W).
        steps: a layer each; ReLUs, which change no figure, are left out.
    """

    input_shape: Shape
    steps: tuple[ChainStep, ...] = ()

    @property
    def output_shape(self) -> Shape:
        return self.steps[-1].output_shape if self.steps else self.input_shape

    @property
    def parameters(self) -> int:
        return sum(step.parameters for step in self.steps)

    @property
    def multiply_adds(self) -> int:
        return sum(step.multiply_adds for step in self.steps)

    @property
    def receptive_field(self) -> tuple[int, int]:
        """(height, width) in pixels of what a position of the last layer sees, on a plane without borders."""
        return self._paths[0].field, self._paths[1].field

    def then(
        self,
        name: str,
        kind: str,
        output_shape: Shape | None = None,
        axes: tuple[Axis, Axis] | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> Chain:
        """With one more layer; by default it keeps the shape."""
        rows, columns = (
            path.then(axis, kind in _MIXES) for path, axis in zip(self._paths, axes or (None, None), strict=True)
        )
        shape = self.output_shape
        step = ChainStep(name, kind, shape, output_shape or shape, (rows, columns), axes, groups, bias)
        return replace(self, steps=(*self.steps, step))

    def box(self, row: int = 0, column: int = 0) -> tuple[int, int, int, int] | None:
        """The part of the image that the last layer's units at a position see, cut at the borders of the maps.

        Returns:
            (top, left, bottom, right) in pixels, half-open; None for a position that sees only padding.

        Raises:
            SettingError: there is no such position, or the last layer has no rows and columns.
        """
        shape = self.output_shape
        if len(shape) < 3 or not (0 <= row < shape[1] and 0 <= column < shape[2]):
            raise SettingError(f"position: ({row}, {column}) is not on the last layer's output of {shape_text(shape)}")
        rows, columns = (path.pixels(stop) for path, stop in zip(self._paths, (row, column), strict=True))
        return (min(rows), min(columns), max(rows) + 1, max(columns) + 1) if rows and columns else None

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return {
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "layers": [step.to_json() for step in self.steps],
        }

    @property
    def _paths(self) -> tuple[Path, ...]:
        """Along rows and columns, the windows from the image to the last layer."""
        return self.steps[-1].paths if self.steps else tuple(map(Path, self.input_shape[1:]))

    def _repr_html_(self) -> str:
        rows = [[step.name, step.kind, *step.figures] for step in self.steps]
        total = ["total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}", "", ""]
        caption = f"<caption>input {shape_text(self.input_shape)} (channels, height, width)</caption>"
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
    *,
    behind: Chain | None = None,
    name: str = "conv1",
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
        behind, name: layers that it is added to, and its name among them.

    Raises:
        SettingError: an impossible setting, or a window that does not fit; names it and the cure.

    Example:
        >>> conv((32, 128, 128), 16, kernel=3, stride=2).output_shape
        (16, 63, 63)
    """
    check_shape(shape)
    if not 1 <= filters <= MOST:
        raise SettingError(f"filters: {filters} is out of range; expected a whole number from 1 to {MOST}")
    if groups < 1 or shape[0] % groups or filters % groups:
        raise SettingError(
            f"groups: {groups} groups do not divide {shape[0]} channels and {filters} filters; take a divisor of both"
        )
    axes = _axes(shape, kernel, stride, padding, dilation, transposed, output_padding)
    kind = "conv_transpose" if transposed else "conv"
    return (behind or Chain(shape)).then(name, kind, (filters, axes[0].n, axes[1].n), axes, groups, bias)


def pool(
    shape: tuple[int, int, int],
    kind: Pool = "max",
    kernel: Pair = 2,
    stride: Pair | None = None,
    padding: Padding | tuple[int, int] = 0,
    dilation: Pair = 1,
    up: bool = False,
    *,
    behind: Chain | None = None,
    name: str = "pool1",
) -> Chain:
    """The shape and receptive field of one pool.

    Args:
        shape: (C, H, W) of the input.
        kind: "max" or "average".
        kernel: of the window.
        stride: by default the kernel.
        padding, dilation: as of `conv`; padding up to half of the window.
        up: a window that sticks out over the end counts ("ceil mode").
        behind, name: as of `conv`.

    Raises:
        SettingError: an impossible setting, or a window that does not fit.

    Example:
        >>> pool((16, 63, 63)).output_shape
        (16, 31, 31)
    """
    check_shape(shape)
    if kind not in tuple(_POOLS):  # of a file, in which it may be a list
        raise SettingError(f"pool: {kind!r} is not known; expected max or average")
    axes = _axes(shape, kernel, kernel if stride is None else stride, padding, dilation, False, 0, up)
    for axis in axes:
        if 2 * axis.before > axis.kernel:
            raise SettingError(
                f"padding: {axis.before} is more than half of the pool's window of {axis.kernel}; take less"
            )
    return (behind or Chain(shape)).then(name, _POOLS[kind], (shape[0], axes[0].n, axes[1].n), axes)


def _axes(shape: Shape, *settings: Any) -> tuple[Axis, Axis]:
    """The windows along rows and columns, of settings that are pairs or hold for both."""
    rows, columns = zip(*(value if isinstance(value, tuple) else (value, value) for value in settings), strict=True)
    return make_axis(shape[1], *rows), make_axis(shape[2], *columns)


def check_shape(shape: Shape) -> None:
    """Refuses what is no (C, H, W)."""
    if len(shape) != 3 or not all(1 <= n <= MOST for n in shape):
        raise SettingError(
            f"input: {shape_text(shape)} is no shape of images; expected channels, height and width, each from 1 to {MOST}"
        )


def _product(factors: Iterable[int]) -> str:
    return "·".join(map(str, factors))


def _side(pair: tuple[object, object] | None) -> str:
    return "" if pair is None else str(pair[0]) if pair[0] == pair[1] else shape_text(pair)


def _html(part: str, rows: Iterable[Iterable[str]], cell: str) -> str:
    lines = ("".join(f"<{cell}>{escape(text)}</{cell}>" for text in row) for row in rows)
    return f"<{part}>{''.join(f'<tr>{line}</tr>' for line in lines)}</{part}>"
