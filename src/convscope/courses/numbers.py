"""Numbers as users write them: text such as "1 2; 3 4", and .csv, .txt, .npy, .yaml files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike

from convscope.base.bounded import load_yaml
from convscope.errors import DataError, SettingError

HOW = "rows end with ; (in a file with the line), channels with | (an empty line), filters with || (a line of ---)"


def read_numbers(what: str, given: Any) -> np.ndarray:
    """Numbers from a text or a file: (h, w), (channels, h, w) or (filters, channels, h, w), as far as there are parts; or from
    nested lists, an array or a single number.

    Raises:
        SettingError: a text that holds no numbers in even rows; says which part.
        DataError: a file that cannot be read.

    Example:
        >>> read_numbers("filter", "1 2; 3 4 | 5 6; 7 8").shape
        (2, 2, 2)
    """
    if not isinstance(given, str):
        return even(what, [[given]] if isinstance(given, int | float) else given)
    path = Path(given)
    match path.suffix.lower():
        case ".npy":
            return _array(what, path)
        case ".csv" | ".txt":
            return parse_numbers(f"{what} {path}", _text(what, path))
        case ".yaml" | ".yml" | ".json":
            found, what = _yaml(what, path), f"{what} {path}"
            return parse_numbers(what, found) if isinstance(found, str) else read_numbers(what, found)
    return parse_numbers(what, given)


def read_settings(path: Path) -> dict[str, Any]:
    """A worked example from a YAML file: its keys as they stand there.

    Raises:
        DataError: it cannot be read, or is no table of keys.
    """
    settings = _yaml("example", path)
    if not isinstance(settings, dict):
        raise DataError(f"example {path}: expected keys such as image, filter and padding, a line each")
    return settings


def parse_numbers(what: str, text: str) -> np.ndarray:
    """Numbers from a text; see `read_numbers`."""
    lines = text.replace("\r", "").strip()
    filters = re.split(r"\|\||\n\s*-{3,}\s*\n", lines)
    parts = [[_rows(what, channel) for channel in re.split(r"\||\n\s*\n", one)] for one in filters]
    numbers = even(what, parts)
    return numbers if len(filters) > 1 else numbers[0] if numbers.shape[1] > 1 else numbers[0, 0]


def _rows(what: str, text: str) -> list[list[float]]:
    rows = [row for row in re.split(r"[;\n]", text.strip()) if row.strip()]
    if not rows:
        raise SettingError(f"{what}: a part of it is empty; {HOW}")
    return [[_number(what, word) for word in re.split(r"[\s,]+", row.strip(" \t,"))] for row in rows]


def _number(what: str, word: str) -> float:
    try:
        return float(word.replace("−", "-"))
    except ValueError:
        raise SettingError(f"{what}: {word!r} is no number; write for example '1 0 -1; 2 0 -2; 1 0 -1'") from None


def even(what: str, values: ArrayLike) -> np.ndarray:
    """A new array, of nested lists, an array or a tensor.

    Raises:
        SettingError: it is none; says what its rows need.
    """
    try:
        on_cpu = values.detach().cpu() if hasattr(values, "detach") else values
        return np.asarray(on_cpu, dtype=np.float64).copy()
    except (TypeError, ValueError, OverflowError):
        raise SettingError(
            f"{what}: rows or channels of different length, or a value that is no number; give each as many numbers"
        ) from None


def _array(what: str, path: Path) -> np.ndarray:
    try:
        with path.open("rb") as opened:  # not by numpy.load, which takes other files too
            array = np.lib.format.read_array(opened, allow_pickle=False)
    except (OSError, ValueError, OverflowError, MemoryError) as error:  # of a header that states any size
        raise DataError(
            f"{what} {path}: cannot be read as an array ({_reason(error)}); write it with numpy.save"
        ) from None
    if array.dtype.kind not in "iufb":
        raise DataError(f"{what} {path}: an array of {array.dtype}; expected numbers")
    return array.astype(np.float64)


def _text(what: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{what} {path}: cannot be read ({_reason(error)}); give a text file of numbers") from None


def _yaml(what: str, path: Path) -> Any:
    try:
        return load_yaml(_text(what, path))
    except yaml.YAMLError as error:
        raise DataError(f"{what} {path}: no valid YAML ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())
