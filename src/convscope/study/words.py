"""Settings in words, as screens and pages tell them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def setting_in_words(value: Any) -> str:
    """A setting's value in a line, as YAML has it: true, null, 0.01. Networks and stages by their names and plain settings.

    Example:
        >>> setting_in_words([{"name": "frozen", "train": "fc", "epochs": 3}, {"name": "all", "epochs": 2, "rate": None}])
        'frozen (train fc, epochs 3), all (epochs 2)'
    """
    if isinstance(value, str):
        line = _named(_list_in(value))
        return " ".join(value.splitlines()) if line is None else line
    line = _named(value if isinstance(value, list | tuple) else [value])
    return json.dumps(value, ensure_ascii=False) if line is None else line


def settings_in_words(settings: Mapping[str, Any]) -> str:
    """'net.width 6, recipe.rate 0.01'; 'the settings as they are' of a study that only repeats over seeds."""
    values = (f"{value:.4g}" if isinstance(value, float) else setting_in_words(value) for value in settings.values())
    words = (f"{key} {value}" for key, value in zip(settings, values, strict=True))
    return ", ".join(words) or "the settings as they are"


def _list_in(text: str) -> Any:
    """The list that a table keeps as JSON; nothing of any other text."""
    if not text.startswith("[{"):
        return []
    try:
        return json.loads(text)
    except ValueError:
        return []


def _named(parts: Any) -> str | None:
    """Mappings that have names, in a line; None of anything else."""
    if not parts or not all(isinstance(part, Mapping) and isinstance(part.get("name"), str) for part in parts):
        return None
    return ", ".join(_part(part) for part in parts)


def _part(part: Mapping[str, Any]) -> str:
    """ "frozen (epochs 3, rate 0.01)": what is no plain value, or not set, is left out."""
    plain = {key: value for key, value in part.items() if key != "name" and isinstance(value, bool | int | float | str)}
    details = ", ".join(f"{key} {setting_in_words(value)}" for key, value in plain.items())
    return f"{part['name']} ({details})" if details else str(part["name"])
