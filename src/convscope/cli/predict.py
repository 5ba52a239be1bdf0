"""convscope predict: the class of each of new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.options import Device, Json, RunDir, TrustCode, opened


def predict(
    run: RunDir,
    images: Annotated[
        list[str],
        typer.Argument(metavar="FILE|FOLDER…", help="Image files and folders of them; - reads names from stdin."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write there: .csv, .tsv, .jsonl or .parquet.")
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="So many classes of each image.")] = 1,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="A column for each class.")] = False,
    tta: Annotated[
        str,
        typer.Option(
            "--tta", metavar="VIEW,…", help="Mean over changed images: mirror, shifts (by a sixteenth, four ways)."
        ),
    ] = "",
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="LENS", help="Write a page with each answer's map, see --page.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="The page of --explain; predictions.html if left out.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 where a file could not be read.")] = False,
    device: Device = "auto",
    trust_code: TrustCode = False,
    json: Json = False,
) -> int:
    """Classify new images with a trained run.

    Files are resized and normalised as in training. One row an image: file, class, probability. Without --out the rows are
    CSV on stdout; the count of each class, and files that cannot be read, are on stderr."""
    from convscope.cli.predictions import Answers, RowWriter
    from convscope.data import without_warnings
    from convscope.errors import SettingError
    from convscope.runs import predict_batches

    if page and explain is None:
        raise SettingError("--page: it is the page of --explain; give both")
    writer = RowWriter(out, json)
    one, views = opened(run, trust_code), [view.strip() for view in tta.split(",") if view.strip()]
    answers = Answers(one, images, explain, page or Path("predictions.html"))
    batches = predict_batches(one, answers.files, top=top, probabilities=probabilities, views=views, device=device)
    with without_warnings():
        writer.write(answers.counted(batches))
        answers.conclude(out)
    return 1 if strict and answers.problems else 0
