"""convscope predict: the class of each of new images."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from convscope.cli import options
from convscope.errors import SettingError


def predict(
    run: options.RunDir,
    images: Annotated[
        list[str],
        typer.Argument(metavar="FILE|FOLDER…", help="Image files and folders of them; - reads names from stdin."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Write there: .csv, .tsv, .jsonl or .parquet. A folder takes a parquet file for each shard of the images, "
            "also of those in parquet files, and the same command goes on after a kill.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", min=1, help="The K most probable classes of each image.")] = 1,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Add a column for each class.")] = False,
    tta: Annotated[
        str,
        typer.Option(
            metavar="VIEW,…",
            help="Mean over changed images: mirror, shifts (four ways, by a sixteenth of the side), or mirror,shifts.",
        ),
    ] = "",
    explain: Annotated[
        str | None,
        typer.Option(metavar="LENS", help="Write a page with the map of each answer, such as grad_cam; see --page."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of that page; predictions.html if left out.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 where a file could not be read.")] = False,
    device: options.Device = "auto",
    trust_code: options.TrustCode = False,
    workers: options.Workers = None,
    ray: options.RayAddress = None,
    cpus_per_run: options.CpusPerRun = 1,
    gpus_per_run: options.GpusPerRun = 0.0,
    allow_different: options.AllowDifferent = False,
    json: options.Json = False,
) -> int:
    """Classify new images with a trained run.

    Files are resized and normalised as in training. One row an image: file, class, probability. Without --out the rows are
    CSV on stdout; the count of each class, and files that cannot be read, are on stderr."""
    from convscope.cli.predictions import form_of, write_parts, write_rows
    from convscope.compute import Executor, LocalProcesses

    if page and explain is None:
        raise SettingError("--page: it is the page of --explain; give both")
    views = [view.strip() for view in tta.split(",") if view.strip()]
    how: dict[str, Any] = {"top": top, "probabilities": probabilities, "views": views, "device": device}
    if out is not None and (out.is_dir() or not out.suffix):
        if explain or json:
            raise SettingError(
                f"--out {out}: a folder has neither a page nor JSON; give a file with --explain or --json"
            )
        with (
            options.cluster(ray, cpus_per_run, gpus_per_run, allow_different, workers) as cluster,
            nullcontext(cluster) if cluster else LocalProcesses(workers) if workers else Executor() as executor,
        ):
            trained = options.opened(run, trust_code)
            problems = write_parts(trained, images, out, executor, **how)
        return 1 if strict and problems else 0
    if ray or workers:
        raise SettingError("--workers and --ray share out the shards of a large set; give --out a folder for them")
    form, trained = form_of(out, json), options.opened(run, trust_code)
    problems = write_rows(trained, images, out, form, explain, page or Path("predictions.html"), **how)
    return 1 if strict and problems else 0
