"""One layer on paper: what comes out of it, what it costs, and the formulas with the numbers in them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, Literal

from convscope.courses.windows import MOST, Axis, Padding, make_axis
from convscope.errors import SettingError

Shape = tuple[int, ...]
Pair = int | tuple[int, int]
Pool = Literal["max", "average"]
POOLS: dict[str, str] = {"max": "max_pool", "average": "avg_pool"}


@dataclass(frozen=True)
class Step:
    """One layer of a chain, worked out for one image.

    Attributes:
        name: such as conv1.
        kind: conv, conv_transpose, max_pool, avg_pool, adaptive_avg_pool, batch_norm, dropout, flatten or dense.
        input_shape, output_shape: (C, H, W), or (units,) once the maps are flattened.
        axes: the windows along rows and columns, where there are any.
        groups: of a convolution.
        bias: whether there is one for each unit.
        parameters: weights and biases.
        multiply_adds: multiplications with their additions; those with padding count, biases do not, pools count 0.
        receptive_field: (height, width) in pixels of the chain's image, on a plane without borders; the largest where
            positions differ. Behind a layer that mixes all positions: what it sees of this image.
        stride: (down, across), pixels from one position to the next, below 1 behind a transposed convolution; None where
            there is no such step.
    """

    name: str
    kind: str
    input_shape: Shape
    output_shape: Shape
    axes: tuple[Axis, Axis] | None = None
    groups: int = 1
    bias: bool = False
    parameters: int = 0
    multiply_adds: int = 0
    receptive_field: tuple[int, int] = (1, 1)
    stride: tuple[Fraction, Fraction] | None = None

    @property
    def formulas(self) -> dict[str, str]:
        """How the figures come about, by name: height, width, parameters, multiply_adds; those that there are."""
        found = {}
        if self.axes:
            found = {name: axis.formula for name, axis in zip(("height", "width"), self.axes, strict=True)}
        if self.kind in ("conv", "conv_transpose", "dense"):
            found["parameters"] = self._parameters_formula()
            found["multiply_adds"] = self._multiply_adds_formula()
        return found

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values; pairs as [height, width]."""
        windows = [] if self.axes is None else [_window_to_json(axis) for axis in self.axes]
        return {
            "name": self.name,
            "kind": self.kind,
            "input_shape": list(self.input_shape),
            "output_shape": list(self.output_shape),
            **({"windows": dict(zip(("rows", "columns"), windows, strict=True))} if windows else {}),
            "groups": self.groups,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "receptive_field": list(self.receptive_field),
            "stride": None if self.stride is None else [_plain(one) for one in self.stride],
            "formulas": self.formulas,
        }

    def _weights(self) -> tuple[int, ...]:
        """The factors of the number of weights."""
        if self.axes is None:
            return self.output_shape[0], prod(self.input_shape)
        return (
            self.output_shape[0],
            self.input_shape[0] // self.groups,
            self.axes[0].kernel,
            self.axes[1].kernel,
        )

    def _parameters_formula(self) -> str:
        units, *each = self._weights()
        own = "·".join(map(str, each))
        return f"{units}·({own} + 1) = {self.parameters:,}" if self.bias else f"{units}·{own} = {self.parameters:,}"

    def _multiply_adds_formula(self) -> str:
        weights = "·".join(map(str, self._weights()))
        shape = self.input_shape if self.kind == "conv_transpose" else self.output_shape
        places = f" · {'·'.join(map(str, shape[1:]))}" if self.axes else ""
        return f"{weights}{places} = {self.multiply_adds:,}"


def conv_step(
    shape: Shape,
    filters: int,
    kernel: Pair = 3,
    stride: Pair = 1,
    padding: Padding | tuple[int, int] = 0,
    dilation: Pair = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: Pair = 0,
    bias: bool = True,
    name: str = "conv1",
) -> Step:
    """A convolution, or a transposed one, by itself; the arguments are those of `conv`."""
    channels, height, width = shape
    if not 1 <= filters <= MOST:
        raise SettingError(f"filters: {filters} is out of range; expected a whole number from 1 to {MOST}")
    if groups < 1 or channels % groups or filters % groups:
        raise SettingError(
            f"groups: {groups} groups do not divide {channels} channels and {filters} filters; take a divisor of both"
        )
    settings = (kernel, stride, padding, dilation, transposed, output_padding)
    rows, columns = _axes(height, width, settings)
    weights = filters * (channels // groups) * rows.kernel * columns.kernel
    places = height * width if transposed else rows.n * columns.n
    return Step(
        name=name,
        kind="conv_transpose" if transposed else "conv",
        input_shape=shape,
        output_shape=(filters, rows.n, columns.n),
        axes=(rows, columns),
        groups=groups,
        bias=bias,
        parameters=weights + filters * bias,
        multiply_adds=weights * places,
    )


def pool_step(
    shape: Shape,
    kind: Pool = "max",
    kernel: Pair = 2,
    stride: Pair | None = None,
    padding: Padding | tuple[int, int] = 0,
    dilation: Pair = 1,
    up: bool = False,
    name: str = "pool1",
) -> Step:
    """A pool by itself; the arguments are those of `pool`."""
    if kind not in POOLS:
        raise SettingError(f"pool: {kind!r} is not known; expected max or average")
    channels, height, width = shape
    settings = (kernel, kernel if stride is None else stride, padding, dilation, False, 0, up)
    rows, columns = _axes(height, width, settings)
    for axis in (rows, columns):
        if 2 * axis.before > axis.kernel:
            raise SettingError(
                f"padding: {axis.before} is more than half of the pool's window of {axis.kernel}; take less"
            )
    return Step(name, POOLS[kind], shape, (channels, rows.n, columns.n), (rows, columns))


def _axes(height: int, width: int, settings: tuple[Any, ...]) -> tuple[Axis, Axis]:
    """The windows along rows and columns, of settings that are pairs or hold for both."""
    pairs = [value if isinstance(value, tuple) else (value, value) for value in settings]
    return make_axis(height, *(rows for rows, _ in pairs)), make_axis(width, *(columns for _, columns in pairs))


def _window_to_json(axis: Axis) -> dict[str, Any]:
    return {
        "kernel": axis.kernel,
        "stride": axis.stride,
        "padding": [axis.before, axis.after],
        "dilation": axis.dilation,
        **({"output_padding": axis.output_padding} if axis.transposed else {}),
    }


def _plain(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)
