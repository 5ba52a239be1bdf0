"""Tables of encoded images: parquet files in the layout of the Hugging Face Hub, and sets of the Hub."""

from __future__ import annotations

import json
import logging
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from convscope.data.answers import (
    answers_in,
    as_texts,
    check_columns,
    columns_of_targets,
    usual_columns,
    with_answers,
)
from convscope.data.images import Item
from convscope.data.source import Rows, Source, encode_labels, file_digest_of, rows_of_parts, split_of
from convscope.data.spec import LABEL_COLUMNS, Labels
from convscope.errors import DataError, first_line, shortened

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

    @cached_property
    def features(self) -> dict[str, dict[str, Any]]:
        """What the Hub notes of each column; nothing where there are no such notes, or damaged ones."""
        try:
            features = json.loads(self.schema.metadata[b"huggingface"])["info"]["features"]
            return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return {}

    @cached_property
    def image_column(self) -> str:
        """The column of images: one that the Hub calls so, or the first of bytes.

        Raises:
            DataError: there is none.
        """
        return self.first_of("Image", [column.name for column in self.schema if _holds_bytes(column.type)])

    def first_of(self, kind: str, usual: Sequence[str]) -> str:
        """The first column that the Hub notes as of a kind, or else the first of the usual ones."""
        noted = [name for name, feature in self.features.items() if feature.get("_type") == kind]
        if not (names := [*noted, *usual]):
            raise DataError(
                f"{self.name}: has the columns {', '.join(self.schema.names)}; expected one of images (bytes "
                f"or a struct with 'bytes') and one of labels ({', '.join(LABEL_COLUMNS)}); rename them, or name the column "
                "of labels with data.labels.label"
            )
        return names[0]

    def images(self) -> Iterator[Item]:
        """All images, read as they are drawn."""
        return (item for piece in self.pieces(self.image_column) for item in _encoded(piece))


@dataclass(frozen=True, eq=False)
class Tables(Source):
    """Tables that follow each other, all with the same columns of images and labels."""

    label_columns: tuple[str, ...]
    tables: tuple[Table, ...]

    def digest(self) -> str:
        lines = [f"{split} {len(rows)}" for split, rows in self.parts.items()]
        columns = (self.tables[0].image_column, *self.label_columns)
        lines += [_content_digest(table, columns) for table in self.tables]
        return blake2b("\n".join(lines).encode(), digest_size=32).hexdigest()

    def items(self, rows: Rows) -> Iterator[Item]:
        start = 0
        for table in self.tables:
            for piece in table.pieces(self.tables[0].image_column):
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


def open_parquet(path: Path, files: Sequence[Path], labels: Labels | None) -> Source:
    """The images of a parquet file, or of all the parquet files in a folder.

    Their splits are read off their names, as in `train-00000-of-00001.parquet` or `default/train/0.parquet`.

    Raises:
        DataError: a file is damaged, or no column holds images or labels.
    """
    by_split: dict[str, list[Table]] = {}
    for file in files:
        own = file.relative_to(path.parent if path.is_file() else path)
        name = [word for part in (own.stem, *reversed(own.parent.parts)) for word in re.split(r"[-_.]", part)]
        by_split.setdefault(split_of(name) or "all", []).append(read_parquet(file))
    if "all" in by_split and len(by_split) > 1:
        raise DataError(
            f"{by_split['all'][0].name}: its name tells no split, as others' do; begin it with train-, val- or test-"
        )
    return _tables(f"parquet {path}", by_split, labels)


def open_hub(name: str, labels: Labels | None) -> Source:
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


def _tables(
    words: str, by_split: Mapping[str, Sequence[Table]], labels: Labels | None, unused: Sequence[Table] = ()
) -> Source:
    tables = tuple(table for members in by_split.values() for table in members)
    first = tables[0]
    labels, image = labels or Labels(), first.image_column
    names = labels.label or (first.first_of("ClassLabel", usual_columns(first.schema.names, LABEL_COLUMNS)),)
    others = [name for name in (labels.split, labels.group) if name]
    check_columns((*names, *others), first.schema.names, first.name)
    for table in tables:
        if lacking := [name for name in (image, *names, *others) if name not in table.schema.names]:
            raise DataError(
                f"{table.name}: lacks the column {lacking[0]!r}, which {first.name} has; give each split the same columns"
            )
    values = {
        name: [value for table in tables for piece in table.pieces(name) for value in piece.to_pylist()]
        for name in (*names, *others)
    }
    targets, classes = {}, {}
    for target, name in columns_of_targets(names):
        numbers_or_words = _labels(tables, values[name], name)
        targets[target], classes[target] = encode_labels(numbers_or_words, _class_names(tables, name), first.name)
    source = Tables(
        words,
        rows_of_parts({split: sum(table.n_rows for table in members) for split, members in by_split.items()}),
        targets,
        classes,
        names,
        tables,
        layout=tuple(f"passed over: {table.name}, {table.n_rows:,} rows: it is no split" for table in unused),
    )
    if not others:
        return source
    answers, _ = answers_in(values, labels.model_copy(update={"label": names}), words)
    return with_answers(source, answers, words)


def read_parquet(file: Path) -> Table:
    """The table in a parquet file.

    Raises:
        DataError: the file is damaged.
    """

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


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def _class_names(tables: Sequence[Table], column: str) -> list[str] | None:
    """The names of a column's classes, as the Hub notes them.

    Raises:
        DataError: two tables note others, so that a number stands for two classes.
    """
    noted = [(table.features.get(column, {}).get("names"), table.name) for table in tables]
    by_table = [(list(map(str, names)), where) for names, where in noted if names and isinstance(names, list)]
    for names, where in by_table:
        if names != by_table[0][0]:
            raise DataError(
                f"{where}: names the classes of {column!r} {shortened(names)}, and {by_table[0][1]} "
                f"{shortened(by_table[0][0])}; write both with the same names in the same order"
            )
    return by_table[0][0] if by_table else None


def _labels(tables: Sequence[Table], values: list[Any], column: str) -> Sequence[int | str]:
    """Integers, of which −1 is 'no label', or words, of which '' is."""
    from pyarrow import types

    if all(types.is_integer(table.schema.field(column).type) for table in tables):
        return [-1 if value is None else value for value in values]
    return as_texts(values, f"{tables[0].name}, column {column}")


def _content_digest(table: Table, columns: Sequence[str]) -> str:
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
