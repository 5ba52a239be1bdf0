"""Edits in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from convscope.edits.read import check

_MOST = 4
"""In words; of a longer list the rest is counted."""


def describe(edits: str | Sequence[Any]) -> str:
    """A list of edits in words, in their order; "no edit" of an empty one.

    Raises:
        SettingError: as `check`.

    Example:
        >>> describe([["rectangle", [0, 0, 8, 8], "grey"], ["rotate", 5]])
        'grey rectangle 8×8 at 0, 0; rotated by 5°'
    """
    checked = check(edits)
    words = [_WORDS[name](*values) for name, *values in checked[:_MOST]]
    rest = [f"{len(checked) - _MOST} more"] if len(checked) > _MOST else []
    return "; ".join(words + rest) or "no edit"


def _paint(points: Sequence[tuple[float, float]], radius: float, fill: str) -> str:
    if len(points) == 1:
        return f"{fill} dot of radius {radius:g} px at {_at(points[0])}"
    return f"{fill} stroke of radius {radius:g} px, {len(points)} points from {_at(points[0])} to {_at(points[-1])}"


def _at(place: Sequence[float]) -> str:
    return f"{place[0]:g}, {place[1]:g}"


_WORDS: dict[str, Callable[..., str]] = {
    "paint": _paint,
    "rectangle": lambda box, fill: f"{fill} rectangle {box[2]:g}×{box[3]:g} at {_at(box)}",
    "paste": lambda index, box, place: f"{box[2]}×{box[3]} px of image {index} from {_at(box)} pasted at {_at(place)}",
    "blend": lambda index, share: f"{100 * share:g} % of image {index} blended in",
    "shift": lambda right, down: f"shifted by {right:g} px right, {down:g} px down",
    "rotate": lambda degrees: f"rotated by {degrees:g}°",
    "scale": lambda factor: f"scaled by {factor:g}",
    "brightness": lambda factor: f"brightness ×{factor:g}",
    "contrast": lambda factor: f"contrast ×{factor:g}",
    "saturation": lambda factor: f"saturation ×{factor:g}",
    "blur": lambda deviation: f"blurred by {deviation:g} px",
    "noise": lambda deviation, seed: f"noise of deviation {deviation:g}, seed {seed}",
    "jpeg": lambda quality: f"JPEG of quality {quality}",
}
