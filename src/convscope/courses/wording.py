"""Layers and numbers in words, as the terminal and the pictures show them; and shapes as users write them."""

from __future__ import annotations

import re
from math import isnan
from typing import Literal

from convscope.base.words import shape_text
from convscope.courses.chain import ChainStep
from convscope.courses.windows import Axis
from convscope.courses.worked import Worked, WorkedWindow
from convscope.errors import SettingError

Order = Literal["chw", "hwc"]
_KINDS = {
    "conv": "convolution",
    "conv_transpose": "transposed convolution",
    "max_pool": "max pool",
    "avg_pool": "average pool",
}


def number(value: float) -> str:
    """A number as it is written: up to four digits, a true minus, nothing for NaN."""
    return "" if isnan(value) else f"{value + 0.0:.4g}".replace("-", "−")  # − 0 is 0


def in_words(worked: Worked) -> str:
    """What is worked out, in a line: "convolution 3×3, padding 1: 3×4×4 → 1×4×4"."""
    step = worked.step
    window = ", ".join(window_in_words(step))
    return f"{_KINDS[step.kind]} {window}: {shape_text(step.input_shape)} → {shape_text(step.output_shape)}"


def window_in_words(step: ChainStep, short: bool = False) -> list[str]:
    """A layer's window, and the settings that are not the simplest: ["3×3", "stride 2", "padding 1"]; short, as in the words
    of a chain: ["3×3", "s2", "p1"]."""
    if step.axes is None:
        return []
    rows, columns = step.axes
    words = [f"{rows.kernel}×{columns.kernel}"]
    for name, simplest in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
        pair = tuple(_ends(axis) if name == "padding" else str(getattr(axis, name)) for axis in (rows, columns))
        if pair != (str(simplest), str(simplest)):
            lead = name[0] if short else f"{name.replace('_', ' ')} "
            words.append(lead + (pair[0] if pair[0] == pair[1] else shape_text(pair)))
    return [*words, *([f"{step.groups} groups"] if step.groups > 1 else [])]


def _ends(axis: Axis) -> str:
    """Padding at both ends; where they differ, "0+1"."""
    return str(axis.before) if axis.before == axis.after else f"{axis.before}+{axis.after}"


def add_up(window: WorkedWindow) -> str:
    """How a number of the output comes of its channels: "9 + 18 + 18 = 45"; empty where there is nothing to add, and
    "0 / 0 = NaN" of an average of nothing."""
    parts = [number(value) for value in window.per_channel]
    if window.divisor != 1:
        parts = [f"{parts[0]} / {window.divisor}"]
    if window.bias:
        parts.append(number(window.bias))
    whole = " + ".join(parts).replace("+ −", "− ")
    return "" if whole == number(window.value) else f"{whole} = {number(window.value) or 'NaN'}"


def read_shape(text: str, order: Order | None = None) -> tuple[tuple[int, int, int], Order]:
    """(C, H, W), and the order that the text was read in.

    Written are C×H×W, as everywhere in convscope, or H×W×C, as in many reports. Where the order is not given, two equal
    numbers beside a third one are height and width. "6@28x28" is 6 maps of 28×28, and "28x28" one channel.

    Raises:
        SettingError: the text is no shape.

    Example:
        >>> read_shape("128x128x32"), read_shape("3x32x32")
        (((32, 128, 128), 'hwc'), ((3, 32, 32), 'chw'))
    """
    match = re.fullmatch(r"(\d+)@(\d+)[x×,](\d+)", text.strip())
    parts = match.groups() if match else text.strip().replace("×", "x").replace(",", "x").split("x")
    if len(parts) == 2:
        parts = ["1", *parts]
        order = "chw"
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise SettingError(
            f"input: {text!r} is no shape; expected channels, height and width, such as 3x32x32, or 28x28"
        )
    a, b, c = map(int, parts)
    if order is None:
        order = "hwc" if a == b != c and not match else "chw"
    return ((c, a, b), order) if order == "hwc" else ((a, b, c), order)
