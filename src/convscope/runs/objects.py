"""JSON objects in files of a run folder, which may be missing or damaged."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError, ValueError, RecursionError: it is missing, or damaged.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("no object is in it")
    return found


def object_in(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where it is missing or damaged."""
    with suppress(OSError, ValueError, RecursionError):
        return read_object(path)
    return {}
