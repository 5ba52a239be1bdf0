"""Counts and shapes in words."""

from __future__ import annotations

from collections.abc import Iterable


def counted(n: int, noun: str, plural: str = "s") -> str:
    """ "1 run", "2,000 runs"; with the plural "es" "2 classes"."""
    return f"{n:,} {noun}{'' if n == 1 else plural}"


def shape_text(shape: Iterable[object]) -> str:
    """ "3×32×32"."""
    return "×".join(map(str, shape))
