"""convscope look: one lens on one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convscope.cli.options import Json, TrustCode, opened


def look(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] LENS",
            help="A run's folder, unless --net is given; then filters, activations, saliency, guided_backprop, grad_cam, "
            "occlusion, maximize, receptive_field …; or a scan of the test images: top_patches, statistics, faithfulness …",
        ),
    ],
    image: Annotated[
        str | None, typer.Option("--image", metavar="FILE|INDEX", help="A file, or a test image by number.")
    ] = None,
    layer: Annotated[str | None, typer.Option("--layer", help="A layer's name; convscope anatomy lists them.")] = None,
    unit: Annotated[
        str | None,
        typer.Option("--unit", metavar="N|max", help="A unit of the layer; max: the one that answers the image most."),
    ] = None,
    position: Annotated[
        str | None, typer.Option("--position", metavar="ROW,COLUMN|max", help="A neuron of the unit.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="A class by name or number (of several heads angle=45°, or angle); the most probable by default.",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="K,…", help="Of the occluding square in pixels: 5, 4x8, or several.")
    ] = None,
    stride: Annotated[int | None, typer.Option("--stride", help="Of the square in pixels.", min=1)] = None,
    fill: Annotated[
        str | None, typer.Option("--fill", help="Of the square: grey, mean, zero, blur, or a number in 0 … 1.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="LENS", help="The lens to examine: grad_cam by default.")
    ] = None,
    n: Annotated[int | None, typer.Option("--images", help="How many test images to examine it on.", min=1)] = None,
    top: Annotated[int | None, typer.Option("--top", help="How many of the strongest images.", min=1)] = None,
    units: Annotated[
        str | None, typer.Option("--units", metavar="LAYER:UNIT,…", help="To switch off together: 'conv1:0,1 conv3:7'.")
    ] = None,
    how: Annotated[
        str | None,
        typer.Option(
            "--how",
            metavar="HOW",
            help="To switch off by zero_activation, where the next layer reads the unit (default), mean_activation there, or "
            "zero_weights.",
        ),
    ] = None,
    screen: Annotated[
        int | None,
        typer.Option(
            "--screen", help="Of each layer measure only so many units, those that an estimate names first.", min=1
        ),
    ] = None,
    net: Annotated[
        str | None,
        typer.Option(
            "--net",
            metavar="NAME",
            help="A network that is no run: timm:NAME, torchvision:NAME, module:callable, or a name of the catalogue.",
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="With the trained weights that its library has; else they are random.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Of random weights; 0 by default.")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Of its builder; may be given several times.")
    ] = [],  # noqa: B006 (typer copies it)
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="Its .safetensors file.")] = None,
    input: Annotated[
        str | None,
        typer.Option("--input", metavar="CxHxW", help="The shape of its images; the network's own by default."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option("--mean", metavar="M,…", help="Its normalisation, by channel; the network's own by default."),
    ] = None,
    deviation: Annotated[str | None, typer.Option("--deviation", metavar="D,…", help="Likewise.")] = None,
    classes: Annotated[
        Path | None, typer.Option("--classes", metavar="FILE", help="Names of its classes, one a line.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="NAME|INDEX",
            help="Which of its several results is the answer; logits or out by default.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The picture, a PNG; RUN/look-LENS.png by default.")
    ] = None,
    raw: Annotated[Path | None, typer.Option("--raw", metavar="FILE", help="The tensors as safetensors.")] = None,
    trust_code: TrustCode = False,
    json: Json = False,
) -> None:
    """Look at an image through a lens.

    Writes a picture: the image, the map over it and alone, and what the colours mean.
    """
    from convscope.cli.show import json_rows, print_frame, print_json, print_line
    from convscope.errors import SettingError
    from convscope.looks import look_at, open_subject
    from convscope.runs import parse_overrides

    if len(names) > 2:
        raise SettingError(f"{' '.join(names)}: expected a run's folder and a lens, such as runs/lines grad_cam")
    run, lens = names if len(names) == 2 else (None, names[0])
    subject = open_subject(
        None if run is None else opened(Path(run), trust_code), net, weights, input, mean, deviation, classes,
        pretrained=pretrained, seed=seed, options=parse_overrides(set_), output=output,
    )  # fmt: skip
    written, found = look_at(
        subject,
        lens,
        image,
        layer,
        unit,
        position,
        target,
        size,
        stride,
        fill,
        method,
        n,
        top,
        units,
        how,
        screen,
        out,
        raw,
    )
    if json:
        rows = {} if found.table is None else {"rows": json_rows(found.table)}
        about = {
            "picture": str(written),
            "heading": found.heading,
            "random_weights": subject.random_weights,
            "note": found.note,
        }
        print_json(about | {"raw": str(raw) if raw else None} | rows)
    else:
        if found.table is not None:
            print_frame(found.table)
        note = f"note: {found.note}\n" if found.note else ""
        print_line(f"{found.heading}\n{note}picture: {written}")
