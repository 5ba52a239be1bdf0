"""The window that a convolution or a pool slides over its input, one axis at a time."""

from __future__ import annotations

from dataclasses import dataclass

from convscope.graph.calls import Call


@dataclass(frozen=True)
class Window:
    """Output position o reads input positions o·stride − before + t·dilation for t = 0 … kernel − 1."""

    kernel: int
    stride: int
    before: int
    dilation: int

    @property
    def span(self) -> int:
        """From the first tap to the last, both included."""
        return (self.kernel - 1) * self.dilation + 1


STILL = Window(1, 1, 0, 1)
"""Each position reads its own place alone."""


def windows(call: Call) -> tuple[Window, ...]:
    """The windows of a convolution or a pool along the spatial axes; axis 2 of the tensor comes first."""
    kernel = call.shape("weight")[2:] if "weight" in call else _each(call["kernel_size"], call.n_spatial)
    n_axes = len(kernel)
    stride = _each(call["stride"], n_axes) or kernel  # an empty stride means the kernel's size
    dilation = _each(call["dilation"], n_axes) if "dilation" in call else (1,) * n_axes
    if call["padding"] == "same":  # an odd sum of padding puts the spare row at the end
        before = tuple((k - 1) * d // 2 for k, d in zip(kernel, dilation, strict=True))
    elif call["padding"] == "valid":
        before = (0,) * n_axes
    else:
        before = _each(call["padding"], n_axes)
    return tuple(Window(*w) for w in zip(kernel, stride, before, dilation, strict=True))


def transposed_windows(call: Call) -> tuple[Window, ...]:
    """The windows of a transposed convolution over its input, spread out by stride − 1 empty positions."""
    ordinary = windows(call)
    return tuple(Window(w.kernel, 1, w.span - 1 - w.before, w.dilation) for w in ordinary)


def adaptive_windows(call: Call) -> tuple[Window, ...] | None:
    """The equal windows of an adaptive pool; None where they differ in size or one covers an axis."""
    shapes = list(zip(call.input_shape[2:], call.output_shape[2:], strict=True))
    if any(size % n or (n == 1 and size > 1) for size, n in shapes):
        return None
    return tuple(Window(size // n, size // n, 0, 1) for size, n in shapes)


def border_windows(call: Call) -> tuple[Window, Window]:
    """Those of a border around a map: each position of the larger map reads one of the smaller."""
    left, _, top, _ = (*call["pad"], 0, 0)[:4]
    return Window(1, 1, top, 1), Window(1, 1, left, 1)


def slice_window(call: Call) -> tuple[int, Window]:
    """The axis of a slice, and its window along it."""
    axis = call["dim"] % len(call.input_shape)
    start, _, step = slice(call["start"], call["end"], call["step"]).indices(call.input_shape[axis])
    return axis, Window(1, step, -start, 1)


def adaptive_spans(size: int, n: int) -> list[tuple[int, int]]:
    """Where each of the `n` windows of an adaptive pool over `size` positions begins and ends (half-open)."""
    return [(o * size // n, -(-(o + 1) * size // n)) for o in range(n)]


def _each(value: int | list[int], n_axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * n_axes if len(values) == 1 else values
