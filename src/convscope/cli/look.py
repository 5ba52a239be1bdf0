"""convscope look: one analysis of a network, on an image or on the test images."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from convscope.cli.options import AllowDifferent, CpusPerRun, Json, RayAddress, TrustCode, cluster, opened
from convscope.cli.show import json_rows, print_frame, print_json, print_line
from convscope.errors import SettingError


class Look(TyperCommand):
    """The command, whose options are those of its analysis, too; they come from the catalogue."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from convscope.analyses import find, names, option_of

        super().format_options(ctx, formatter)
        rows, settings = [], dict[str, str | None]()
        for each in map(find, names()):
            own = {option_of(name): field.description for name, field in each.request.model_fields.items()}
            rows.append((each.name, f"{each.about} ({', '.join(own)})" if own else each.about))
            settings |= own
        with formatter.section("Lenses and scans"):
            formatter.write_dl(rows)
        with formatter.section("Their options"):
            formatter.write_dl(sorted(settings.items()))


_FLAGS = ("--allow-different", "--json", "--list", "--pretrained", "--trust-code")

COMMAND: dict[str, Any] = {"cls": Look, "context_settings": {"ignore_unknown_options": True}}
"""How Typer is to make the command."""


def look(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[RUN] LENS [ITS OPTIONS]",
            help="A run's folder, unless --net is given; then a lens on an image, or a scan of the test images.",
        ),
    ] = [],  # noqa: B006 (typer copies it)
    image: Annotated[
        str | None, typer.Option(metavar="FILE|INDEX", help="A file, or a test image by its number or name.")
    ] = None,
    edit: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='Edits of the image before the lens: a list such as [["rectangle", [0, 0, 8, 8], "grey"], ["rotate", 15]].',
        ),
    ] = None,
    net: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A network that is no run: timm:NAME, torchvision:NAME, module:callable, or a name of the catalogue.",
        ),
    ] = None,
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained", help="With --net: with the trained weights that its library has; else they are random."
        ),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="With --net: seed of the random weights, 0 if left out.")
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="With --net: an option of the network; may be given several times."
        ),
    ] = [],  # noqa: B006 (typer copies it)
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --net: its weights, a .safetensors file.")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(metavar="CxHxW", help="With --net: shape of the images, the network's own if left out."),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="M,…",
            help="With --net: mean that images are normalised by, a number a channel; the network's own if left out.",
        ),
    ] = None,
    deviation: Annotated[
        str | None, typer.Option(metavar="D,…", help="With --net: standard deviation, likewise.")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --net: names of the classes, one a line.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|INDEX",
            help="With --net: which of several results is the answer; the one called logits or out if left out.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The picture, a PNG; RUN/look-LENS.png if left out.")
    ] = None,
    raw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the tensors there, as safetensors.")
    ] = None,
    catalogue: Annotated[
        bool, typer.Option("--list", help="List the lenses and scans; with --json the schemas of their requests.")
    ] = False,
    trust_code: TrustCode = False,
    ray: RayAddress = None,
    cpus_per_run: CpusPerRun = 1,
    allow_different: AllowDifferent = False,
    json: Json = False,
) -> None:
    """Look at an image, or at all test images.

    Writes a picture: the image, the map over it and alone, and what the colours mean.
    """
    from convscope.analyses import look_at, open_subject
    from convscope.compute import using
    from convscope.runs import parse_overrides

    if catalogue:
        _print_catalogue(json)
        return
    names, settings = _split(words)
    if not 1 <= len(names) <= 2:
        raise SettingError(
            f"{' '.join(names) or 'look'}: expected a run's folder and a lens, such as runs/lines grad_cam"
        )
    run, lens = names if len(names) == 2 else (None, names[0])
    if net is None and run is None and Path(lens).is_dir():
        raise SettingError(f"{lens}: a run's folder without a lens; expected both, such as {lens} grad_cam")
    subject = open_subject(
        None if run is None else opened(Path(run), trust_code), net, weights, input, mean, deviation, classes,
        pretrained=pretrained, seed=seed, options=parse_overrides(set_), output=output,
    )  # fmt: skip
    with cluster(ray, cpus_per_run, 0.0, allow_different) as executor, using(executor):
        path, view = look_at(subject, lens, image, edit=edit, out=out, raw=raw, **settings)
    if json:
        values = {
            "picture": path,
            "heading": view.heading,
            "random_weights": subject.random_weights,
            "note": view.note,
            "raw": raw,
        }
        print_json(values | ({} if view.table is None else {"rows": json_rows(view.table)}))
    else:
        if view.table is not None:
            print_frame(view.table)
        note = f"note: {view.note}\n" if view.note else ""
        print_line(f"{view.heading}\n{note}picture: {path}")


def _split(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """What is named, and the options of the analysis: `--layer conv1` or `--layer=conv1`."""

    names, settings, rest = [], {}, iter(words)
    for word in rest:
        if not word.startswith("--"):
            names.append(word)
            continue
        if flag := get_close_matches(word, _FLAGS, n=1, cutoff=0.8):  # it would take the next word for its value
            raise SettingError(f"{word}: look has no such option; did you mean {flag[0]}?")
        option, equals, text = word[2:].partition("=")
        value = text if equals else next(rest, None)
        if not value:
            raise SettingError(f"{word}: expected a value after it")
        settings[option.replace("-", "_")] = value
    return names, settings


def _print_catalogue(json: bool) -> None:
    """Of each analysis what it looks at; as JSON with the schema of its request."""
    from convscope.analyses import find, names

    analyses = [find(name) for name in names()]
    if json:
        print_json([
            {"name": each.name, "about": each.about, "reads": each.reads, "request": each.request.model_json_schema()}
            for each in analyses
        ])  # fmt: skip
        return
    width = max(map(len, names()))
    print_line("\n".join(f"{each.name:{width}}  {each.about}" for each in analyses))
