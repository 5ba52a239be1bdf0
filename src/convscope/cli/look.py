"""convscope look: one lens on one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.options import Json


def look(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, such as runs/lines.")],
    lens: Annotated[
        str, typer.Argument(metavar="LENS", help="filters, activations, saliency, guided_backprop, grad_cam …")
    ],
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE|INDEX", help="A file, or a test image by number.")
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", help="A layer's name; convscope anatomy lists them.")] = None,
    unit: Annotated[int | None, typer.Option("--unit", help="A unit of the layer.")] = None,
    position: Annotated[
        str | None, typer.Option("--position", metavar="ROW,COLUMN|max", help="A neuron of the unit.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="A class by name or number; the most probable by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The picture, a PNG; RUN/look-LENS.png by default.")
    ] = None,
    raw: Annotated[Path | None, typer.Option("--raw", metavar="FILE", help="The tensors as safetensors.")] = None,
    json: Json = False,
) -> None:
    """Look at an image through a lens.

    Writes a picture: the image, the map over it and alone, and what the colours mean.
    """
    from convscope.cli.show import print_json, print_line
    from convscope.report import look_at_run

    written, found = look_at_run(run, lens, image, layer, unit, position, target, out, raw)
    if json:
        print_json({"picture": str(written), "heading": found.heading, "raw": str(raw) if raw else None})
    else:
        print_line(f"{found.heading}\npicture: {written}")
