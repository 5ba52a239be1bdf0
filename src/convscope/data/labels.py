"""Labels that stand in a table beside the images, or in the names of their files.

A table has a row an image: its file, its class, and if there are such columns its split and its group. A pattern finds the
same in each file's path below the folder of the images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convscope.data.answers import (
    Answers,
    Role,
    answers_in,
    as_texts,
    check_columns,
    roles_in_words,
    usual_columns,
    with_answers,
)
from convscope.data.folders import ImageFolder
from convscope.data.layouts import Folder, has_image_ending, split_in
from convscope.data.source import Source, encode_labels
from convscope.data.spec import LABEL_COLUMNS, Labels
from convscope.errors import DataError, FailedError, first_line

_FILE_COLUMNS = (
    *("file", "file_name", "filename", "path", "file_path", "filepath"),
    *("image", "image_path", "image_id", "id"),
)
_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_METADATA = tuple(f"metadata{ending}" for ending in _ENDINGS)

NamedTable = tuple[Path, Path, dict[str, list[Any]]]
"""The folder that the files of a table are below, the table, and its columns."""


def open_labelled(tree: Folder, labels: Labels) -> Source:
    """The images of a folder whose labels are in a table, or in the paths of the files.

    Raises:
        DataError: the table cannot be read, lacks a column, or the pattern fits no file.
        UnknownNameError: a column that is asked for is not there.
    """
    if labels.pattern is not None:
        return _by_pattern(tree, labels)
    table = Path(str(labels.table))
    if not table.is_file():
        raise DataError(
            f"{table}: there is no such table of labels, neither in {tree.path} nor here; check data.labels"
        )
    return open_tables(tree, [(tree.path, table, _read(table))], labels)


def metadata_of(tree: Folder) -> list[NamedTable]:
    """The Hub's `metadata.csv` (or .jsonl, .parquet) with labels: that of the root, or those directly in its folders."""
    for level in ([tree], tree.folders):
        tables = []
        for folder in level:
            for name in folder.files:
                if name in _METADATA:
                    columns = _read(folder.path / name)
                    if "file_name" in columns and usual_columns(columns, LABEL_COLUMNS):
                        tables.append((folder.path, folder.path / name, columns))
        if tables:
            return tables
    return []


def tables_in(tree: Folder) -> list[str]:
    """The names of files in a folder that may be tables of labels."""
    return [name for name in tree.files if name.lower().endswith(_ENDINGS)]


def open_tables(tree: Folder, tables: list[NamedTable], labels: Labels) -> Source:
    """As `open_labelled`, of tables that have been read."""
    finder = _Finder(tree)
    answers: list[Answers] = []
    names: list[str] = []
    files: list[Path | str] = []
    lines: list[str] = []
    for folder, file, columns in tables:
        name = labels.file or next(iter(usual_columns(columns, _FILE_COLUMNS)), None)
        if name is None:
            raise DataError(
                f"{file}: has the columns {', '.join(columns)}; expected one of files ({', '.join(_FILE_COLUMNS)}): rename "
                "it, or name it with data.labels.file"
            )
        own_answers, roles = answers_in(columns, labels, file.name)
        check_columns([name], columns, str(file))
        texts = as_texts(columns[name], str(file))
        answers.append(own_answers)
        names += [text or f"row {row} of {file.name}" for row, text in enumerate(texts, start=1)]
        files += [finder.find(folder, text) for text in texts]
        place = file.relative_to(tree.path).as_posix() if file.is_relative_to(tree.path) else file.name
        lines.append(f"{place}: {len(texts):,} rows; file: {name}, {roles_in_words(roles, own_answers)}")
        if others := [one for one in columns if one not in (name, *roles.values())]:
            lines.append(f"columns that are not used: {_some(others, 10)}")
    shared = [role for role in answers[0] if all(role in own for own in answers)]
    joined = {role: [text for own in answers for text in own[role]] for role in shared}
    return _source(tree, joined, tables[0][1].name, names, files, lines)


