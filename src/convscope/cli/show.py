"""Tables and figures as the verbs print them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from convscope.base.console import open_console, printable_json

if TYPE_CHECKING:
    import pandas as pd

    from convscope.runs import Recipe
    from convscope.study import Compared, Pair


def print_json(values: Any) -> None:
    """JSON on stdout, paths as text, with other letters than ASCII escaped where the terminal has no room for all."""
    whole = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    print(printable_json(json.dumps(values, indent=1, ensure_ascii=not whole, default=os.fspath)))  # noqa: T201


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A pandas table as JSON values, a mapping a row; null where there is no value, for JSON knows no NaN."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")  # type: ignore[return-value]


def print_aside(line: str) -> None:
    """A line on stderr."""
    print(line.replace("\n", "\\n"), file=sys.stderr)  # noqa: T201


def print_line(text: str) -> None:
    """A line on stdout, as it is."""
    open_console(soft_wrap=True, highlight=False, markup=False).print(text)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, text: bool = False
) -> None:
    """A table on stdout; the first `left` columns are words, the others numbers, but with `text` the last one: it is wrapped
    where the terminal is narrow."""
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for place, column in enumerate(columns):
        wrapped = text and place == len(columns) - 1
        table.add_column(column, justify="left" if place < left or wrapped else "right", no_wrap=not wrapped)
    for row in rows:
        table.add_row(*row)
    console = open_console(highlight=False, markup=False)
    if not console.is_terminal:  # a file or a pipe has no width: nothing is cut off
        console.width = max(
            console.width, Measurement.get(console, console.options.update(max_width=1000), table).maximum
        )
    console.print(table)


def print_frame(frame: pd.DataFrame, most: int = 40, left: int | None = None) -> None:
    """A pandas table on stdout, its first words, or `left` columns, to the left; of a large one the first rows, and the
    columns that fit the terminal, and how many there are."""
    rows = [[_cell(value) for value in row] for row in frame.head(most).itertuples(index=False)]
    if left is None:
        left = next((n for n, kind in enumerate(frame.dtypes) if kind.kind in "iuf"), len(frame.columns))
    names = list(frame.columns)
    fit = _columns_that_fit(names, rows)
    print_table("", names[:fit], [row[:fit] for row in rows], left=left)
    if len(frame) > most or fit < len(names):
        columns = f" and {len(names)} columns" if fit < len(names) else ""
        print_line(f"… {len(frame):,} rows{columns} in all; --json prints them")


def _columns_that_fit(names: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How many of a table's first columns the terminal has room for; all where there is none."""
    from rich.cells import cell_len

    console = open_console()
    if not console.is_terminal:
        return len(names)
    cells = [names, *rows]
    widths = accumulate(
        max(cell_len(line) for row in cells for line in row[column].split("\n")) + 2 for column in range(len(names))
    )
    return max(1, sum(width <= console.width + 1 for width in widths))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}"  # NaN: not defined
    return str(value)


def share(figure: dict[str, float | None]) -> str:
    """A share with its interval in percent: '99.41 % (99.33 to 99.48)'; without limits '99.41 %'."""
    return number(figure, ".2f", 100, " %")


def number(figure: dict[str, float | None], form: str = ".4f", scale: float = 1, unit: str = "") -> str:
    """A number with its interval: '0.0213 (0.0195 to 0.0231)'; without limits, as from a single image, '0.0213'."""
    if figure["value"] is None:
        return "not defined"
    limits = (figure["low"], figure["high"])
    ends = [f"{scale * limit:{form}}" for limit in limits if limit is not None and limit == limit]  # no NaN
    interval = f" ({' to '.join(ends)})" if ends else ""
    return f"{scale * figure['value']:{form}}{unit}{interval}"


def print_metrics(metrics: dict[str, Any], recipe: Recipe) -> None:
    """The figures that matter of an evaluated run, of several heads those of each under its name, and what class imbalance
    did to them."""
    from convscope.scans import imbalance_in_words

    rows = [("accuracy", share(metrics["accuracy"]))]
    if metrics["top5"]["value"] is not None:
        rows.append(("top-5 accuracy", share(metrics["top5"])))
    of_all = [("loss", number(metrics["loss"])), ("overfit %", number(metrics["overfit_percent"], ".2f"))]
    if len(metrics["heads"]) == 1:
        rows += [*_of_classes(metrics), *of_all, ("calibration error", share(metrics["calibration_error"]))]
    else:
        rows += of_all
        for name, head in metrics["heads"].items():
            calibration = ("calibration error", share(head["calibration_error"]))
            own = [("accuracy", share(head["accuracy"])), *_of_classes(head), calibration]
            rows += [(name, ""), *((f"  {figure}", value) for figure, value in own)]
    print_table(f"{metrics['images']:,} test images (95 % interval)", ("", ""), rows)
    for sentence in imbalance_in_words(metrics, recipe):
        print_line(sentence)


