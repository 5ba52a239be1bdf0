"""Boxes of feature maps, and values that differ from a remembered pass inside one box only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convscope.graph.windows import Window


class Span(NamedTuple):
    """Rows or columns from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def moved(self, by: int) -> Span:
        return Span(self.start + by, self.stop + by)


class Box(NamedTuple):
    """A rectangle of a feature map."""

    rows: Span
    columns: Span

    @property
    def area(self) -> int:
        return max(0, self.rows.length) * max(0, self.columns.length)

    def cut(self, x: Tensor) -> Tensor:
        """This part of (…, H, W); an axis of size 1 that stands for all positions stays as it is."""
        for axis, span in zip((-2, -1), self, strict=True):
            if x.ndim >= -axis and x.shape[axis] > 1:
                x = x.narrow(axis, span.start, span.length)
        return x

    def meet(self, other: Box) -> Box:
        """What lies in both."""
        return Box(*(Span(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(self, other, strict=True)))

    def within(self, other: Box) -> Box:
        """This box, counted from the top left of `other`."""
        return Box(self.rows.moved(-other.rows.start), self.columns.moved(-other.columns.start))


class BoxValues(NamedTuple):
    """New values (P, C, height, width) of a map inside a box; outside it the map is as it was."""

    box: Box
    values: Tensor

    def over(self, box: Box, old: Callable[[Box], Any]) -> Any:
        """The map's values on another box that meets this one, where `old` gives the rest (1, C, height, width)."""
        shared = self.box.meet(box)
        if shared == box:
            return self.values if box == self.box else box.within(self.box).cut(self.values)
        values = torch.cat([old(box)] * len(self.values))
        shared.within(box).cut(values).copy_(shared.within(self.box).cut(self.values))
        return values


def hull(boxes: Iterable[Box]) -> Box:
    """The smallest box that holds them all."""
    rows, columns = zip(*boxes, strict=True)
    return Box(joined(rows), joined(columns))


def joined(spans: Iterable[Span]) -> Span:
    """The smallest span that holds them all."""
    starts, stops = zip(*spans, strict=True)
    return Span(min(starts), max(stops))


def reached(window: Window, span: Span, n_outputs: int) -> Span:
    """The outputs of a sliding window that read any of `span`; those that skip it by dilation are counted in."""
    start = -((window.span - 1 - window.before - span.start) // window.stride)
    stop = (span.stop - 1 + window.before) // window.stride + 1
    return Span(max(0, start), min(n_outputs, stop))


def read(window: Window, span: Span) -> Span:
    """The inputs that the outputs in `span` read; below 0 and past the end lies the padding."""
    start = span.start * window.stride - window.before
    return Span(start, start + (span.length - 1) * window.stride + window.span)


def laid_out(x: Tensor) -> Tensor:
    """On a CPU with a position's units side by side, which cuts boxes in long runs and convolves faster; else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 and x.device.type == "cpu" else x
