"""convscope conv: convolutions by hand, from shapes or from numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from convscope.cli.options import Json
from convscope.errors import SettingError

_NUMBERS = "'1 2; 3 4 | 5 6; 7 8' (rows, channels), or a .csv, .npy or .yaml file"


def conv(
    input: Annotated[
        str | None,
        typer.Argument(
            metavar="CxHxW", help="Shape of the input, such as 3x32x32; or height, width, channels: 32x32x3."
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LAYER",
            help="Layers one after another: c64k3p0 M t32. c convolution, t transposed, M max and A average pool, G global "
            "pool, f dense; k kernel, s stride, p padding, d dilation, g groups, o output padding: k3 or k3x5.",
        ),
    ] = None,
    filters: Annotated[
        int | None,
        typer.Option(metavar="N", help="In place of LAYER: one convolution with so many filters."),
    ] = None,
    pool: Annotated[str | None, typer.Option(metavar="max|average", help="In place of LAYER: one pool.")] = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="K", help="Size of the window: 3, or 3x5, rows×columns.")
    ] = None,
    stride: Annotated[
        str | None,
        typer.Option(metavar="S", help="Step of the window: 2, or 2x1; if left out 1, of a pool the kernel."),
    ] = None,
    padding: Annotated[
        str | None,
        typer.Option(metavar="P", help="Zeros around the input: a number, 1x2, same or valid; 0 if left out."),
    ] = None,
    dilation: Annotated[
        str | None, typer.Option(metavar="D", help="Distance of the taps: 2, or 2x1; 1 if left out.")
    ] = None,
    groups: Annotated[int | None, typer.Option(metavar="G", help="Groups of a convolution, 1 if left out.")] = None,
    transposed: Annotated[bool, typer.Option("--transposed", help="Transposed convolution, which enlarges.")] = False,
    output_padding: Annotated[
        str | None,
        typer.Option(metavar="O", help="Rows and columns added to its output: 1, or 1x0; 0 if left out."),
    ] = None,
    no_bias: Annotated[bool, typer.Option("--no-bias", help="Convolution without biases.")] = False,
    order: Annotated[
        Literal["chw", "hwc"] | None,
        typer.Option(help="Order of the input's shape: channels first or last, where it can be read either way."),
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="NUMBERS", help=f"Work it out on numbers: {_NUMBERS}.")] = None,
    filter: Annotated[
        str | None,
        typer.Option(metavar="NUMBERS", help="The filter in the same form; several with || between them."),
    ] = None,
    bias: Annotated[str | None, typer.Option(metavar="NUMBERS", help="A number for each filter.")] = None,
    example: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="An example that is there: report-e, edges, upsample; or your .yaml file.",
        ),
    ] = None,
    window: Annotated[
        str | None, typer.Option(metavar="ROW,COLUMN", help="Show only this position of the output.")
    ] = None,
    unit: Annotated[int | None, typer.Option(metavar="N", help="Show only this unit of the output.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture of the windows: .svg or .png.")] = None,
    json: Json = False,
) -> None:
    """Work a convolution out by hand.

    From a shape: output shape, parameters, multiply-adds and receptive field, with the formulas. From numbers: every product
    and sum of each window."""
    from convscope.cli import show_conv

    settings: dict[str, Any] = {
        "pool": pool,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "transposed": transposed or None,
        "output_padding": output_padding,
    }
    if image is not None or example is not None:
        refused: dict[str, object] = {
            "INPUT": input,
            "--filters": filters,
            "--order": order,
            "--no-bias": no_bias or None,
        }
        _refuse(refused, "numbers (--image or --example)")
        show_conv.worked(example, window, unit, out, json, {**settings, "image": image, "filter": filter, "bias": bias})
        return
    refused = {"--filter": filter, "--bias": bias, "--window": window, "--unit": unit, "--out": out}
    _refuse(refused, "a shape; they need numbers: --image or --example")
    if input is None:
        raise SettingError(
            "conv: expected a shape, such as 3x32x32 c64 M, or numbers: --example report-e, --image '1 2; 3 4'"
        )
    show_conv.sizes(
        input, order, layers or [], {**settings, "filters": filters, "bias": None if not no_bias else False}, json
    )


def _refuse(options: Mapping[str, object], what: str) -> None:
    names = [name for name, value in options.items() if value is not None]
    if names:
        raise SettingError(f"{', '.join(names)}: not with {what}; leave one of both out")