def _of_classes(figures: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name in ("precision", "recall", "f1"):
        n = figures[name].get("left_out", 0)
        left_out = f", {n:,} class{'es' if n > 1 else ''} left out: not defined" if n else ""
        rows.append((f"{name}, mean of classes", share(figures[name]) + left_out))
    return rows


_MOST_SENTENCES = 6
_MOST_ACROSS = 4  # runs that have room beside each other
_MOST_CELLS = 8
_NUMBERS = {"loss": ".4f", "overfit_percent": ".2f"}  # all other figures are shares


def print_compared(found: Compared) -> None:
    """All that a comparison says, except its pictures."""
    _print_pairs("Over seeds, which tells recipes apart", found.over_seeds)
    _print_pairs("On the same test images, which tells these runs apart", found.pairs)
    _print_settings(found)
    _print_figures(found)
    _print_groups(found)
    only = found.only_right()
    if only:
        counts = "; ".join(f"{len(rows):,} by {name}" for name, rows in only.items())
        print_line(f"Test images that only one of them gets right: {counts}\n")
    _print_moved(found)
    for note in found.notes():
        print_line(note)


def _print_pairs(title: str, pairs: tuple[Pair, ...]) -> None:
    from convscope.study import written_p

    if len(pairs) > _MOST_SENTENCES:
        bases = [pair.basis for pair in pairs]
        differ = len(set(bases)) > 1  # by tests of their own, as where some have other seeds
        rows = [
            (
                pair.a,
                pair.b,
                number(pair.compared.difference.to_json(), "+.2f", 100),
                written_p(pair.p),
                "yes" if pair.told_apart else "no",
                *([basis] * differ),
            )
            for pair, basis in zip(pairs, bases, strict=True)
        ]
        columns = ("A", "B", "A less B, points", "p (Holm)", "told apart", *(["by"] * differ))
        print_line(title if differ else f"{title}: {bases[0]}")
        print_table("", columns, rows, left=2, text=differ)
        print_line("")
    elif pairs:
        print_line("\n".join([title, *(f"  {pair.verdict}; {pair.basis}" for pair in pairs), ""]))


def _print_settings(compared: Compared) -> None:
    from convscope.study import setting_in_words

    values = [[setting_in_words(run.settings.get(key, "–")) for key in compared.settings] for run in compared.runs]
    if not compared.settings:
        print_line("All settings are the same.\n")
        return
    if len(compared.runs) <= _MOST_ACROSS:
        print_table("", ("setting", *compared.names), zip(compared.settings, *values, strict=True))
    else:
        rows = [(name, *row) for name, row in zip(compared.names, values, strict=True)]
        print_table("", ("settings of", *compared.settings), rows)
    print_line("")


def _print_figures(compared: Compared) -> None:
    """A line for each figure of each run, so that those to be compared stand below each other."""
    rows = []
    for _, same in compared.figures().groupby("metric", sort=False):
        for place, row in enumerate(same.to_dict("records")):
            form = _NUMBERS.get(row["metric"])
            figure = {key: row[key] for key in ("value", "low", "high")}
            rows.append(("" if place else row["name"], row["run"], number(figure, form) if form else share(figure)))
    print_table("", ("figure", "run", "95 % interval"), rows, left=2)
    print_line("")


def _print_groups(compared: Compared) -> None:
    groups = [group for group in compared.groups if len(group.values) > 1]
    if not groups:
        return
    rows = [
        (one.label, str(one.accuracy.n), *(share(each.mean.to_json()) for each in (one.val_accuracy, one.accuracy)))
        for one in groups
    ]
    print_table("", ("mean over seeds (95 %, cut at 0 and 100)", "seeds", "validation accuracy", "test accuracy"), rows)
    print_line("")


def _print_moved(compared: Compared) -> None:
    """Where the first two differ most, answer by answer."""
    cells = compared.moved() if compared.same_images else None
    if cells is None or cells.empty:
        return
    a, b = compared.names[:2]
    several = len(compared.runs[0].run.task.heads) > 1
    rows = [
        (f"{row['head']}={row['true']}" if several else row["true"], row["predicted"], f"{row['images']:+,}")
        for row in cells.head(_MOST_CELLS).to_dict("records")
    ]
    print_line(f"Confusion matrix, images of {a} less those of {b}")
    print_table("", ("true", "predicted", "images"), rows, left=2)
    if len(cells) > _MOST_CELLS:
        print_line(f"… {len(cells):,} cells differ in all; --json prints them")
    print_line("")
