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
from convscope.cli.show import json_rows
from convscope.errors import DataError, SettingError
from convscope.runs import PROBLEM, Run, check_writable, class_columns, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from convscope.compute import Executor

_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
_MOST_NAMED = 5


class Answers:
    """The images of one command, and what the run answers to them.

    Args:
        run: that answers.
        given: files, folders, and - for names on stdin.
        explain: a lens, of whose maps a page is written.
        page: its file.
    """

    def __init__(self, run: Run, given: list[str], explain: str | None, page: Path) -> None:
        from convscope.data import image_files
        from convscope.report import check_predictions_page

        self.run, self.explain, self.page = run, explain, page
        if explain is not None:
            check_predictions_page(explain, page)
            check_writable(page.parent)
        names = _names(given)
        if not names:
            raise DataError("no images are given; give image files or folders, or their names on stdin")
        self.files = [str(path) for path in image_files(names)]
        self.problems: list[tuple[str, str]] = []
        self.columns = class_columns(run.task.heads)
        self.counts: dict[str, Counter[str]] = {target: Counter() for target in self.columns}

    def counted(self, batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """The same tables; classes and problems are counted on the way.

        Raises:
            DataError: none of the files could be read.
        """
        with progress_bar("predicting", len(self.files)) as advance:
            for rows in batches:
                for target, column in self.columns.items():
                    self.counts[target].update(rows[column].dropna())
                bad = rows[rows[PROBLEM] != ""]
                self.problems += zip(bad["file"], bad[PROBLEM], strict=True)
                advance(len(rows))
                yield rows
        if len(self.problems) == len(self.files):
            name, problem = self.problems[0]
            raise DataError(f"{name}: {problem}; none of {len(self.files):,} files could be read")

    def conclude(self, out: Path | None) -> None:
        """Says on stderr how many images have which class and which could not be read; writes the page."""
        _say_counts(len(self.files), self.counts, self.problems)
        if out:
            _say(f"answers: {out}")
        if self.explain is not None:
            from convscope.report import write_predictions_page

            bad = {name for name, _ in self.problems}
            readable = [file for file in self.files if file not in bad]
            _say(f"page: {write_predictions_page(self.run, readable, self.explain, self.page)}")


def write_parts(run: Run, given: list[str], out: Path, executor: Executor, **how: Any) -> list[tuple[str, str]]:
    """Writes the answers into a folder, and says what they come to; gives the names and problems of unreadable images."""
    from convscope.data import ImageStream
    from convscope.runs import counts_of, predict_parts

    stream = ImageStream(_names(given))
    with progress_bar("predicting", len(stream)) as advance:
        files = predict_parts(run, stream, out, executor, advance=advance, **how)
    columns = class_columns(run.task.heads)
    counts, problems = counts_of(files, list(columns.values()))
    if len(problems) == len(stream):
        raise DataError(f"{problems[0][0]}: {problems[0][1]}; none of {len(stream):,} files could be read")
    _say_counts(len(stream), {head: counts[column] for head, column in columns.items()}, problems)
    _say(f"answers: {out}, {len(files):,} parquet file{'' if len(files) == 1 else 's'}")
    return problems


def _say_counts(total: int, counts_of: dict[str, Counter[str]], problems: list[tuple[str, str]]) -> None:
    unread = len(problems)
    for head, counts in counts_of.items():
        classes = ", ".join(f"{name} ({n:,})" for name, n in counts.most_common(8))
        more = f" and {len(counts) - 8} other classes" if len(counts) > 8 else ""
        about = f" by {head}" if len(counts_of) > 1 else ""
        _say(f"{total - unread:,} image{'' if total - unread == 1 else 's'}{about}: {classes}{more}")
    if problems:
        details = "; ".join(f"{name} {problem}" for name, problem in problems[:_MOST_NAMED])
        more = f" and {unread - _MOST_NAMED:,} more" if unread > _MOST_NAMED else ""
        _say(f"{unread:,} file{'' if unread == 1 else 's'} could not be read: {details}{more}")


def _say(line: str) -> None:
    print(line.replace("\n", "\\n"), file=sys.stderr)  # noqa: T201


def _names(given: list[str]) -> list[str]:
    """Of images: those given, where "-" stands for those on stdin, one a line."""

    def on_stdin() -> list[str]:
        return [line.removesuffix("\r") for line in sys.stdin.read().split("\n")]

    return [name for one in given for name in (on_stdin() if one == "-" else [one]) if name]


def _no_formula(cell: Any) -> Any:
    """A cell of CSV that a spreadsheet shows and does not work out: a name that begins like a formula gets a ' before it."""
    return f"'{cell}" if isinstance(cell, str) and re.match(r"[=+\-@\t\r](?!\d+(\.\d+)?$)", cell) else cell


class RowWriter:
    """Writes tables of rows to a file, or to stdout: CSV, or JSON lines.

    Raises:
        SettingError: the file's ending names no format.
        ReadOnlyError: nothing may be written there.
    """

    def __init__(self, out: Path | None, as_json: bool) -> None:
        if out is not None and out.suffix not in _ENDINGS:
            raise SettingError(
                f"--out {out}: expected a name that ends in {', '.join(_ENDINGS)}; without it rows go to stdout"
            )
        if out is not None:
            check_writable(out.parent)
        self.out, self.form = out, out.suffix if out else ".jsonl" if as_json else ".csv"

    def write(self, tables: Iterable[pd.DataFrame]) -> None:
        if self.out is not None:
            write_whole(self.out, lambda file: self._into(file, tables))
            return
        for text in self._texts(tables):
            sys.stdout.write(text)

    def _into(self, file: BinaryIO, tables: Iterable[pd.DataFrame]) -> None:
        if self.form != ".parquet":
            for text in self._texts(tables):
                file.write(text.encode())
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        writer = None
        for table in tables:
            rows = pa.Table.from_pandas(table, preserve_index=False, schema=writer and writer.schema)
            writer = writer or pq.ParquetWriter(file, rows.schema)
            writer.write_table(rows)
        if writer:
            writer.close()

    def _texts(self, tables: Iterable[pd.DataFrame]) -> Iterator[str]:
        for n, table in enumerate(tables):
            if self.form == ".jsonl":
                rows = (json.dumps(row, ensure_ascii=False) for row in json_rows(table))
                yield "".join(printable_json(row) + "\n" for row in rows)
            else:
                words = table.select_dtypes(exclude="number").map(_no_formula)
                escaped = table.assign(**words).rename(columns=_no_formula)
                yield escaped.to_csv(
                    index=False, header=n == 0, sep="\t" if self.form == ".tsv" else ",", lineterminator="\n"
                )
