"""convscope table: a row a run, or a group of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from convscope.cli.options import Json


def table(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder, or any with runs below it.")],
    by: Annotated[str, typer.Option(metavar="KEY,…", help="Group by these settings: net.width,net.kernel.")] = "",
    metric: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Show this metric, such as test_accuracy; may be given several times."),
    ] = [],  # noqa: B006 (typer copies it)
    epoch: Annotated[
        str | None,
        typer.Option(
            metavar="best|last|N",
            help="Figures of this epoch; that of the weights which the run kept if left out.",
        ),
    ] = None,
    format: Annotated[
        Literal["text", "md", "csv", "parquet", "json"] | None,
        typer.Option(help="Format of the table; if left out as the ending of --out says, else text."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table there.")] = None,
    all_settings: Annotated[
        bool, typer.Option("--all", help="Show every setting, not only those that differ.")
    ] = False,
    importance: Annotated[
        bool, typer.Option("--importance", help="Show which settings matter for the metric.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a table of all runs below a folder, finished or not.

    With --by mean, deviation and 95 % interval of the runs of each group, and every pair of settings as a matrix. An index is
    kept in the cache, so that only what has changed is read the next time."""
    from convscope.cli.tables import Answer, form_of, hand_over
    from convscope.study import Runs

    form = form_of(format, json, out, importance)
    runs, keys = Runs(folder), [key.strip() for key in by.split(",") if key.strip()]
    answer = Answer(
        runs,
        runs.grouped(keys, metric, epoch) if keys else runs.rows(metric, epoch, all_settings=all_settings),
        runs.matrices(keys, metric, epoch) if len(keys) > 1 and form in ("text", "md", "json") else [],
        runs.importance(keys, metric, epoch) if importance else None,
        runs.notes(metric, epoch),
    )
    hand_over(answer, form, out)
