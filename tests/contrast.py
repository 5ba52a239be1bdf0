"""Contrast of two colours, by the formula of WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 4.5  # of letters of ordinary size


def rgb(colour: str) -> list[float]:
    """ "#2459a8" → red, green and blue, in 0 … 255."""
    return [float(int(colour[at : at + 2], 16)) for at in (1, 3, 5)]


def mixed(over: Sequence[float], under: Sequence[float], share: float) -> list[float]:
    """A colour that covers another by this share."""
    return [share * a + (1 - share) * b for a, b in zip(over, under, strict=True)]


def contrast(a: Sequence[float], b: Sequence[float]) -> float:
    """From 1, the same, to 21, black on white."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Sequence[float]) -> float:
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
