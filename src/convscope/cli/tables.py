"""Tables of runs as they are printed and written: text, Markdown, CSV, Parquet and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from convscope.base.words import counted
from convscope.cli.show import json_rows, print_aside, print_frame, print_json, print_line
from convscope.compute import write_whole
from convscope.errors import SettingError
from convscope.study import SHARES, Importance, Matrix, Runs, importance_in_words, setting_in_words

_MISSING = "–"
_MOST_ROWS = 100
_MOST_MESSAGES = 10
_ENDINGS = {".md": "md", ".csv": "csv", ".parquet": "parquet", ".json": "json", ".txt": "text"}
_DETAILS = ("_low", "_high", "_deviation", "_n")
"""Endings of a figure's other columns, which are shown with it or left to files. No setting is ever looked at by its name."""


@dataclass(frozen=True)
class Answer:
    """All that one command shows."""

    runs: Runs
    frame: pd.DataFrame
    matrices: list[Matrix]
    importance: Importance | None
    notes: list[str]

    @property
    def grouped(self) -> bool:
        return "run" not in self.frame


def form_of(given: str | None, as_json: bool, out: Path | None, importance: bool) -> str:
    """The format to write, after making sure that it goes with the other options.

    Raises:
        SettingError: it does not.
    """
    if as_json and given not in (None, "json"):
        raise SettingError(f"--json and --format {given}: give one of them")
    ending = out.suffix.lower() if out else ""
    if out and ending and ending not in _ENDINGS:
        raise SettingError(f"--out {out}: {ending} cannot be written; expected {', '.join(_ENDINGS)}")
    form = given or ("json" if as_json else _ENDINGS.get(ending, "text"))
    if form == "parquet" and out is None:
        raise SettingError("--format parquet: it is no text; say where to write it: --out FILE.parquet")
    if importance and form in ("csv", "parquet"):
        raise SettingError(f"--importance: {form} has room for one table only; take --format text, md or json")
    return form


def hand_over(answer: Answer, form: str, out: Path | None) -> None:
    """Prints the answer, or writes it into a file and prints where."""
    if form == "text" and out is None:
        for part in _parts(answer):
            if isinstance(part, str):
                print_line(part)
            else:
                cells, left = part
                print_frame(cells, _MOST_ROWS, left)
        return
    if out is None and form == "json":
        print_json(_as_json(answer))
        return
    content = _content(answer, form)
    if form in ("csv", "parquet"):
        for note in answer.notes:
            print_aside(f"note: {note}")
    if out is None:
        sys.stdout.write(str(content))
        return
    write_whole(out, content)
    print_line(f"{out}: {len(answer.frame):,} {'groups' if answer.grouped else 'runs'}")


def _content(answer: Answer, form: str) -> str | bytes:
    """Of a file."""
    match form:
        case "csv":
            return answer.frame.to_csv(index=False)
        case "parquet":
            return _parquet(answer.frame)
        case "json":
            return json.dumps(_as_json(answer), indent=1, ensure_ascii=False) + "\n"
    table = _markdown_table if form == "md" else _text_table
    return "\n\n".join(part.strip() if isinstance(part, str) else table(*part) for part in _parts(answer)) + "\n"


def _text_table(cells: pd.DataFrame, left: int) -> str:
    return cells.rename(columns=_in_one_line).to_string(index=False)


def _markdown_table(cells: pd.DataFrame, left: int) -> str:
    names = [_in_one_line(name) for name in cells.columns]
    rule = [":---" if place < left else "---:" for place in range(len(names))]
    rows = [names, rule, *(list(row) for row in cells.itertuples(index=False))]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def _in_one_line(name: str) -> str:
    return name.replace(".\n", ".").replace("\n", " ")


def _parts(answer: Answer) -> Iterator[str | tuple[pd.DataFrame, int]]:
    """Lines and tables, in order; a table with the number of its columns that are words."""
    n, states = len(answer.runs), (f"{n:,} {state}" for state, n in answer.runs.states.items())
    yield f"{counted(n, 'run')}: {', '.join(states)}"
    yield from (f"note: {note}" for note in answer.notes)
    columns = list(answer.frame.columns)
    if answer.grouped:
        yield "mean ± standard deviation (95 % interval of the mean) over the runs that came to their end"
        yield _cells(answer, columns.index("not_finished") + 1), columns.index("runs")
    else:
        yield _cells(answer, columns.index("state") + 1), columns.index("state") + 1
        yield from _messages(answer.frame)
    for matrix in answer.matrices:
        over = f", averaged over {' and '.join(matrix.over)}" if matrix.over else ""
        yield f"\n{_header(matrix.metric, ' ')}: mean by {matrix.rows} (down) and {matrix.columns} (across){over}"
        yield _matrix_cells(matrix), 1
    if answer.importance:
        yield f"\n{importance_in_words(answer.importance)}"
        yield _importance_cells(answer.importance), 1
        yield _importance_note(answer.importance, answer.runs.settings)


def _cells(answer: Answer, n_words: int) -> pd.DataFrame:
    """The runs or groups as they are shown; the first columns are settings and counts, the others figures."""
    frame, cells = answer.frame, {}
    for name in frame.columns[:n_words]:
        if name != "not_finished" or frame[name].any():
            cells[_setting_header(name)] = [*map(_cell, frame[name])]
    rows = json_rows(frame)
    for name in frame.columns[n_words:]:
        if name != "message" and not name.endswith(_DETAILS):
            cells[_header(name)] = [
                _mean_cell(name, row) if answer.grouped else _figure(name, row[name]) for row in rows
            ]
    return pd.DataFrame(cells)


