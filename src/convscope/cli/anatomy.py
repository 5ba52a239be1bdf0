"""convscope anatomy: a row per operation of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from convscope.base.words import shape_text
from convscope.cli.options import Json
from convscope.cli.show import print_json, print_line, print_table

if TYPE_CHECKING:
    from convscope.graph import Anatomy


def anatomy(
    net: Annotated[
        str,
        typer.Argument(help="A name of the catalogue, a plain text, timm:NAME, torchvision:NAME or module:callable."),
    ],
    input: Annotated[
        str | None, typer.Option(metavar="CxHxW", help="Shape of the images; the network's own by default.")
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the network; may be given several times."),
    ] = [],  # noqa: B006 (typer copies it)
    json: Json = False,
) -> None:
    """Print a table of a network's operations.

    Shapes, parameters, neurons, multiply-adds and receptive fields."""
    from convscope.runs import parse_overrides
    from convscope.study import anatomy_by_name

    table = anatomy_by_name(net, input, parse_overrides(set_))
    if json:
        print_json(table.to_json())
    else:
        _print(table)


def _print(table: Anatomy) -> None:
    columns = ("layer", "kind", "output", "parameters", "neurons", "multiply-\nadds", "receptive\nfield", "stride")
    print_table(
        f"{table.network} on {shape_text(table.input)}",
        columns,
        [_row(layer) for layer in table.to_json()["layers"]],
        left=2,
    )
    print_line(
        f"\n{table.parameters:,} parameters ({table.trainable:,} trainable), {table.neurons:,} neurons, "
        f"{table.multiply_adds:,} multiply-adds an image"
    )
    parts = {"convolutional": table.convolutional, "recurrent": table.recurrent, "dense": table.dense}
    for kind, part in parts.items():
        if kind == "recurrent" and not part.parameters:
            continue
        print_line(
            f"  {kind:13} {part.parameters:>12,} parameters ({100 * part.parameters_share:.2f} %) "
            f"{part.neurons:>10,} neurons ({100 * part.neurons_share:.2f} %)"
        )
    if table.note:
        print_line(f"note: {table.note}")


def _row(layer: dict[str, Any]) -> tuple[str, ...]:
    count = (f"{layer[key]:,}" if layer[key] else "" for key in ("parameters", "neurons", "multiply_adds"))
    sides = [
        "" if side is None else shape_text(side) if isinstance(side, list) else str(side)
        for side in (layer["receptive_field"], layer["stride"])
    ]
    return (layer["name"], layer["kind"], shape_text(layer["output_shape"]), *count, *sides)
