"""A window that slides along one axis: how often it fits, and what each of its stops reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
        if self.transposed:
            cut = f"2·{self.before}" if self.before == self.after else f"{self.before} − {self.after}"
            whole = f"({self.size} − 1)·{self.stride} − {cut} + {self.span}"
            return f"{whole}{f' + {self.output_padding}' if self.output_padding else ''} = {self.n}{span}"
        pad = f"2·{self.before}" if self.before == self.after else f"{self.before} + {self.after}"
        rounded, less = "ceil" if self.up else "floor", " − 1" if self._beyond else ""
        return f"{rounded}(({self.size} − {self.span} + {pad})/{self.stride}) + 1{less} = {self.n}{span}"

    def reads(self, stop: int) -> tuple[int | None, ...]:
        """The input position under each tap at an output position.

        Positions below 0 and from `size` on are padding. None is no position at all: between those of a transposed
        convolution, or beyond its ends, or beyond the padding in ceil mode.
        """
        if self.transposed:
            return tuple(i if i is not None and 0 <= i < self.size else None for i in self._sources(stop))
        places = (stop * self.stride - self.before + tap * self.dilation for tap in range(self.kernel))
        return tuple(place if place < self.size + self.after else None for place in places)

    def sources(self, stop: int) -> set[int]:
        """The input positions that an output position depends on, on an axis without ends."""
        if self.transposed:
            return {i for i in self._sources(stop) if i is not None}
        return {stop * self.stride - self.before + tap * self.dilation for tap in range(self.kernel)}

    def _sources(self, stop: int) -> list[int | None]:
        reached = (stop + self.before - tap * self.dilation for tap in range(self.kernel))
        return [place // self.stride if place % self.stride == 0 else None for place in reached]

    @property
    def _steps(self) -> int:
        room = self.size + self.before + self.after - self.span
        return -(-room // self.stride) if self.up else room // self.stride

    @property
    def _beyond(self) -> int:
        """1 where in ceil mode the last window would begin in the padding behind the input; PyTorch drops it."""
        return int(self.up and self._steps * self.stride >= self.size + self.before)


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
    _check(kernel=kernel, stride=stride, dilation=dilation)
    if output_padding and not transposed:
        raise SettingError(
            "output padding: it goes with a transposed convolution alone; leave it out, or add transposed"
        )
    window = Axis(size, kernel, stride, 0, 0, dilation, transposed, output_padding, up)
    before, after, extra = _padding(window, padding)
    axis = Axis(size, kernel, stride, before, after, dilation, transposed, output_padding + extra, up)
    if transposed:
        _check_transposed(axis, padding)
    elif axis.span > size + before + after:
        _refuse_window(axis)
    if axis.n > MOST:
        raise SettingError(f"output: {axis.n} positions along an axis; up to {MOST} are worked out")
    return axis


def seen(axes: Sequence[Axis], stops: Iterable[int], cut: bool = False) -> set[int]:
    """The positions of the first axis's input that outputs of the last one depend on.

    Args:
        axes: of the layers of a chain, from the input on.
        stops: positions of the last output.
        cut: leave out what lies outside the maps on the way; else the axes have no ends.
    """
    found = set(stops)
    for axis in reversed(axes):
        found = {place for stop in found for place in axis.sources(stop) if not cut or 0 <= place < axis.size}
    return found


def _check(**settings: int) -> None:
    for name, value in settings.items():
        if not 1 <= value <= MOST:
            raise SettingError(f"{name}: {value} is out of range; expected a whole number from 1 to {MOST}")


def _padding(axis: Axis, padding: Padding) -> tuple[int, int, int]:
    """Padding before and after, and what "same" adds at the end of a transposed output."""
    if padding == "valid":
        return 0, 0, 0
    if padding != "same":
        if not 0 <= padding <= MOST:
            raise SettingError(f"padding: {padding} is out of range; expected 0 or more, same or valid")
        return padding, padding, 0
    if axis.transposed:
        if axis.output_padding:
            raise SettingError(
                "output padding: with padding same the output is input · stride already; leave one of both out"
            )
        whole = max(axis.span - axis.stride, 0)
        return whole // 2, whole - whole // 2, max(axis.stride - axis.span, 0)
    stops = -(-axis.size // axis.stride)
    whole = max((stops - 1) * axis.stride + axis.span - axis.size, 0)
    return whole // 2, whole - whole // 2, 0


def _check_transposed(axis: Axis, padding: Padding) -> None:
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


def _refuse_window(axis: Axis) -> None:
    dilated = f" (dilation {axis.dilation} makes it {axis.span} wide)" if axis.dilation > 1 else ""
    around = f" with padding {axis.before}" if axis.before else ""
    raise SettingError(
        f"kernel: a window of {axis.kernel}{dilated} does not fit into {axis.size} positions{around}; "
        "take a smaller kernel, a larger input or more padding"
    )
