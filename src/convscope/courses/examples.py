"""Worked examples that come with convscope, and those of a user's YAML file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from convscope.courses.numbers import read_numbers, read_settings
from convscope.courses.worked import Worked, worked_conv, worked_pool
from convscope.errors import SettingError, UnknownNameError

_RGB = {
    "image": np.stack([np.full((4, 4), 1.0), np.full((4, 4), 2.0), np.repeat(np.arange(1.0, 5), 4).reshape(4, 4)]),
    "channels": ("R", "G", "B"),
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "report-e": {**_RGB, "filter": np.ones((3, 3, 3))},
    "edges": {"image": np.repeat([[0.0, 0, 0, 9, 9, 9]], 4, 0), "filter": np.array([[1.0, 0, -1]] * 3)},
    "upsample": {
        "image": np.array([[1.0, 2], [3, 4]]), "filter": np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4,
        "stride": 2, "padding": 1, "output_padding": 1, "transposed": True,
    },
}  # fmt: skip
"""By name."""

_CONV, _POOL = (tuple(signature(function).parameters)[2:] for function in (worked_conv, worked_pool))
_KEYS = ("image", "filter", "pool", *dict.fromkeys([*_CONV, *_POOL]))


def worked_example(example: str | None = None, **settings: Any) -> Worked:
    """A worked convolution or pool: one that comes with convscope, a YAML file, or what is given.

    Args:
        example: report-e (three channels of 4×4, a filter of ones), edges, upsample, or a .yaml file with the keys below;
            none by default.
        settings: instead of or beside those of the example: `image` and `filter` as arrays or as text ("1 2; 3 4"), `pool`
            ("max" or "average") in place of a filter, and the arguments of `worked_conv` or `worked_pool`.

    Raises:
        UnknownNameError: no such example or key.
        SettingError: no image, or neither a filter nor a pool, or settings that do not go together.

    Example:
        >>> worked_example("report-e").output[0].tolist()
        [[45.0, 45.0], [54.0, 54.0]]
    """
    settings_given = {key: value for key, value in settings.items() if value is not None}
    merged = {**_base(example, image_only=bool(settings_given.get("pool"))), **settings_given}
    for key in merged:
        if key not in _KEYS:
            raise UnknownNameError("setting", key, _KEYS, "one of a worked example's")
    if "image" not in merged:
        raise SettingError(
            "image: there is none; give numbers such as '1 2; 3 4', a file of them, or --example report-e"
        )
    args = {key: _READ[key](key, value) if key in _READ else value for key, value in merged.items()}
    image, weight, kind = (args.pop(key, None) for key in ("image", "filter", "pool"))
    if kind:
        _refuse([*(["filter"] if weight is not None else []), *args], _POOL, "a pool")
        return worked_pool(image, kind, **args)
    if weight is None:
        raise SettingError("filter: there is none; give numbers such as '1 0 -1; 1 0 -1', or pool: max (--pool max)")
    _refuse(args, _CONV, "a convolution, whose filter has its own size" if "kernel" in args else "a convolution")
    return worked_conv(image, weight, **args)


def pair(name: str, given: object) -> int | tuple[int, int]:
    """A setting of rows and columns: 3, "3", "3x5" or [3, 5].

    Raises:
        SettingError: it is none of these.
    """
    parts = list(given) if isinstance(given, list | tuple) else str(given).replace("×", "x").split("x")
    try:
        numbers = [int(str(part)) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise SettingError(f"{name}: {given!r}; expected a whole number such as 3, or rows×columns such as 3x5")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def padding(name: str, given: object) -> Any:
    """Padding: as `pair`, or "same" or "valid"."""
    if given in ("same", "valid"):
        return given
    try:
        return pair(name, given)
    except SettingError:
        raise SettingError(
            f"{name}: {given!r}; expected same, valid, a whole number, or rows×columns such as 1x2"
        ) from None


def _base(example: str | None, image_only: bool) -> dict[str, Any]:
    if example is None:
        return {}
    if Path(example).suffix.lower() in (".yaml", ".yml"):
        settings = read_settings(Path(example))
    elif example in EXAMPLES:
        settings = EXAMPLES[example]
    else:
        raise UnknownNameError("example", example, [*EXAMPLES, "FILE.yaml"])
    return {key: settings[key] for key in ("image", "channels") if key in settings} if image_only else dict(settings)


def _refuse(keys: Iterable[str], allowed: tuple[str, ...], what: str) -> None:
    for key in keys:
        if key not in allowed:
            raise SettingError(f"{key.replace('_', ' ')}: it does not go with {what}; leave it out")


def _names(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.replace(",", " ").split()
    if not isinstance(value, list | tuple):
        raise SettingError(f"{name}: {value!r}; expected names such as R,G,B")
    return tuple(map(str, value))


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingError(f"{name}: {value!r}; expected a whole number")
    return value


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise SettingError(f"{name.replace('_', ' ')}: {value!r}; expected true or false")
    return value


_READ: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("image", "filter", "bias"), read_numbers),
    **dict.fromkeys(("stride", "dilation", "output_padding", "kernel"), pair),
    **dict.fromkeys(("transposed", "up", "count_padding"), _switch),
    "padding": padding,
    "groups": _whole,
    "channels": _names,
}
