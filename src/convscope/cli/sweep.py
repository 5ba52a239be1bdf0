"""convscope sweep: a grid of settings, or a search, each trained over several seeds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from convscope.cli import options
from convscope.cli.show import print_json, print_line, print_table

if TYPE_CHECKING:
    from convscope.study import Plan, Study

_MOST = 20


def sweep(
    spec: Annotated[str, typer.Argument(help="A YAML file of a study with sweep: or seeds:, or a shipped study.")],
    set_: options.Set = [],  # noqa: B006 (typer copies it)
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the study; runs/NAME if left out.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes that share the cores, 1 if left out; each has its share of the threads, see --threads. With --ray: "
            "runs at a time, as many as there is room for if left out.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database for several machines, postgresql://…; a file in the folder if left out.",
        ),
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Copy each run that has ended there, such as s3://bucket/widths, and fetch what is missing here.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and estimate the time; train none.")
    ] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    track: options.Track = [],  # noqa: B006
    ray: options.RayAddress = None,
    cpus_per_run: options.CpusPerRun = 1,
    gpus_per_run: options.GpusPerRun = 0.0,
    allow_different: options.AllowDifferent = False,
    json: options.Json = False,
) -> None:
    """Train a grid of settings, or search among them.

    The file says what changes from run to run, for example
    sweep: {net.width: [6, 12, 18]} and seeds: [0, 1, 2];
    so does --set 'sweep.net.width=[6,12,18]'.

    Finished runs are kept: the same command goes on after a Ctrl-C, a kill, a power cut.
    """
    from convscope.courses import check_reproduces, study_sections
    from convscope.report import write_study_report
    from convscope.study import find_study, plan, sweep as run_sweep

    name, study_spec = find_study(spec, options.overrides(set_, threads=threads))
    study_spec = check_reproduces(study_spec, spec)  # before anything is trained
    if dry_run:
        planned = plan(study_spec, workers or 1, device)
        print_json(asdict(planned)) if json else _print_plan(planned)
        return
    folder = out or Path("runs") / name
    with options.cluster(ray, cpus_per_run, gpus_per_run, allow_different, workers) as executor:
        study = run_sweep(
            study_spec, folder, workers=workers or 1, storage=storage, device=device, track=track, executor=executor,
            archive=archive,
        )  # fmt: skip
    report = write_study_report(study.path, study_sections(study.path))
    if json:
        ranking, runs = ([asdict(each) for each in rows] for rows in (study.ranking(), study.runs))
        values = {"study": study.path, "report": report, "metric": study.spec.metric}
        print_json({**values, "ranking": ranking, "runs": runs})
    else:
        _print_study(study, report)


def _print_plan(planned: Plan) -> None:
    from convscope.study import duration, setting_in_words

    keys = list(planned.runs[0].settings)
    rows = []
    for run in planned.runs[: 5 * _MOST]:
        size = "" if run.parameters is None else f"{run.parameters:,}"
        time = run.problem or ("" if run.seconds is None else duration(run.seconds))
        rows.append(
            [f"{run.number:04d}-s{run.seed}", *(setting_in_words(run.settings[key]) for key in keys), size, time]
        )
    title = "" if planned.is_known else "the settings follow from results; this one stands for all"
    print_table(title, ["run", *keys, "parameters", "time"], rows)
    if len(planned.runs) > len(rows):
        print_line(f"… {len(planned.runs)} in all; --json prints them")
    count = "runs until the time is over" if planned.n_runs is None else f"{planned.n_runs} runs"
    about = "" if planned.seconds is None else f", about {duration(planned.seconds)} with --workers {planned.workers}"
    print_line(f"{count}{about} (training steps alone, from a measured step)")


def _print_study(study: Study, report: Path) -> None:
    from convscope.study import setting_in_words

    ranking, metric = study.ranking(), study.spec.metric
    keys, lost = list(study.spec.sweep), any(each.not_finished for each in ranking)
    rows = [
        [
            f"{each.number:04d}",
            *(setting_in_words(each.settings.get(key, "")) for key in keys),
            f"{each.value:.4f}",
            str(each.n),
        ]
        + ([str(each.not_finished or "")] if lost else [])
        for each in ranking[:_MOST]
    ]
    print_line(f"{study.path}: the best settings by {metric}")
    print_table("", ["setting", *keys, f"mean {metric}", "runs", *(["not finished"] if lost else [])], rows)
    if len(ranking) > _MOST:
        print_line(f"… {len(ranking)} settings in all")
    for run in study.runs:
        if run.message:
            print_line(f"{run.path.name} {run.state}: {run.message}")
    print_line(f"report: {report}")
    print_line(f"next: convscope table {quote(str(study.path))}")
