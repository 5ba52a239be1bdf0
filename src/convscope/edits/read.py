"""A list of edits as a stranger may have written it: each value is checked, and there is a bound on everything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.data import ImageSet
from convscope.errors import SettingError, shortened

MAX_EDITS, MAX_POINTS, MAX_POINTS_IN_ALL, MAX_CHARACTERS = 200, 2_000, 20_000, 2**20
"""Of a list: edits, points of one stroke and of all, characters of its text."""

FILLS = ("grey", "black", "white", "mean", "blur", "noise")
OF_OTHERS = ("paste", "blend")
"""Edits that take from another image, whose index comes first."""

_FAR_PX = 100_000
_EXAMPLE = 'expected a list such as [["rotate", 15]]'

Others = ImageSet | Float[Tensor, "M _ _ _"]
"""Images that edits take from, of the shape of those that are edited, by their index."""

Reader = Callable[[Any], Any]
"""Gives a value as it is used; or says with a ValueError what was expected."""


class Edits(tuple[Any, ...]):
    """Edits that were checked: each a tuple, its name first; plain values, so that `json.dumps` writes them."""

    __slots__ = ()


def _number(low: float, high: float, kind: type[float] = float) -> Reader:
    def read(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or value != kind(value):  # NaN is in no range
            raise ValueError(f"expected a {'whole ' if kind is int else ''}number from {low:,} to {high:,}")
        return kind(value)

    return read


_whole = partial(_number, kind=int)


def _several(names: str, *readers: Reader) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) != len(readers):
            raise ValueError(f"expected [{names}]")
        return tuple(reader(one) for reader, one in zip(readers, value, strict=True))

    return read


def _points(value: Any) -> tuple[tuple[float, float], ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_POINTS:
        raise ValueError(f"expected 1 to {MAX_POINTS:,} points [x, y]")
    return tuple(map(_POINT, value))


def _fill(value: Any) -> str:
    if not isinstance(value, str) or (value not in FILLS and not re.fullmatch("#[0-9a-fA-F]{6}", value)):
        raise ValueError(f"expected {', '.join(FILLS)} or a colour such as #ff8000")
    return value


_PX, _FACTOR, _INDEX = _number(-_FAR_PX, _FAR_PX), _number(0, 100), _whole(0, 10**9)
_WHOLE_PX, _SIDE_PX = _whole(-_FAR_PX, _FAR_PX), _whole(0, _FAR_PX)
_POINT = _several("x, y", _PX, _PX)
_BOX = "x, y, width, height"

_KINDS: dict[str, dict[str, Reader]] = {
    "paint": {"points": _points, "radius": _number(0, _FAR_PX), "fill": _fill},
    "rectangle": {"box": _several(_BOX, _PX, _PX, _number(0, _FAR_PX), _number(0, _FAR_PX)), "fill": _fill},
    "paste": {
        "index": _INDEX,
        "box": _several(_BOX, _WHOLE_PX, _WHOLE_PX, _SIDE_PX, _SIDE_PX),
        "place": _several("x, y", _WHOLE_PX, _WHOLE_PX),
    },
    "blend": {"index": _INDEX, "share": _number(0, 1)},
    "shift": {"right": _PX, "down": _PX},
    "rotate": {"degrees": _number(-360, 360)},
    "scale": {"factor": _number(0.1, 10)},
    "brightness": {"factor": _FACTOR},
    "contrast": {"factor": _FACTOR},
    "saturation": {"factor": _FACTOR},
    "blur": {"deviation": _number(0, 100)},
    "noise": {"deviation": _number(0, 10), "seed": _whole(0, 2**32 - 1)},
    "jpeg": {"quality": _whole(1, 100)},
}


def check(edits: str | Sequence[Any], channels: int | None = None, n_others: int | None = None) -> Edits:
    """The edits of a list, or of its JSON text, as `apply` takes them.

    At most 200 edits, 2,000 points a stroke and 20,000 in all, 2²⁰ characters of text; coordinates and lengths up to
    100,000 px, rotations up to 360° either way, scales from 0.1 to 10, factors of brightness, contrast and saturation up to
    100, deviations of a blur up to 100 px and of noise up to 10. The time of an edit depends on the size of the image and
    the number of points alone.

    Args:
        edits: see `convscope.edits`; what was checked before is not read again.
        channels: of the images, where they are known.
        n_others: how many images there are to take from, where it is known.

    Raises:
        SettingError: it is no such list; the message names the edit by its place, counted from 1.

    Example:
        >>> check('[["rotate", 15]]')
        (('rotate', 15.0),)
    """
    checked = edits if isinstance(edits, Edits) else Edits(_read(edits))
    for place, (name, *values) in enumerate(checked, start=1):
        if wrong := _misfit(name, values, channels, n_others):
            raise SettingError(f"edit {place} ({name}): {wrong}")
    return checked


def with_own(edits: str | Sequence[Any], others: Others | None) -> tuple[Edits, Float[Tensor, "M C H W"] | None]:
    """The same edits with the images that they take from alone, which are numbered anew; None where they take from none.

    Raises:
        SettingError: as `check`.
    """
    checked = check(edits, n_others=0 if others is None else len(others))
    used = sorted({edit[1] for edit in checked if edit[0] in OF_OTHERS})
    if others is None or not used:
        return checked, None
    own = others.images(used) if isinstance(others, ImageSet) else others[torch.tensor(used)]
    numbered = [(e[0], used.index(e[1]), *e[2:]) if e[0] in OF_OTHERS else e for e in checked]
    return Edits(numbered), own


def _read(edits: Any) -> list[tuple[Any, ...]]:
    if isinstance(edits, str):
        if len(edits) > MAX_CHARACTERS:
            raise SettingError(f"edits: a text of {len(edits):,} characters; expected at most {MAX_CHARACTERS:,}")
        try:
            edits = json.loads(edits)
        except (ValueError, RecursionError) as error:
            raise SettingError(f"edits: {shortened(edits)} is no JSON ({error}); {_EXAMPLE}") from None
    if not isinstance(edits, list | tuple):
        raise SettingError(f"edits: {shortened(edits)}; {_EXAMPLE}")
    if len(edits) > MAX_EDITS:
        raise SettingError(f"edits: a list of {len(edits):,}; expected at most {MAX_EDITS}")
    checked = [_read_one(place, edit) for place, edit in enumerate(edits, start=1)]
    n_points = sum(len(edit[1]) for edit in checked if edit[0] == "paint")
    if n_points > MAX_POINTS_IN_ALL:
        raise SettingError(f"edits: strokes of {n_points:,} points in all; expected at most {MAX_POINTS_IN_ALL:,}")
    return checked


def _read_one(place: int, edit: Any) -> tuple[Any, ...]:
    if not isinstance(edit, list | tuple) or not edit or not isinstance(edit[0], str) or edit[0] not in _KINDS:
        raise SettingError(f"edit {place}: {shortened(edit)}; expected a list that begins with {', '.join(_KINDS)}")
    name, *values = edit
    readers = _KINDS[name]
    if len(values) != len(readers):
        expected = ", ".join([f'"{name}"', *readers])
        raise SettingError(f"edit {place} ({name}): {shortened(edit)}; expected [{expected}]")
    checked = []
    for (argument, reader), value in zip(readers.items(), values, strict=True):
        try:
            checked.append(reader(value))
        except ValueError as error:
            raise SettingError(f"edit {place} ({name}): {argument}: {shortened(value)}; {error}") from None
    return name, *checked


def _misfit(name: str, values: Sequence[Any], channels: int | None, n_others: int | None) -> str | None:
    """What of an edit does not fit the images."""
    if name in OF_OTHERS and n_others is not None and values[0] >= n_others:
        available = f"there are images 0 to {n_others - 1}" if n_others else "there are no other images to take from"
        return f"index: {values[0]}; {available}"
    if channels in (None, 1, 3):
        return None
    if name == "jpeg":
        return f"the images have {channels} channels; JPEG has 1 or 3"
    if name in ("paint", "rectangle") and values[-1] not in FILLS:
        return f"fill: {values[-1]}; the images have {channels} channels, and a colour needs 1 or 3; give {', '.join(FILLS)}"
    return None


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
