"""Convolutions and pools on a few numbers, with every product that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from convscope.base.words import shape_text
from convscope.courses.chain import Chain, ChainStep, Pair, Pool, conv, pool
from convscope.courses.numbers import even
from convscope.courses.windows import Axis, Padding
from convscope.errors import SettingError

MOST_NUMBERS, MOST_OUTPUTS = 100_000, 10_000
"""Of an input or a filter, and of an output; what is worked by hand is small."""


@dataclass(frozen=True, eq=False)
class WorkedWindow:
    """One number of the output, and what it is made of.

    Attributes:
        unit: of the output.
        row, column: its position.
        channels: those of the input that it reads.
        rows, columns: the input position under each tap; below 0 or beyond the input lies padding, None is no position.
        inputs: the numbers under the taps; 0 for padding, NaN where a tap has no part.
        weights: of the filter; 1 in a pool.
        products: inputs times weights, NaN where a tap has no part.
        per_channel: of each channel the sum of its products; in a pool its largest input (minus infinity where all taps lie in
            the padding, as in PyTorch) or its sum.
        divisor: of an average, else 1.
        bias: added at the end.
        value: what comes out; NaN of an average of nothing but padding that does not count.
    """

    unit: int
    row: int
    column: int
    channels: tuple[int, ...]
    rows: tuple[int | None, ...]
    columns: tuple[int | None, ...]
    inputs: Float[np.ndarray, "C h w"]
    weights: Float[np.ndarray, "C h w"]
    products: Float[np.ndarray, "C h w"]
    per_channel: Float[np.ndarray, " C"]
    divisor: int
    bias: float
    value: float

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain values; null where a tap has no part."""
        place = {"unit": self.unit, "position": [self.row, self.column]}
        return place | {key: _plain(value) for key, value in vars(self).items() if key not in ("unit", "row", "column")}


@dataclass(frozen=True, eq=False)
class Worked:
    """A layer worked out on numbers.

    Attributes:
        step: its shapes, counts and formulas.
        image: the input.
        weight: as PyTorch stores it: (units, channels / groups, h, w), transposed (channels, units / groups, h, w); None of
            a pool.
        bias: one for each unit.
        channels: names of the input's channels.
        notes: what was taken for granted, a line each.
        count_padding: whether an average counts padding.
    """

    step: ChainStep
    image: Float[np.ndarray, "C H W"]
    weight: Float[np.ndarray, "A B h w"] | None
    bias: Float[np.ndarray, " U"]
    channels: tuple[str, ...]
    notes: tuple[str, ...] = ()
    count_padding: bool = True

    @cached_property
    def output(self) -> Float[np.ndarray, "U H2 W2"]:
        """What comes out."""
        return np.array([one.value for one in self.windows()], dtype=np.float64).reshape(self.step.output_shape)

    def window(self, unit: int = 0, row: int = 0, column: int = 0) -> WorkedWindow:
        """One number of the output.

        Raises:
            SettingError: there is no such unit or position.
        """
        units, height, width = self.step.output_shape
        if not (0 <= unit < units and 0 <= row < height and 0 <= column < width):
            raise SettingError(
                f"window: unit {unit}, row {row}, column {column} is not in the output, which has {_n(units, 'unit')}, "
                f"{_n(height, 'row')} and {_n(width, 'column')}, counted from 0"
            )
        channels, bias = self._channels(unit), float(self.bias[unit])
        rows, columns = (axis.reads(stop) for axis, stop in zip(self._axes, (row, column), strict=True))
        r, c = (_on_ground(places, axis) for places, axis in zip((rows, columns), self._axes, strict=True))
        inputs = self._ground[np.ix_(channels, r, c)]
        filter = self.filter(unit)
        weights = np.ones((1, *inputs.shape[1:])) if filter is None else filter
        products = inputs * weights
        per_channel, divisor = self._per_channel(products)
        value = float(per_channel.sum() / divisor + bias) if divisor else float("nan")
        return WorkedWindow(
            unit, row, column, channels, rows, columns, inputs, weights, products, per_channel, divisor, bias, value
        )

    def windows(self, unit: int | None = None) -> list[WorkedWindow]:
        """Every number of the output, or of one unit, row by row."""
        units, height, width = self.step.output_shape
        chosen = range(units) if unit is None else [unit]
        return [self.window(u, row, column) for u in chosen for row in range(height) for column in range(width)]

    def per_channel(self, unit: int = 0) -> Float[np.ndarray, "C H2 W2"]:
        """What each channel that a unit reads contributes to it, at every position."""
        sums = np.stack([one.per_channel for one in self.windows(unit)], -1)
        return sums.reshape(len(sums), *self.step.output_shape[1:])

    def filter(self, unit: int = 0) -> Float[np.ndarray, "C h w"] | None:
        """The weights of one unit, for the channels that it reads; None of a pool."""
        if self.weight is None or self.step.kind == "conv":
            return None if self.weight is None else self.weight[unit]
        return self.weight[list(self._channels(unit)), unit % self.weight.shape[1]]

    def to_json(self, windows: Sequence[WorkedWindow] | None = None) -> dict[str, Any]:
        """The numbers as plain values, with all windows or those given."""
        return {
            "layer": self.step.to_json(),
            "notes": list(self.notes),
            "channels": list(self.channels),
            "input": _plain(self.image),
            **({} if self.weight is None else {"weight": _plain(self.weight), "bias": _plain(self.bias)}),
            "output": _plain(self.output),
            "windows": [one.to_json() for one in (self.windows() if windows is None else windows)],
        }

    def _repr_png_(self) -> bytes:
        from convscope.courses.drawing import worked_picture  # which reads this file

        return worked_picture(self)

    @property
    def _axes(self) -> tuple[Axis, Axis]:
        return cast(tuple[Axis, Axis], self.step.axes)

    @cached_property
    def _ground(self) -> Float[np.ndarray, "C H3 W3"]:
        """The input with a rim of padding, for all that lies outside, and a row and column of NaN behind it for what is no
        position. Padding is NaN where it has no part: it never is the largest, and an average may not count it."""
        padding = np.nan if self.step.kind == "max_pool" or not self.count_padding else 0
        padded = np.pad(self.image, ((0, 0), (1, 1), (1, 1)), constant_values=padding)
        return np.pad(padded, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)

    def _channels(self, unit: int) -> tuple[int, ...]:
        """Those that a unit reads."""
        if self.weight is None:
            return (unit,)
        each = self.step.input_shape[0] // self.step.groups
        group = unit // (self.step.output_shape[0] // self.step.groups)
        return tuple(range(group * each, (group + 1) * each))

    def _per_channel(self, products: np.ndarray) -> tuple[np.ndarray, int]:
        """What each channel gives, and what an average divides by."""
        if self.step.kind == "max_pool":
            return np.where(np.isnan(products), -np.inf, products).max((1, 2)), 1
        divisor = int((~np.isnan(products[0])).sum()) if self.step.kind == "avg_pool" else 1
        return np.nansum(products, (1, 2)), divisor