def _by_pattern(tree: Folder, labels: Labels) -> Source:
    files = [file for file in tree.all_files if has_image_ending(file.name)]
    shorts = [file.relative_to(tree.path).as_posix() for file in files]
    columns = search_all(str(labels.pattern), shorts)
    n_fit = sum(any(texts) for texts in zip(*columns.values(), strict=True))
    if not n_fit:
        example = f" ({shorts[0]})" if shorts else ""
        raise DataError(f"{tree.path}: none of {len(files):,} image files{example} fits the pattern {labels.pattern}")
    answers, roles = answers_in(columns, labels, "the pattern")
    lines = [f"{n_fit:,} of {len(files):,} files fit {labels.pattern}; {roles_in_words(roles, answers)}"]
    return _source(tree, answers, "the pattern", shorts, files, lines)


def _source(
    tree: Folder, answers: Answers, where: str, names: Sequence[str], files: Sequence[Path | str], lines: list[str]
) -> Source:
    """The images of a folder.

    Args:
        answers: what is said of each row.
        where: it is said.
        names: the file of each row, as it is written.
        files: the file, or why there is none.
        lines: what was taken for what; more are added.
    """
    rows, faults = _one_row_a_file(answers, where, files)
    answers = {role: [values[row] for row in rows] for role, values in answers.items()}
    paths = [file if isinstance(file := files[row], Path) else Path(names[row]) for row in rows]
    if Role.SPLIT not in answers and (splits := _splits_of_folders(paths, faults, tree.path)):
        answers[Role.SPLIT] = splits
        lines.append(f"splits by folder: {', '.join(sorted(set(splits) - {''}))}")
    targets, classes = {}, {}
    for target, values in answers.items():
        if isinstance(target, str):
            targets[target], classes[target] = encode_labels(values, None, where)
            if not classes[target]:
                raise DataError(f"{where}: the column of {target!r} holds no label; check the file")
    named = {file for file in files if isinstance(file, Path)}
    others = [file for file in tree.all_files if has_image_ending(file.name) and file not in named]
    if others:  # they may be links to files that are named, or these links to them
        listed = {file.resolve() for file in named}
        others = [file for file in others if file.resolve() not in listed]
    if others:
        examples = _some([file.relative_to(tree.path).as_posix() for file in others])
        lines.append(f"passed over: {len(others):,} image files without a row: {examples}")
    if n_again := len(files) - len(rows):
        lines.append(f"{n_again:,} rows name a file again")
    source = ImageFolder(
        f"image folder {tree.path}",
        {"all": np.arange(len(rows))},
        targets,
        classes,
        tree.path,
        tuple(paths),
        layout=tuple(lines),
        faults=faults,
    )
    return with_answers(source, answers, where)


def _one_row_a_file(answers: Answers, where: str, files: Sequence[Path | str]) -> tuple[list[int], dict[int, str]]:
    """The rows without those that name a file again; and what is wrong with some of them, by their place among these."""
    rows: list[int] = []
    place_of: dict[Path, int] = {}
    faults: dict[int, str] = {}
    for row, file in enumerate(files):
        place = place_of.setdefault(file, len(rows)) if isinstance(file, Path) else len(rows)
        if place == len(rows):
            rows.append(row)
            if isinstance(file, str):
                faults[place] = file
            continue
        texts = [values for role, values in answers.items() if role is not Role.GROUP]
        first, again = ("/".join(values[one] for values in texts) for one in (rows[place], row))
        if first != again:
            faults[place] = f"has two rows in {where} that differ: {first} and {again}"
    return rows, faults


def _splits_of_folders(files: Sequence[Path], faults: Mapping[int, str], root: Path) -> list[str] | None:
    """The split that each file's first folder is called like; None unless all are, some of them like train and others not.

    Rows that cannot be used count for nothing.
    """
    tops = [file.relative_to(root).parent.parts[:1] if file.is_relative_to(root) else () for file in files]
    by_top = {top: split_in("".join(top)) for top in set(tops)}
    splits = [by_top[top] or "" for top in tops]
    usable = {split for row, split in enumerate(splits) if row not in faults}
    return splits if all(usable) and "train" in usable and len(usable) > 1 else None


