"""convscope compare: several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.options import Json
from convscope.cli.show import print_compared, print_json, print_line


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN …", help="Folders of two or more evaluated runs of the same classes."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page there, .html, or the pictures alone, .png."),
    ] = None,
    seeds_by: Annotated[
        str, typer.Option(metavar="KEY", help="Runs that differ in this setting alone are a group.")
    ] = "recipe.seed",
    json: Json = False,
) -> None:
    """Compare runs: settings, figures, and which is better.

    Each two are compared on the same test images, and, where there are several seeds, over seeds, which tells recipes
    apart rather than runs. With --out also the images that only one gets right, and confusion matrices."""
    from convscope.report import check_comparison_file, write_comparison
    from convscope.study import compare as compare_runs

    if out:
        check_comparison_file(out)
    compared = compare_runs(runs, seeds_by=seeds_by)
    if out:
        write_comparison(compared, out)
    if json:
        print_json({**compared.to_json(), "out": out})
        return
    print_compared(compared)
    if out:
        print_line(f"written: {out}")