def _mean_cell(name: str, row: dict[str, Any]) -> str:
    mean, deviation, low, high = (_figure(name, row[f"{name}{part}"]) for part in ("", "_deviation", "_low", "_high"))
    fewer = f", n = {row[f'{name}_n']}" if 0 < row[f"{name}_n"] < row["runs"] else ""
    if deviation == _MISSING:
        return f"{mean}{fewer}"
    if not row[f"{name}_deviation"]:
        return f"{mean} ± 0{fewer}"
    return f"{mean} ± {deviation} ({low} to {high}{fewer})"


def _matrix_cells(matrix: Matrix) -> pd.DataFrame:
    cells = matrix.cells.map(lambda value: _figure(matrix.metric, value))
    cells.columns = pd.Index([*map(_cell, cells.columns)])
    cells.insert(0, f"{matrix.rows} \\ {matrix.columns}", [*map(_cell, cells.index)], allow_duplicates=True)
    return cells


def _importance_cells(importance: Importance) -> pd.DataFrame:
    rows = [
        (t.name, f"{100 * t.share:.1f}", f"{100 * t.corrected_share:.1f}", str(t.freedom),
         _MISSING if t.f is None else f"{t.f:.3g}", f"{t.corrected_p:.2g}")
        for t in importance.terms
    ]  # fmt: skip
    rows += [(rest.name, f"{100 * rest.share:.1f}", "", str(rest.freedom), "", "") for rest in importance.rest]
    columns = ["", "share of the\nvariance %", "less what\nchance gives", "degrees of\nfreedom", "F", "p (Holm)"]
    return pd.DataFrame(rows, columns=columns)


def _importance_note(importance: Importance, settings: Sequence[str]) -> str:
    remarks, named = ["analysis of variance, type II"], {name for term in importance.terms for name in term.settings}
    if others := [key for key in settings if key not in named]:
        remarks.append(f"what {' and '.join(others)} did counts as chance")
    if importance.missing_cells:
        remarks.append(f"{importance.missing_cells} combinations of the settings have no run")
    if importance.not_estimable:
        remarks.append("too few runs to show interactions")
    if not importance.adds_up:
        remarks.append("the shares overlap, for the grid is not even")
    return "; ".join(remarks)


def _messages(frame: pd.DataFrame) -> Iterator[str]:
    """Why runs did not finish."""
    rows = frame[frame.message.notna()]
    for run, state, message in rows.head(_MOST_MESSAGES)[["run", "state", "message"]].itertuples(index=False):
        yield f"{run} {state}: {message}"
    if len(rows) > _MOST_MESSAGES:
        yield f"… and {len(rows) - _MOST_MESSAGES} more; --json prints them"


def _setting_header(name: str) -> str:
    """ "net.width" in two lines, as "not_finished"."""
    above, dot, last = name.rpartition(".")
    return f"{above}.\n{last}" if dot else name.replace("_", "\n")


def _header(name: str, between: str = "\n") -> str:
    """ "val accuracy %" in two lines."""
    words = name.removesuffix("_percent").split("_") + (["%"] if name.endswith((*SHARES, "_percent")) else [])
    return between.join([words[0], " ".join(words[1:])]) if len(words) > 1 else words[0]


def _cell(value: Any) -> str:
    """A setting, a name or a count."""
    if value is None or value is pd.NA or value != value:  # NaN
        return _MISSING
    if isinstance(value, float):
        return f"{value:.4g}"
    return setting_in_words(value) if isinstance(value, str) else str(value)


def _figure(name: str, value: Any) -> str:
    """A figure of the runs, as its kind is written."""
    if _cell(value) == _MISSING:
        return _MISSING
    if name.endswith(SHARES):
        return f"{100 * value:.2f}"
    if name in ("overfit_percent", "parameters", "seconds", "images_per_s"):
        return f"{value:,.{2 if name == 'overfit_percent' else int(name == 'seconds')}f}"
    if name.endswith("loss"):
        return f"{value:.4f}"
    return _cell(value)


def _parquet(frame: pd.DataFrame) -> bytes:
    """Settings of several kinds, such as 6 and "six", become words, for a column has one kind."""
    frame = frame.copy()
    for name in (name for name, kind in frame.dtypes.items() if kind.kind == "O"):
        if len({type(value) for value in frame[name] if value is not None}) > 1:
            frame[name] = [None if value is None else str(value) for value in frame[name]]
    return frame.to_parquet(index=False)


def _as_json(answer: Answer) -> dict[str, Any]:
    values: dict[str, Any] = {
        "folder": str(answer.runs.folder),
        "runs": len(answer.runs),
        "states": answer.runs.states,
        "notes": answer.notes,
        "rows": json_rows(answer.frame),
    }
    if answer.matrices:
        values["matrices"] = [
            {
                **{key: getattr(matrix, key) for key in ("metric", "rows", "columns", "over")},
                "row_values": matrix.cells.index.tolist(),
                "column_values": matrix.cells.columns.tolist(),
                "cells": matrix.cells.astype(object).where(matrix.cells.notna(), None).to_numpy().tolist(),
            }
            for matrix in answer.matrices
        ]
    if answer.importance:
        values["importance"] = {**asdict(answer.importance), "in_words": importance_in_words(answer.importance)}
    return values
