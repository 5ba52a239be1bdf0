"""convscope report: one HTML file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli import options
from convscope.cli.show import print_json, print_line, print_metrics
from convscope.errors import SettingError


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run's folder, such as runs/lines, or one with runs below it.")
    ],
    minutes: options.Minutes = "3",
    explore: Annotated[
        bool,
        typer.Option(
            "--explore", help="Also write RUN/explorer, a copy of the explorer that a browser opens from disk."
        ),
    ] = False,
    trust_code: options.TrustCode = False,
    ray: options.RayAddress = None,
    cpus_per_run: options.CpusPerRun = 1,
    allow_different: options.AllowDifferent = False,
    json: options.Json = False,
) -> None:
    """Write the illustrated report of a run or a study.

    One HTML file that opens offline: DIR/report.html. Beside that of a run filters.html, a page of every filter."""
    from convscope.compute import using
    from convscope.courses import study_sections
    from convscope.report import holds_runs, write_report, write_study_report

    limit, copy = options.read_minutes(minutes), None
    if holds_runs(folder):
        if explore:
            raise SettingError(f"--explore: {folder} holds several runs; give the folder of one")
        path = write_study_report(folder, study_sections(folder))
    else:
        run = options.opened(folder, trust_code)
        if not json:
            print_metrics(run.metrics, run.spec.recipe)
        with options.cluster(ray, cpus_per_run, 0.0, allow_different) as executor, using(executor):
            path = write_report(run, minutes=limit)
            if explore:
                from convscope.app import write_twin

                copy = write_twin(run, trust_code)
    if json:
        print_json({"report": path, "bytes": path.stat().st_size, **({"explorer": copy} if copy else {})})
    else:
        print_line(f"report: {path}")
        if copy:
            print_line(f"explorer: {copy}")
