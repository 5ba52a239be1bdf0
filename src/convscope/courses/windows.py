"""A window that slides along one axis: how often it fits, and which positions each of its stops reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Literal

from convscope.errors import SettingError

Padding = int | Literal["same", "valid"]
MOST = 65536


@dataclass(frozen=True)
class Axis:
    """A window along rows or columns.

    Stop o of a convolution or pool reads input positions o·stride − before + t·dilation, for taps t = 0 … kernel − 1.
    A transposed convolution is that read backwards: input position i adds to outputs i·stride − before + t·dilation.

    Attributes:
        size: positions of the input.
        kernel: taps of the window.
        stride: from one stop to the next.
        before, after: padding at the two ends; of a transposed convolution, what is cut off there.
        dilation: from one tap to the next.
        transposed: whether it is read backwards.
        output_padding: positions added at the end of a transposed convolution's output.
        up: whether a window that sticks out over the end counts ("ceil mode").
    """

    size: int
    kernel: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    transposed: bool = False
    output_padding: int = 0
    up: bool = False

    @property
    def span(self) -> int:
        """From the first tap to the last, both included."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def n(self) -> int:
        """Positions of the output."""
        if self.transposed:
            return (self.size - 1) * self.stride - self.before - self.after + self.span + self.output_padding
        return self._steps - self._beyond + 1

    @property
    def formula(self) -> str:
        """How `n` comes about, with the numbers in it: "floor((128 − 3 + 2·0)/2) + 1 = 63"."""
        span = f"; {self.span} = {self.dilation}·({self.kernel} − 1) + 1" if self.dilation > 1 else ""
        sign = "−" if self.transposed else "+"
        pad = f"2·{self.before}" if self.before == self.after else f"{self.before} {sign} {self.after}"
        if self.transposed:
            extra = f" + {self.output_padding}" if self.output_padding else ""
            return f"({self.size} − 1)·{self.stride} − {pad} + {self.span}{extra} = {self.n}{span}"
        rounded, less = "ceil" if self.up else "floor", " − 1" if self._beyond else ""
        return f"{rounded}(({self.size} − {self.span} + {pad})/{self.stride}) + 1{less} = {self.n}{span}"

    def taps(self, stop: int) -> tuple[int | None, ...]:
        """The input position under each tap at an output position, on an axis without ends.

        None lies between the positions that a transposed convolution reads.
        """
        if not self.transposed:
            return tuple(stop * self.stride - self.before + tap * self.dilation for tap in range(self.kernel))
        reached = (stop + self.before - tap * self.dilation for tap in range(self.kernel))
        return tuple(place // self.stride if place % self.stride == 0 else None for place in reached)

    def reads(self, stop: int) -> tuple[int | None, ...]:
        """As `taps`, and None also beyond the padding and, of a transposed convolution, beyond the input.

        Positions below 0 and from `size` on are padding.
        """
        first, end = (0, self.size) if self.transposed else (-self.before, self.size + self.after)
        return tuple(place if place is not None and first <= place < end else None for place in self.taps(stop))

    @property
    def _steps(self) -> int:
        room = self.size + self.before + self.after - self.span
        return -(-room // self.stride) if self.up else room // self.stride

    @property
    def _beyond(self) -> int:
        """1 where in ceil mode the last window would begin in the padding behind the input; PyTorch drops it."""
        return int(self.up and self._steps * self.stride >= self.size + self.before)


@dataclass(frozen=True)
class Path:
    """The windows from the image to a layer along rows or columns.

    Attributes:
        size: of the image.
        axes: the windows; those behind a layer that mixes all positions are left out.
        mixed: whether there is such a layer.
    """

    size: int
    axes: tuple[Axis, ...] = ()
    mixed: bool = False

    def then(self, axis: Axis | None, mixes: bool = False) -> Path:
        """With one more layer."""
        axes = self.axes if axis is None or self.mixed else (*self.axes, axis)
        return Path(self.size, axes, self.mixed or mixes)

    def pixels(self, stop: int) -> set[int]:
        """Those that a position of the layer sees, without what lies outside the maps on the way."""
        last = self.axes[-1].n if self.axes else self.size
        return self._seen(range(last) if self.mixed else [stop], cut=True)

    @property
    def field(self) -> int:
        """The receptive field in pixels on an axis without ends; behind transposed convolutions the largest of those that
        repeat. Behind a layer that mixes all positions what it sees of this image."""
        if self.mixed or not self.axes:
            return _reach(self.pixels(0))
        period = min(prod(axis.stride for axis in self.axes if axis.transposed), self.axes[-1].n)
        return max(_reach(self._seen([stop])) for stop in range(period))

    @property
    def stride(self) -> Fraction:
        """Pixels from one position to the next."""
        steps = (Fraction(1, axis.stride) if axis.transposed else Fraction(axis.stride) for axis in self.axes)
        return prod(steps, start=Fraction(1))

    def _seen(self, stops: Iterable[int], cut: bool = False) -> set[int]:
        places = set(stops)
        for axis in reversed(self.axes):
            reached = {place for stop in places for place in axis.taps(stop) if place is not None}
            places = {place for place in reached if 0 <= place < axis.size} if cut else reached
        return places


def make_axis(
    size: int,
    kernel: int,
    stride: int,
    padding: Padding,
    dilation: int,
    transposed: bool = False,
    output_padding: int = 0,
    up: bool = False,
) -> Axis:
    """A window along an axis, from the settings as libraries name them.

    "same" gives ceil(size / stride) positions, of a transposed convolution size · stride; an odd sum of padding puts the
    spare position at the end, as in PyTorch and Keras.

    Raises:
        SettingError: a setting out of range, or a window that does not fit; names it and the cure.
    """
    for name, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if not 1 <= value <= MOST:
            raise SettingError(f"{name}: {value} is out of range; expected a whole number from 1 to {MOST}")
    if output_padding and not transposed:
        raise SettingError(
            "output padding: it goes with a transposed convolution alone; leave it out, or add transposed"
        )
    axis = _padded(Axis(size, kernel, stride, 0, 0, dilation, transposed, output_padding, up), padding)
    _check(axis, padding)
    if axis.n > MOST:
        raise SettingError(f"output: {axis.n} positions along an axis; up to {MOST} are worked out")
    return axis


def _padded(axis: Axis, padding: Padding) -> Axis:
    if padding == "valid":
        return axis
    if padding != "same":
        if not 0 <= padding <= MOST:
            raise SettingError(f"padding: {padding} is out of range; expected 0 or more, same or valid")
        return replace(axis, before=padding, after=padding)
    if axis.transposed and axis.output_padding:
        raise SettingError(
            "output padding: with padding same the output is input · stride already; leave one of both out"
        )
    spare = axis.span - axis.stride
    whole = max(
        spare if axis.transposed else (-(-axis.size // axis.stride) - 1) * axis.stride + axis.span - axis.size, 0
    )
    extra = max(-spare, 0) if axis.transposed else 0
    return replace(axis, before=whole // 2, after=whole - whole // 2, output_padding=extra)


def _check(axis: Axis, padding: Padding) -> None:
    if not axis.transposed:
        if axis.span > axis.size + axis.before + axis.after:
            dilated = f" (dilation {axis.dilation} makes it {axis.span} wide)" if axis.dilation > 1 else ""
            around = f" with padding {axis.before}" if axis.before else ""
            raise SettingError(
                f"kernel: a window of {axis.kernel}{dilated} does not fit into {axis.size} positions{around}; "
                "take a smaller kernel, a larger input or more padding"
            )
        return
    most = max(axis.stride, axis.dilation) - 1
    if padding != "same" and not 0 <= axis.output_padding <= most:
        raise SettingError(
            f"output padding: {axis.output_padding} is out of range; it is below the stride or the dilation, "
            f"so here from 0 to {most}"
        )
    if axis.n < 1:
        raise SettingError(
            f"padding: {axis.before} at both ends cuts off the whole output ({axis.formula}); take less padding"
        )


def _reach(places: set[int]) -> int:
    return max(places) - min(places) + 1 if places else 0
