"""convscope study: train, evaluate, look, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli import options
from convscope.cli.show import print_json, print_line, print_metrics


def study(
    spec: Annotated[str | None, typer.Argument(help="A shipped study (such as mnist) or a YAML file.")] = None,
    data: options.Data = None,
    net: options.Net = None,
    set_: options.Set = [],  # noqa: B006 (typer copies it)
    out: options.Out = None,
    seed: options.Seed = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    skip_bad: options.SkipBad = False,
    track: options.Track = [],  # noqa: B006
    minutes: options.Minutes = "3",
    json: options.Json = False,
) -> None:
    """Train, evaluate, look inside, report.

    The whole way from a data set and a network to an illustrated report.

    What is already there of the same study is kept: it goes on where it was stopped.
    """
    from convscope.report import write_report
    from convscope.study import find_spec, run_study

    limit = options.read_minutes(minutes)
    name, run_spec = find_spec(spec, options.overrides(set_, seed, skip_bad, threads), data, net)
    run = run_study(run_spec, out or Path("runs") / name, device=device, track=track)
    if not json:
        print_metrics(run.metrics, run.spec.recipe)
    report = write_report(run, minutes=limit)
    if json:
        print_json({"run": run.path, "report": report, **run.metrics})
    else:
        print_line(f"\nreport: {report}")
