"""Tables of encoded images: parquet files in the layout of the Hugging Face Hub, and sets of the Hub."""

from __future__ import annotations

import json
import logging
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from convscope.data.answers import answers_in, as_texts, usual_columns
from convscope.data.images import Item
from convscope.data.source import Source, encode_labels, file_digest_of, rows_of_parts, split_of
from convscope.data.spec import LABEL_COLUMNS, Labels
from convscope.errors import DataError, UnknownNameError, first_line, shortened

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Table:
    """One table, read in pieces.

    Args:
        name: what to call it in a message.
        schema: the Arrow schema.
        n_rows: number of rows.
        pieces: reads one column, as Arrow arrays that follow each other.
        files: the files that its bytes lie in.
    """

    name: str
    schema: Any
    n_rows: int
    pieces: Callable[[str], Iterator[Any]]
    files: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Tables(Source):
    """Tables that follow each other, all with the same columns of images and labels; `unused` ones are no splits."""

    image_column: str
    read_columns: tuple[str, ...]
    tables: tuple[Table, ...]
    unused: tuple[Table, ...] = ()

    def understood(self) -> tuple[str, ...]:
        return tuple(f"passed over: {table.name}, {table.n_rows:,} rows: it is no split" for table in self.unused)

    def digest(self) -> str:
        lines = [f"{split} {len(rows)}" for split, rows in self.parts.items()]
        lines += [_content_digest(table, self.image_column, *self.read_columns) for table in self.tables]
        return blake2b("\n".join(lines).encode(), digest_size=32).hexdigest()

    def items(self, rows: Int64[np.ndarray, " n"]) -> Iterator[Item]:
        start = 0
        for table in self.tables:
            for piece in table.pieces(self.image_column):
                stop = start + len(piece)
                first, last = np.searchsorted(rows, (start, stop))
                yield from _encoded(piece.take(rows[first:last] - start)) if last > first else ()
                start = stop

    def name(self, row: int) -> str:
        place = bisect_right(self._ends, row)
        return f"{self.tables[place].name} row {row - self._ends[place] + self.tables[place].n_rows}"

    @cached_property
    def _ends(self) -> list[int]:
        """The number of rows up to the end of each table."""
        return list(accumulate(table.n_rows for table in self.tables))

    def short_name(self, row: int) -> str:
        return self.name(row).rsplit("/", 1)[-1]


def open_parquet(path: Path, files: Sequence[Path], words: str | None = None, labels: Labels | None = None) -> Tables:
    """The images of a parquet file, or of all the parquet files in a folder.

    Their splits are read off their names, as in `train-00000-of-00001.parquet` or `default/train/0.parquet`.

    Raises:
        DataError: a file is damaged, or no column holds images or labels.
    """
    by_split: dict[str, list[Table]] = {}
    for file in files:
        own = file.relative_to(path.parent if path.is_file() else path)
        name = [word for part in (own.stem, *reversed(own.parent.parts)) for word in re.split(r"[-_.]", part)]
        by_split.setdefault(split_of(name) or "all", []).append(_parquet_table(file))
    if "all" in by_split and len(by_split) > 1:
        raise DataError(
            f"{by_split['all'][0].name}: its name tells no split, as others' do; begin it with train-, val- or test-"
        )
    return _tables(words or f"parquet {path}", by_split, labels)


def open_hub(name: str, labels: Labels | None = None) -> Tables:
    """A set of the Hugging Face Hub, downloaded and kept by `datasets`.

    Raises:
        DataError: the set is not there or cannot be reached, or no column holds images or labels.
    """
    import datasets

    try:
        with _silent("huggingface_hub"):  # it logs every attempt to reach the network
            splits = datasets.load_dataset(name)
    except Exception as error:  # the network, the Hub, or a script of the set: whatever it is, it ends here
        raise DataError(
            f"hub:{name}: cannot be loaded ({first_line(error)}); check the name and the network, "
            "or set CONVSCOPE_DATA to a folder that holds a copy"
        ) from error
    by_split: dict[str, list[Table]] = {}
    for split in splits:
        table = _hub_table(f"{name} {split}", splits[split])
        by_split.setdefault(split_of(re.split(r"[-_.]", split)) or "all", []).append(table)
    unused = by_split.pop("all", []) if len(by_split) > 1 else []  # for another use, such as 'unsupervised'
    return _tables(f"Hub {name}", by_split, labels, unused)


class ImageColumn:
    """The column of images of a parquet file.

    Attributes:
        n_rows: how many.
        words: what tells the file from another: its path, size and rows.
    """

    def __init__(self, table: Table, column: str) -> None:
        self.table, self.column, self.n_rows = table, column, table.n_rows
        self.words = f"{table.name} {table.files[0].stat().st_size} {table.n_rows}"

    def images(self) -> Iterator[tuple[str, Item]]:
        """Each with its name, read as they are drawn."""
        items = (item for piece in self.table.pieces(self.column) for item in _encoded(piece))
        return ((f"{self.table.name}:{row}", item) for row, item in enumerate(items))


def open_images(file: Path) -> ImageColumn:
    """The images of a parquet file, which need no labels.

    Raises:
        DataError: the file is damaged, or no column holds images.
    """
    if not file.exists():
        raise DataError(f"{file}: there is no such file; give image files, parquet files, or folders")
    table = _parquet_table(file)
    return ImageColumn(table, _image_column(table, _noted(table)))