class _Finder:
    """Finds the image that a table names: by its path, or by its name or its name without ending, where one file has it."""

    def __init__(self, tree: Folder) -> None:
        self.root = tree.path
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        for folder in tree.below():
            for name in folder.images:
                for key in {name, os.path.splitext(name)[0]}:
                    self.by_name[key].append(folder.path / name)

    def find(self, folder: Path, name: str) -> Path | str:
        """The file, or why there is none."""
        if not name:
            return "names no file"
        if os.path.isfile(folder / name):
            return folder / name
        path = Path(name.replace("\\", "/").lstrip("/"))  # as Windows writes it, or counted from the top of the images
        matches = self.by_name.get(path.name, [])
        matches = [file for file in matches if file.is_relative_to(folder)] or matches
        if path.parent.name and os.path.isdir(folder / path.parent):
            matches = [file for file in matches if file.parent == folder / path.parent]
        elif len(matches) > 1:  # a longer path, as of another machine, or a shorter one
            matches = [file for file in matches if _end_alike(path.parent, file.parent.relative_to(self.root))]
        if len(matches) == 1:
            return matches[0]
        return f"is the name of {len(matches):,} files" if matches else "is not there"


def _end_alike(one: Path, other: Path) -> bool:
    """Whether the shorter of two paths is the end of the longer."""
    return all(a == b for a, b in zip(reversed(one.parts), reversed(other.parts), strict=False))


def _read(file: Path) -> dict[str, list[Any]]:
    """The columns of a table.

    Raises:
        DataError: it cannot be read.
    """
    ending = file.suffix.lower()
    if ending not in _ENDINGS:
        raise DataError(f"{file}: is no table of labels; give a {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]} file")
    try:
        columns = _READERS[ending](file)
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not written in UTF-8; save it again in that encoding") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or first_line(error)}); check its path") from None
    except (ValueError, RecursionError, Warning) as error:  # pandas warns of a row longer than the header
        raise DataError(f"{file}: cannot be read as a table ({first_line(error)}); save it again") from None
    if not any(columns.values()):
        raise DataError(f"{file}: has no rows; expected one for each image")
    return {str(name).strip(): values for name, values in columns.items()}


def _read_csv(file: Path) -> dict[str, list[Any]]:
    import pandas as pd

    with file.open("rb") as opened:
        encoding = "utf-16" if opened.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"
    with file.open(encoding=encoding, newline="") as opened:
        head = opened.readline()
    named = head.lower().startswith("sep=")  # a line for Excel, ahead of the table
    mark = head[4] if named else max(",;\t|", key=head.count) if file.suffix.lower() == ".csv" else "\t"
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
        rows = pd.read_csv(
            file,
            sep=mark,
            dtype=str,
            keep_default_na=False,
            encoding=encoding,
            index_col=False,
            skiprows=int(named),
            skipinitialspace=True,
        )
    rows = rows[(rows.fillna("") != "").any(axis=1)]  # spreadsheets write rows of separators alone
    return {name: rows[name].tolist() for name in rows.columns}


def _read_parquet(file: Path) -> dict[str, list[Any]]:
    from pyarrow import parquet

    return parquet.read_table(file).to_pydict()  # an index of pandas among the columns


def _read_json(file: Path) -> dict[str, list[Any]]:
    with file.open(encoding="utf-8-sig") as opened:
        rows = [json.loads(line) for line in opened if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected an object a line")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


_READERS: dict[str, Callable[[Path], dict[str, list[Any]]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".parquet": _read_parquet,
}


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


_LIMIT_S = 60
"""A million names take a few seconds."""

_SEARCH = """
import json, re, sys
text, names = json.load(sys.stdin)
pattern = re.compile(text)
groups = pattern.groupindex or {"label": 1}
matches = list(map(pattern.search, names))
json.dump({name: [m and m[number] or "" for m in matches] for name, number in groups.items()}, sys.stdout)
"""


def search_all(pattern: str, names: Sequence[str]) -> dict[str, list[str]]:
    """The text of each group in each name, '' where it does not fit; a group without a name is 'label'.

    It runs in a process of its own, for Python cannot end a search: one such as `(a+)+$` takes for ever on the right name, and
    a pattern may come from the run folder of a stranger.

    Raises:
        DataError: it takes longer than a minute.
        FailedError: the process failed.
    """
    request = json.dumps([pattern, names])  # ASCII, also of names that are no UTF-8
    command = [sys.executable, "-I", "-c", _SEARCH]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except subprocess.TimeoutExpired:
        raise DataError(
            f"the pattern {pattern[:200]!r} takes more than {_LIMIT_S} s on {len(names):,} names of files; write it without "
            "a repetition in a repetition, such as (a+)+"
        ) from None
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise FailedError(
            f"the pattern {pattern[:200]!r} could not be searched for: {reason.splitlines()[-1]}"
        ) from None
    columns: dict[str, list[str]] = json.loads(done.stdout)
    return columns
