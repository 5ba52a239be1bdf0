"""convscope export: a trained run as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.options import Json, RunDir, TrustCode, opened
from convscope.cli.show import print_json, print_line


def export(
    run: RunDir,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="onnx, torch (torch.export) or safetensors (weights alone); if left out by the ending of --out, else onnx.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file; model.onnx, model.pt2 or model-export.safetensors in the run folder if left out.",
        ),
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Leave the test images out, where the data are not at hand.")
    ] = False,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Write a trained run as one file, for use without convscope.

    ONNX and torch files take raw pixels, uint8 (N, height, width, 3) of any size, and give probabilities: resizing,
    normalisation and softmax are inside. All test images are run through the file; if one changes its class it is not kept."""
    from convscope.share import export_run

    exported = export_run(opened(run, trust_code), out, to, verify=not unverified)
    if json:
        print_json(exported.to_json())
        return
    print_line(f"{exported.format} file: {exported.path} ({exported.path.stat().st_size / 1e6:,.1f} MB)")
    if exported.images is None:
        print_line("not verified: no test image was run through it")
    else:
        print_line(
            f"verified: {exported.changed:,} of {exported.images:,} test images change their class; largest difference of a "
            f"probability {exported.largest_difference:.2g}"
        )
    print_line(f"use it, without convscope:\n\n{exported.example}")