def _tables(words: str, by_split: dict[str, list[Table]], roles: Labels | None, unused: Sequence[Table] = ()) -> Tables:
    tables = tuple(table for members in by_split.values() for table in members)
    where, noted = tables[0].name, _noted(tables[0])
    image = _image_column(tables[0], noted)
    roles = roles or Labels()
    names = roles.label or (_label_column(tables[0], noted),)
    others = [name for name in (roles.split, roles.group) if name]
    for name in (*names, *others):
        if name not in tables[0].schema.names:
            raise UnknownNameError("column", name, tables[0].schema.names, f"in {where}")
    for table in tables:
        if lacking := [name for name in (image, *names, *others) if name not in table.schema.names]:
            raise DataError(
                f"{table.name}: lacks the column {lacking[0]!r}, which {where} has; give each split the same columns"
            )
    columns = {name: _values(tables, name) for name in (*names, *others)}
    targets, classes = {}, {}
    for name in names:
        values = _labels(tables, columns[name], name)
        targets[name], classes[name] = encode_labels(values, _class_names(tables, name), where)
    first = {"class": names[0]} | ({name: name for name in names} if len(names) > 1 else {})
    sizes = {split: sum(table.n_rows for table in members) for split, members in by_split.items()}
    parts, groups, faults = rows_of_parts(sizes), None, {}
    if others:
        answers, _ = answers_in(columns, roles.model_copy(update={"label": names}), words)
        parts = parts if answers.splits is None else answers.parts()
        groups, faults = answers.group_numbers(), answers.faults()
    return Tables(
        words,
        parts,
        {target: targets[name] for target, name in first.items()},
        {target: classes[name] for target, name in first.items()},
        image,
        names,
        tables,
        tuple(unused),
        groups=groups,
        faults=faults,
    )


def _parquet_table(file: Path) -> Table:
    def pieces(column: str) -> Iterator[Any]:
        with _opened_parquet(file) as opened:
            for batch in opened.iter_batches(batch_size=_BATCH, columns=[column]):
                yield batch.column(0)

    with _opened_parquet(file) as opened:
        return Table(str(file), opened.schema_arrow, opened.metadata.num_rows, pieces, (file,))


@contextmanager
def _opened_parquet(file: Path) -> Iterator[Any]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(file) as opened:
            yield opened
    except (ArrowException, OSError) as error:
        raise DataError(f"{file}: is no parquet file, or damaged ({first_line(error)}); fetch it again") from None


def _hub_table(name: str, dataset: Any) -> Table:
    def pieces(column: str) -> Iterator[Any]:
        for batch in dataset.select_columns([column]).with_format("arrow").iter(batch_size=_BATCH):
            yield batch.column(0).combine_chunks()

    files = tuple(Path(each["filename"]) for each in dataset.cache_files)
    return Table(name, dataset.features.arrow_schema, len(dataset), pieces, files)


def _noted(table: Table) -> dict[str, dict[str, Any]]:
    """What the Hub notes of each column; nothing where there are no such notes, or damaged ones."""
    try:
        noted = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in noted.items() if isinstance(feature, dict)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _image_column(table: Table, noted: dict[str, dict[str, Any]]) -> str:
    images = [name for name, feature in noted.items() if feature.get("_type") == "Image"]
    images += [column.name for column in table.schema if _holds_bytes(column.type)]
    return _first(images, table)


def _label_column(table: Table, noted: dict[str, dict[str, Any]]) -> str:
    labels = [name for name, feature in noted.items() if feature.get("_type") == "ClassLabel"]
    return _first(labels + usual_columns(table.schema.names, LABEL_COLUMNS), table)


def _first(names: list[str], table: Table) -> str:
    if not names:
        raise DataError(
            f"{table.name}: has the columns {', '.join(table.schema.names)}; expected one of images (bytes "
            f"or a struct with 'bytes') and one of labels ({', '.join(LABEL_COLUMNS)}); rename them, or name the column of "
            "labels with data.labels.label"
        )
    return names[0]


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def _values(tables: Sequence[Table], column: str) -> list[Any]:
    return [value for table in tables for piece in table.pieces(column) for value in piece.to_pylist()]


def _class_names(tables: Sequence[Table], column: str) -> list[str] | None:
    """The names of a column's classes, as the Hub notes them.

    Raises:
        DataError: two tables note others, so that a number stands for two classes.
    """
    noted = [(_noted(table).get(column, {}).get("names"), table.name) for table in tables]
    by_table = [(list(map(str, names)), where) for names, where in noted if names and isinstance(names, list)]
    for names, where in by_table:
        if names != by_table[0][0]:
            raise DataError(
                f"{where}: names the classes of {column!r} {shortened(names)}, and {by_table[0][1]} "
                f"{shortened(by_table[0][0])}; write both with the same names in the same order"
            )
    return by_table[0][0] if by_table else None


def _labels(tables: Sequence[Table], values: list[Any], column: str) -> np.ndarray:
    """Integers, of which −1 is 'no label', or words, of which '' is."""
    from pyarrow import types

    if all(types.is_integer(table.schema.field(column).type) for table in tables):
        return np.array([-1 if value is None else value for value in values], np.int64)
    return np.array(as_texts(values, f"{tables[0].name}, column {column}"), str)


def _content_digest(table: Table, *columns: str) -> str:
    if table.files:
        return " ".join(map(file_digest_of, table.files))
    content = blake2b(digest_size=16)  # a set that `datasets` holds in memory
    for column in columns:
        for piece in table.pieces(column):
            content.update(repr(piece.to_pylist()).encode())
    return content.hexdigest()


def _encoded(piece: Any) -> Iterator[Item]:
    for value in piece.to_pylist():
        if isinstance(value, dict):
            value = value["bytes"] if value["bytes"] is not None else Path(value["path"] or "")
        yield value if value is not None else b""


@contextmanager
def _silent(logger_name: str) -> Iterator[None]:
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
