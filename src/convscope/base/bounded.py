"""YAML from anywhere: neither so deep nor so large that it harms whoever reads it. No PyTorch is loaded for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from convscope.errors import SettingError, first_line

DEEPEST, LARGEST, LONGEST = 50, 100_000, 2**20
"""Levels, values and characters that a spec may have, each alias counted as often as it stands: far above any that a person
writes. A few lines can stand for billions of values, and the parser in C has no bound of its own."""


MOST_BITS = 10_000
"""Of a whole number, however it is written: Python refuses to write longer ones as decimals."""


class KeyTwiceError(yaml.constructor.ConstructorError):
    """A mapping has a key twice."""


class _KeysOnce:
    """A loader that refuses a mapping in which a key stands twice, of which YAML's own takes the last without a word; and more
    keys than `LARGEST`, those that "<<" merges in counted beforehand."""

    n_keys = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        names = set()
        for key, _ in node.value:  # before those that "<<" merges in, which a key of one's own overrides
            if _name(key) in names:
                raise KeyTwiceError(None, None, f"{key.value!r} is there twice; leave one of them out", key.start_mark)
            names.add(_name(key))
        super().flatten_mapping(node)  # type: ignore[misc]
        # a mapping that others merge in comes here again: each key stays there once
        node.value = list({_name(key): (key, value) for key, value in node.value}.values())
        self.n_keys += len(node.value)
        if self.n_keys > LARGEST:
            raise yaml.YAMLError(f"it has more than {LARGEST:,} keys, with those that << merges in")


def _name(key: yaml.Node) -> tuple[str, str | int]:
    return key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key)


class _SlowLoader(_KeysOnce, yaml.SafeLoader):
    """Names the right line where a bracket is never closed."""


class FastLoader(_KeysOnce, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """In C where libyaml is there: eight times as fast."""


def load_yaml(text: str) -> Any:
    """The values in a YAML text of bounded depth and size; YAMLError where it is none."""
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"it has more than {LONGEST:,} characters")
    _check_depth(text)
    try:
        values = _parsed(text)
    except (ValueError, OverflowError, TypeError) as error:  # of a value, such as a number of 5,000 digits
        raise yaml.YAMLError(str(error)) from None
    except RecursionError:
        raise yaml.YAMLError("it has too many mappings merged one into the next") from None
    if _n_values(values, {}) > LARGEST:
        raise yaml.YAMLError(f"it has more than {LARGEST:,} values, each alias counted as often as it stands")
    return values


def settings_text(path: Path) -> str:
    """The text of a file of settings.

    Raises:
        SettingError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None


_ONE_VALUE = ("recipe.class_weights",)
"""Keys whose mapping is a value, not settings: its own keys are names of classes."""


def flattened(values: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted key: {"net": {"width": 6}} gives ("net.width", 6).

    A list is one value, and so are an empty mapping and the weights of classes.
    """
    for key, value in values.items():
        if isinstance(value, Mapping) and value and f"{above}{key}" not in _ONE_VALUE:
            yield from flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def value_at(values: Any, key: str) -> Any:
    """What stands at a dotted key of nested settings; a number in it is a place in a list. None where nothing does."""
    for part in key.split("."):
        if isinstance(values, list) and part.isdecimal():
            values = values[int(part)] if int(part) < len(values) else None
        else:
            values = values.get(part) if isinstance(values, Mapping) else None
    return values


def is_within(key: str, other: str) -> bool:
    """Whether a dotted key is the other, or lies below it."""
    return f"{key}.".startswith(f"{other}.")


def _check_depth(text: str) -> None:
    depth = 0
    events: Iterator[Any] = yaml.parse(text, Loader=FastLoader)
    with suppress(StopIteration, yaml.YAMLError):  # a text that is no YAML is refused when it is parsed
        while depth <= DEEPEST:
            event = next(events)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    if depth > DEEPEST:
        raise yaml.MarkedYAMLError(problem=f"more than {DEEPEST} levels", problem_mark=event.start_mark)


def _n_values(value: Any, counts: dict[int, float]) -> float:
    """How many values there are, with an alias counted as often as it stands; without end where it holds itself."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise yaml.YAMLError("a number of thousands of digits; expected a shorter one")
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if id(value) not in counts:
        counts[id(value)] = math.inf
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_n_values(part, counts) for part in parts)
    return counts[id(value)]


def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, Loader=FastLoader)  # noqa: S506 (both are safe loaders)
    except yaml.reader.ReaderError as error:  # a character that YAML does not have, said in two lines
        raise yaml.YAMLError(first_line(error)) from None
    except yaml.YAMLError:
        return yaml.load(text, Loader=_SlowLoader)  # noqa: S506