def worked_conv(
    image: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding | tuple[int, int] = 0,
    dilation: Pair = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: Pair = 0,
    channels: Sequence[str] | None = None,
) -> Worked:
    """A convolution on numbers, as networks have it: the filter is not flipped (cross-correlation).

    Args:
        image: (C, H, W), or (H, W) for one channel.
        weight: (units, C / groups, h, w); transposed (C, units / groups, h, w), as PyTorch stores them. (C, h, w) is one
            filter, or with a group for each channel one channel each; (h, w) serves each channel of one filter alike.
        bias: a number for each unit; none by default.
        stride, padding, dilation, groups, transposed, output_padding: as of `conv`.
        channels: their names; numbers by default, none for a single one.

    Raises:
        SettingError: arrays that do not go together, or an impossible setting.

    Example:
        >>> worked_conv([[1, 2], [3, 4]], [[1, 1]]).output.tolist()
        [[[3.0], [7.0]]]
    """
    pixels, notes = _image(image), []
    weights = _numbers("filter", weight)
    if weights.ndim == 2 and len(pixels) > 1 and groups == 1:
        notes.append(f"the filter's {shape_text(weights.shape)} numbers serve each of the {len(pixels)} channels")
    if transposed:
        notes.append("read backwards: the filter's first row and column meet the last ones of the input in the window")
    weights = _four_axes(weights, len(pixels), groups, transposed)
    filters, read = weights.shape[:2]
    if transposed:
        filters, read = read * groups, filters
    kernel = weights.shape[2:]
    chain = conv(
        pixels.shape, filters, kernel, stride, padding, dilation, groups, transposed, output_padding, bias is not None
    )
    expected = len(pixels) if transposed else len(pixels) // groups
    if read != expected:
        raise SettingError(
            f"filter: it has {_n(read, 'channel')}, the input {len(pixels)}"
            f"{f' in {groups} groups' if groups > 1 else ''}; expected {expected}"
        )
    return _worked(chain, pixels, weights, _bias(bias, filters), channels, tuple(notes))


