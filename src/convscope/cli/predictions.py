"""Rows of predictions, written as they come; and what is said of them at the end."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from convscope.base.console import printable_json, progress_bar
from convscope.base.words import counted
from convscope.cli.show import json_rows, print_aside
from convscope.errors import DataError, SettingError
from convscope.runs import PROBLEM, Run, check_writable, class_columns, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from convscope.compute import Executor

_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
_MOST_NAMED = 5


def write_rows(
    run: Run, given: list[str], out: Path | None, form: str, explain: str | None, page: Path, **how: Any
) -> list[tuple[str, str]]:
    """Writes the answers into a file, or to stdout; says what they come to, and makes a page of their maps.

    Args:
        run: that answers.
        given: files, folders, and - for names on stdin.
        out, form: the file, None for stdout, and its format, see `form_of`.
        explain, page: a lens, of whose maps a page is written, and its file.
        how: see `predict_batches`.
    Returns:
        The names and problems of unreadable images.
    Raises:
        DataError: none of the files could be read.
    """
    from convscope.data import image_files, without_warnings
    from convscope.report import check_predictions_page, write_predictions_page
    from convscope.runs import predict_batches

    if explain is not None:
        check_predictions_page(explain, page)
        check_writable(page.parent)
    files = [str(path) for path in image_files(_names(given))]
    problems: list[tuple[str, str]] = []
    columns = class_columns(run.task.heads)
    counts: dict[str, Counter[str]] = {target: Counter() for target in columns}

    def counted() -> Iterator[pd.DataFrame]:
        with progress_bar("predicting", len(files)) as advance:
            for rows in predict_batches(run, files, **how):
                for target, column in columns.items():
                    counts[target].update(rows[column].dropna())
                bad = rows[rows[PROBLEM] != ""]
                problems.extend(zip(bad["file"], bad[PROBLEM], strict=True))
                advance(len(rows))
                yield rows
        _check_readable(problems, len(files))

    with without_warnings():
        _write(counted(), out, form)
        _say_counts(len(files), counts, problems)
        if out:
            print_aside(f"answers: {out}")
        if explain is not None:
            bad = {name for name, _ in problems}
            readable = [file for file in files if file not in bad]
            print_aside(f"page: {write_predictions_page(run, readable, explain, page)}")
    return problems


def write_parts(run: Run, given: list[str], out: Path, executor: Executor, **how: Any) -> list[tuple[str, str]]:
    """Writes the answers into a folder, and says what they come to; gives the names and problems of unreadable images."""
    from convscope.data import ImageStream
    from convscope.runs import counts_of, predict_parts

    stream = ImageStream(_names(given))
    with progress_bar("predicting", len(stream)) as advance:
        files = predict_parts(run, stream, out, executor, advance=advance, **how)
    columns = class_columns(run.task.heads)
    counts, problems = counts_of(files, list(columns.values()))
    _check_readable(problems, len(stream))
    _say_counts(len(stream), {head: counts[column] for head, column in columns.items()}, problems)
    print_aside(f"answers: {out}, {counted(len(files), 'parquet file')}")
    return problems


def _check_readable(problems: list[tuple[str, str]], n_files: int) -> None:
    if len(problems) == n_files:
        name, problem = problems[0]
        raise DataError(f"{name}: {problem}; none of {n_files:,} files could be read")


def _say_counts(total: int, counts_of: dict[str, Counter[str]], problems: list[tuple[str, str]]) -> None:
    unread = len(problems)
    for head, counts in counts_of.items():
        classes = ", ".join(f"{name} ({n:,})" for name, n in counts.most_common(8))
        more = f" and {len(counts) - 8} other classes" if len(counts) > 8 else ""
        about = f" by {head}" if len(counts_of) > 1 else ""
        print_aside(f"{counted(total - unread, 'image')}{about}: {classes}{more}")
    if problems:
        details = "; ".join(f"{name} {problem}" for name, problem in problems[:_MOST_NAMED])
        more = f" and {unread - _MOST_NAMED:,} more" if unread > _MOST_NAMED else ""
        print_aside(f"{counted(unread, 'file')} could not be read: {details}{more}")


def _names(given: list[str]) -> list[str]:
    """Of images: those given, where "-" stands for those on stdin, one a line.

    Raises:
        DataError: there are none.
    """
    names: list[str] = []
    for one in given:
        names += [line.removesuffix("\r") for line in sys.stdin.read().split("\n")] if one == "-" else [one]
    names = list(filter(None, names))
    if not names:
        raise DataError("no images are given; give image files or folders, or their names on stdin")
    return names


def _no_formula(cell: Any) -> Any:
    """A cell of CSV that a spreadsheet shows and does not work out: a name that begins like a formula gets a ' before it."""
    return f"'{cell}" if isinstance(cell, str) and re.match(r"[=+\-@\t\r](?!\d+(\.\d+)?$)", cell) else cell


def form_of(out: Path | None, as_json: bool) -> str:
    """The ending of the file, or of one such as stdout takes: CSV, or JSON lines.

    Raises:
        SettingError: the file's ending names no format.
        ReadOnlyError: nothing may be written there.
    """
    if out is None:
        return ".jsonl" if as_json else ".csv"
    if out.suffix not in _ENDINGS:
        raise SettingError(
            f"--out {out}: expected a name that ends in {', '.join(_ENDINGS)}; without it rows go to stdout"
        )
    check_writable(out.parent)
    return out.suffix


def _write(tables: Iterable[pd.DataFrame], out: Path | None, form: str) -> None:
    if out is None:
        for text in _texts(tables, form):
            sys.stdout.write(text)
    elif form == ".parquet":
        write_whole(out, lambda file: _write_parquet(file, tables))
    else:
        write_whole(out, lambda file: file.writelines(text.encode() for text in _texts(tables, form)))


def _write_parquet(file: BinaryIO, tables: Iterable[pd.DataFrame]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for table in tables:
        rows = pa.Table.from_pandas(table, preserve_index=False, schema=writer and writer.schema)
        writer = writer or pq.ParquetWriter(file, rows.schema)
        writer.write_table(rows)
    if writer:
        writer.close()


def _texts(tables: Iterable[pd.DataFrame], form: str) -> Iterator[str]:
    for n, table in enumerate(tables):
        if form == ".jsonl":
            rows = (json.dumps(row, ensure_ascii=False) for row in json_rows(table))
            yield "".join(printable_json(row) + "\n" for row in rows)
        else:
            words = table.select_dtypes(exclude="number").map(_no_formula)
            escaped = table.assign(**words).rename(columns=_no_formula)
            yield escaped.to_csv(index=False, header=n == 0, sep="\t" if form == ".tsv" else ",", lineterminator="\n")
