"""The index of a folder of runs: a row a run in the cache, of which only those are read again whose files have changed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from convscope.base.console import progress_bar
from convscope.compute import Entry, cache_folder, entry_path, read_entry, write_entry
from convscope.errors import FailedError, RunFolderError
from convscope.runs import OUTCOME, SPEC
from convscope.study.facts import FACTS, FIGURE, HISTORY_SCHEMA, find_runs, read_facts, stamp

_VERSION = 3  # raise it whenever the same files give other facts
_EPOCHS = pa.list_(pa.struct(list(HISTORY_SCHEMA)))
_SCHEMA = pa.schema([("run", pa.string()), ("stamp", pa.string()), *FACTS, ("history", _EPOCHS)])
_PORTION = 1_000  # runs; their files' many small tables take more memory than what is in them


@dataclass(frozen=True)
class Indexed:
    """The runs below a folder.

    Attributes:
        facts: name → a value for each run: `run` is its path below the folder, the others are those of FACTS.
        settings: of each run, by dotted key; without the seed.
        test: name of a figure → (N, 4) value, low, high, and the number of classes that a mean over classes leaves out;
            NaN where there is none.
        epochs: the histories one after another, an array a column.
        ends: where each run's epochs begin and end: `ends[i]` to `ends[i + 1]`.
    """

    facts: dict[str, list[Any]]
    settings: list[dict[str, Any]]
    test: dict[str, np.ndarray]
    epochs: dict[str, np.ndarray]
    ends: np.ndarray


def read_runs(folder: Path) -> Indexed:
    """All runs below a folder, from its index as far as that is up to date; the index is brought up to date.

    Raises:
        RunFolderError: there is no such folder, it is a run itself, or no run is below it.
    """
    if not os.path.isdir(folder):
        raise RunFolderError(f"{folder} is no folder; expected one with runs below it")
    if (folder / SPEC).exists() or (folder / OUTCOME).exists():
        raise RunFolderError(f"{folder} is a run itself; expected a folder with runs below it: try {folder.parent}")
    names = find_runs(folder)
    if not names:
        raise RunFolderError(
            f"{folder} has no runs below it; expected folders with a {SPEC}: convscope train makes one"
        )
    key = {"version": _VERSION, "schema": _SCHEMA.to_string(), "folder": str(folder.resolve())}
    path = entry_path(cache_folder(), "tables", folder.resolve().name, key)
    entry = read_entry(path, key)
    index = pq.read_table(pa.BufferReader(entry.files[".parquet"])) if entry else _SCHEMA.empty_table()
    current = [(name, stamp(f"{folder}/{name}")) for name in names]
    indexed = list(zip(index["run"].to_pylist(), index["stamp"].to_pylist(), strict=True))
    if current != indexed:
        stale = sorted(set(current) - set(indexed))
        places = {run: place for place, run in enumerate([*indexed, *stale])}
        table = pa.concat_tables([index, *_read(folder, stale)])
        index = table.take(pa.array([places[run] for run in current], pa.int64()))
        buffer = io.BytesIO()
        pq.write_table(index, buffer, compression="zstd")
        with suppress(FailedError):
            write_entry(path, key, Entry(files={".parquet": buffer.getvalue()}))
    return _unpacked(index)


def _read(folder: Path, stale: Sequence[tuple[str, str]]) -> Iterator[pa.Table]:
    """Rows of the runs whose files have changed, by name and stamp, read from them."""
    with progress_bar("reading runs", len(stale), "runs") as advance:
        for first in range(0, len(stale), _PORTION):
            portion = stale[first : first + _PORTION]
            facts, histories = zip(*(read_facts(folder / name) for name, _ in portion), strict=True)
            rows = [{"run": name, "stamp": now, **of_run} for (name, now), of_run in zip(portion, facts, strict=True)]
            batches = pa.concat_tables(histories).to_batches()  # none where no run has an epoch
            epochs = pa.concat_arrays([pa.array([], _EPOCHS.value_type), *(b.to_struct_array() for b in batches)])
            ends = pa.array(np.cumsum([0, *map(len, histories)]), pa.int32())
            table, lists = pa.concat_tables(_rows(rows)), pa.ListArray.from_arrays(ends, epochs)
            yield table.append_column(_SCHEMA.field("history"), lists).cast(_SCHEMA)
            advance(len(portion))


def _rows(rows: list[dict[str, Any]]) -> list[pa.Table]:
    """Facts of runs as they are in the index; one of a run that does not fit there says so, and no more."""
    schema = pa.schema(list(_SCHEMA)[:-1])
    try:
        return [pa.Table.from_pylist(rows, schema=schema)]
    except (pa.ArrowException, ValueError, OverflowError, TypeError):  # ValueError: half a character pair
        if len(rows) > 1:
            return [table for row in rows for table in _rows([row])]
        name = str(rows[0]["run"]).encode("utf-8", "backslashreplace").decode()
        damaged = {"state": "damaged", "message": "what is in its files fits no table"}
        return [pa.Table.from_pylist([{"run": name, "stamp": rows[0]["stamp"], **damaged}], schema=schema)]


def _unpacked(table: pa.Table) -> Indexed:
    columns = ("run", *(name for name in FACTS.names if name not in ("settings", "test")))
    parsed = {text: json.loads(text or "{}") for text in table["settings"].unique().to_pylist()}
    ends, epochs = _flat(table["history"])
    return Indexed(
        {name: table[name].to_pylist() for name in columns},
        [parsed[text] for text in table["settings"].to_pylist()],
        _test_figures(table["test"]),
        {field.name: epochs.field(field.name).to_numpy(zero_copy_only=False) for field in HISTORY_SCHEMA},
        ends,
    )


def _flat(lists: pa.ChunkedArray) -> tuple[np.ndarray, pa.StructArray]:
    """Where each list begins and ends, and all that is in them."""
    lists = pa.concat_arrays(lists.chunks)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return np.concatenate([[0], np.cumsum(lengths)]), lists.flatten()


def _test_figures(lists: pa.ChunkedArray) -> dict[str, np.ndarray]:
    ends, flat = _flat(lists)
    rows = pa.RecordBatch.from_struct_array(flat).to_pandas()
    by_name = rows.set_index(np.repeat(np.arange(len(lists)), np.diff(ends))).groupby("name", sort=False)
    return {name: rows.reindex(range(len(lists)))[list(FIGURE[1:])].to_numpy() for name, rows in by_name}