def worked_pool(
    image: ArrayLike,
    kind: Pool = "max",
    kernel: Pair = 2,
    stride: Pair | None = None,
    padding: Padding | tuple[int, int] = 0,
    dilation: Pair = 1,
    up: bool = False,
    count_padding: bool = True,
    channels: Sequence[str] | None = None,
) -> Worked:
    """A pool on numbers.

    Args:
        image: (C, H, W), or (H, W) for one channel.
        kind, kernel, stride, padding, dilation, up: as of `pool`. Padding never is the largest.
        count_padding: an average counts padding as zeros, as PyTorch does; Keras leaves it out. Of a dilated window that
            reads nothing else the average is then 0 / 0, NaN; PyTorch's average pools have no dilation.
        channels: their names; numbers by default, none for a single one.

    Raises:
        SettingError: numbers that are no image, or an impossible setting.

    Example:
        >>> worked_pool([[1, 2], [3, 4]], "average").output.tolist()
        [[[2.5]]]
    """
    pixels = _image(image)
    chain = pool(pixels.shape, kind, kernel, stride, padding, dilation, up)
    return _worked(chain, pixels, None, np.zeros(len(pixels)), channels, (), count_padding)


def _worked(
    chain: Chain,
    image: np.ndarray,
    weight: np.ndarray | None,
    bias: np.ndarray,
    channels: Sequence[str] | None,
    notes: tuple[str, ...],
    count_padding: bool = True,
) -> Worked:
    if prod(chain.output_shape) > MOST_OUTPUTS:
        raise SettingError(
            f"output: {prod(chain.output_shape):,} numbers are too many to work by hand; up to {MOST_OUTPUTS:,}"
        )
    names = tuple(channels) if channels else tuple(f"channel {n}" if len(image) > 1 else "" for n in range(len(image)))
    if len(names) != len(image):
        raise SettingError(f"channels: {len(names)} names for {len(image)} channels; give one for each")
    return Worked(chain.steps[0], image, weight, bias, names, notes, count_padding)


def _image(values: ArrayLike) -> Float[np.ndarray, "C H W"]:
    image = _numbers("input", values)
    if image.ndim not in (2, 3):
        raise SettingError(
            f"input: numbers of {image.ndim} axes; expected rows and columns, or channels, rows and columns"
        )
    return image if image.ndim == 3 else image[None]


def _four_axes(weights: np.ndarray, channels: int, groups: int, transposed: bool) -> np.ndarray:
    """Filters as PyTorch stores them, from what was given of them."""
    if weights.ndim not in (2, 3, 4):
        raise SettingError(f"filter: numbers of {weights.ndim} axes; expected 2 (h, w), 3 (channels, h, w) or 4")
    if weights.ndim == 2:
        weights = np.repeat(weights[None], channels, 0)
    if weights.ndim == 3:
        return weights[:, None] if transposed or groups == channels > 1 else weights[None]
    return weights


def _bias(bias: ArrayLike | None, filters: int) -> np.ndarray:
    numbers = np.zeros(1) if bias is None else _numbers("bias", bias).reshape(-1)
    if len(numbers) not in (1, filters):
        raise SettingError(
            f"bias: {_n(len(numbers), 'number')} for {_n(filters, 'filter')}; give one for each, or one for all"
        )
    return np.broadcast_to(numbers, filters).copy()


def _numbers(what: str, values: ArrayLike) -> np.ndarray:
    numbers = even(what, values)
    if not numbers.size or numbers.size > MOST_NUMBERS:
        raise SettingError(f"{what}: {numbers.size:,} numbers; expected from 1 to {MOST_NUMBERS:,}")
    if not np.isfinite(numbers).all():
        raise SettingError(f"{what}: there is a number that is infinite or none (NaN); expected finite numbers")
    return numbers


def _on_ground(places: Sequence[int | None], axis: Axis) -> list[int]:
    """Where the taps read along an axis of `Worked._ground`."""
    return [axis.size + 2 if place is None else min(max(place, -1), axis.size) + 1 for place in places]


def _plain(value: Any) -> Any:
    """Nested lists: whole numbers as such, null for NaN and infinity."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(one) for one in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if not isinstance(value, float):
        return value
    return None if not np.isfinite(value) else int(value) if value.is_integer() else value


def _n(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
