"""convscope nets: the networks that can be named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from convscope.base.words import shape_text
from convscope.cli.options import Json
from convscope.cli.show import print_json, print_line, print_table

if TYPE_CHECKING:
    from convscope.nets import ListedNet, ListedZoo

_TAGS_SHOWN = 3


def nets(
    search: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="List those whose names hold TEXT, or match it: vit, 'timm:*lite*'."),
    ] = None,
    json: Json = False,
) -> None:
    """List the networks that can be named.

    The catalogue, and how many timm and torchvision have where they are installed. With --search all that match, with the
    size of their images and which weights they have; write such a name as --net NAME, and net.pretrained=true for its
    weights."""
    from convscope.nets import listed_catalogue, listed_zoos, searched

    own, zoos = listed_catalogue(), listed_zoos()
    networks = searched(search, own, zoos) if search is not None else own
    if json:
        libraries = [
            {
                "name": zoo.name,
                "networks": len(zoo.nets),
                "pretrained": zoo.n_pretrained,
                "problem": zoo.problem or None,
            }
            for zoo in zoos
        ]
        print_json({"networks": [net.to_json() for net in networks], "libraries": libraries})
        return
    _print(networks)
    lines = [_line(zoo) for zoo in zoos if zoo.problem or search is None]
    if search is None:
        lines.append("a plain text: --net 'c32b M c64b M f128'; a callable: --net package.module:callable")
    print_line("\n".join(lines))


def _line(zoo: ListedZoo) -> str:
    if zoo.problem:
        return zoo.problem
    counted = f"{zoo.name}: {len(zoo.nets):,} networks, {zoo.n_pretrained:,} with pretrained weights"
    return f"{counted}: --net {zoo.name}:NAME; convscope nets --search '{zoo.name}:*resnet*' lists some"


def _print(networks: list[ListedNet]) -> None:
    rows = [
        (
            net.name,
            shape_text(net.input),
            ", ".join(net.weights[:_TAGS_SHOWN]) + (" …" if len(net.weights) > _TAGS_SHOWN else ""),
            f"{net.parameters:,}" if net.parameters else "",
            net.about,
        )
        for net in networks
    ]
    columns = ("network", "images", "weights", "parameters", "")
    used = [n for n in range(len(columns)) if any(row[n] for row in rows)]
    left, about = sum(n < 3 for n in used), used[-1] == 4
    print_table("", [columns[n] for n in used], [[row[n] for n in used] for row in rows], left, text=about)
