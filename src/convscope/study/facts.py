"""What a table needs to know of one run, read from the files of its folder; no PyTorch, and no file that is large."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from convscope.base.bounded import flattened, load_yaml
from convscope.runs import ANATOMY, ENVIRONMENT, HISTORY, HISTORY_FIGURES, METRICS, MODEL, OUTCOME, SPEC

FIGURE = ("name", "value", "low", "high", "left_out")
"""What is read of a test figure; `left_out`: how many classes a mean over classes leaves out."""

EPOCH_FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate", "seconds", "images_per_s")
"""Columns of a history, beside the epoch."""

SEED = "recipe.seed"
"""The setting that tells runs of otherwise equal settings apart."""

OF_FOLDS = ("data.split.fold", "data.seed")
"""Settings that tell runs of cross-validation apart, which are otherwise equal; they follow from the seed, see StudySpec."""

OVERFIT = "overfit_percent"

ENDED = ("finished", "trained")
"""States of a run that came to the end of its training; see FACTS."""

FACTS = pa.schema([
    ("settings", pa.string()),  # all but the seed, as JSON by dotted key
    ("seed", pa.int64()),
    ("state", pa.string()),  # finished, trained (not evaluated), unfinished, damaged, or what outcome.json says
    ("message", pa.string()),
    ("parameters", pa.int64()),
    ("data", pa.string()),
    ("digest", pa.string()),  # of the data
    ("test", pa.list_(pa.struct({key: pa.string() if key == "name" else pa.float64() for key in FIGURE}))),
])  # fmt: skip

HISTORY_SCHEMA = pa.schema([
    ("epoch", pa.int64()),
    ("stage", pa.string()),  # none where the recipe has no stages
    *((name, pa.float64()) for name in EPOCH_FIGURES),
])  # fmt: skip

_READ = (SPEC, ENVIRONMENT, HISTORY, METRICS, OUTCOME, MODEL, ANATOMY)
_NO_SETTINGS = ("format", "about")
_MOST_BYTES = {SPEC: 2**20}
_MOST_BYTES_OF_OTHERS = 2**28


class _DamagedError(Exception):
    """A file of the folder that cannot be read; the message says which and why."""


def find_runs(folder: Path) -> list[str]:
    """Paths of all run folders below a folder, relative to it, in the order of their names.

    s2 comes before s10. A run is a folder with a spec or an outcome; what lies inside one is its own. Hidden folders are left
    out, and of links only those to a run itself are followed.
    """
    paths = []
    for place, folders, _ in os.walk(folder):
        below = os.path.relpath(place, folder)
        shown = [name for name in folders if not name.startswith(".")]
        runs = {name for name in shown if any(os.path.exists(f"{place}/{name}/{file}") for file in (SPEC, OUTCOME))}
        paths += [os.path.normpath(f"{below}/{name}") for name in runs]
        folders[:] = [name for name in shown if name not in runs]
    return sorted(paths, key=lambda path: ([int(n) if n.isdecimal() else n for n in re.split(r"(\d+)", path)], path))


def stamp(folder: str) -> str:
    """Size and time of each file that a run's facts are read from: while it is the same, so are they."""
    stamps = []
    for file in _READ:
        try:
            status = os.stat(f"{folder}/{file}")
            stamps.append(f"{status.st_size}:{status.st_mtime_ns}")
        except OSError:
            stamps.append("-")
    return " ".join(stamps)


def read_facts(folder: Path) -> tuple[dict[str, Any], pa.Table]:
    """The facts of a run, a value for each field of FACTS, and its history.

    Where a file is damaged the state says so, the message names it, and what could be read is there.
    """
    facts: dict[str, Any] = dict.fromkeys(FACTS.names)
    history, outcome, damaged = HISTORY_SCHEMA.empty_table(), {}, ""
    try:
        settings = _settings(folder / SPEC)
        facts["seed"] = _whole(settings.pop(SEED, None))
        settings = without_fold(settings)
        facts["settings"] = json.dumps(settings, ensure_ascii=False)
        environment = _mapping(folder / ENVIRONMENT)
        counted = environment if "parameters" in environment else _mapping(folder / ANATOMY)
        facts["parameters"] = _whole(counted.get("parameters"))
        data = _as(dict, environment.get("data")) or {}
        facts["data"], facts["digest"] = _as(str, data.get("name")), _as(str, data.get("digest"))
        history = _history(folder / HISTORY)
        facts["test"] = list(_figures(_mapping(folder / METRICS)))
        outcome = _mapping(folder / OUTCOME)
    except _DamagedError as error:
        damaged = str(error)
    ended = "finished" if (folder / METRICS).exists() else "trained"
    state = _as(str, outcome.get("state")) or (ended if (folder / MODEL).exists() else "unfinished")
    facts["state"] = "damaged" if damaged else state
    facts["message"] = damaged or _as(str, outcome.get("message"))
    return facts, history


def _as(kind: Any, value: Any) -> Any:
    """A value of that kind, None for any other: what others wrote into the files must not stop a table."""
    return value if isinstance(value, kind) else None


def _whole(value: Any) -> int | None:
    """As _as, of a number that an Arrow column holds."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _mapping(path: Path, parse: Callable[[str], Any] = json.loads, what: str = "object is") -> dict[str, Any]:
    """What is in a file; nothing where there is none."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise _DamagedError(f"{path.name} is no file")
        if status.st_size > _MOST_BYTES.get(path.name, _MOST_BYTES_OF_OTHERS):
            raise _DamagedError(f"{path.name} is damaged: it has {status.st_size:,} bytes")
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        raise _DamagedError(f"{path.name} is damaged") from None
    if not isinstance(content, dict):
        raise _DamagedError(f"{path.name} is damaged: no {what} in it")
    return content


def _settings(path: Path) -> dict[str, Any]:
    """The settings of a spec by dotted key: {"net.width": 64}."""
    spec = _mapping(path, load_yaml, "settings are")
    own = flattened({key: value for key, value in spec.items() if key not in _NO_SETTINGS})
    plain = bool | int | float | str | None  # all else, such as a list, is written as JSON, so that it can be compared
    return {
        key: value if isinstance(value, plain) else json.dumps(value, default=str) for key, value in own if value != {}
    }


def without_fold(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that tell one fold from another."""
    if settings.get(OF_FOLDS[0]) is None:
        return settings
    return {key: value for key, value in settings.items() if key not in OF_FOLDS}


def _figures(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The figures that the test images give, with their intervals; overfit % is one of them."""
    for key, figure in metrics.items():
        if key != "train_accuracy" and isinstance(figure, dict) and {"value", "low", "high"} <= figure.keys():
            row: dict[str, Any] = {"name": key if key == OVERFIT else f"test_{key}"}
            for part in FIGURE[1:]:
                value: Any = figure.get(part)
                row[part] = float(value) if isinstance(value, float) or _whole(value) is not None else None
            yield row


def _history(path: Path) -> pa.Table:
    """A history's own columns, missing ones empty."""
    try:
        if path.exists() and not path.is_file():
            raise _DamagedError(f"{path.name} is no file")
        with pq.ParquetFile(path) as file:
            table = file.read()
        if missing := [name for name in HISTORY_FIGURES if name not in table.column_names]:
            raise _DamagedError(f"{path.name} is no history: it lacks the column {missing[0]}")
        columns = [
            table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
            for field in HISTORY_SCHEMA
        ]
    except FileNotFoundError:
        return HISTORY_SCHEMA.empty_table()
    except (pa.ArrowException, OSError):
        raise _DamagedError(f"{path.name} is damaged") from None
    return pa.table(columns, schema=HISTORY_SCHEMA)
