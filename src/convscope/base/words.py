"""Counts and shapes in words."""

from __future__ import annotations

from collections.abc import Iterable


def counted(n: int, noun: str) -> str:
    """ "1 run", "2,000 runs"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def times(shape: Iterable[int]) -> str:
    """ "3×32×32"."""
    return "×".join(map(str, shape))
