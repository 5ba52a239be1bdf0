"""convscope data: what is in a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convscope.base.words import shape_text
from convscope.cli.options import Json, SkipBad
from convscope.cli.show import print_json, print_line, print_table
from convscope.errors import SettingError

if TYPE_CHECKING:
    from convscope.data import DataBundle


_IMBALANCE = 10  # times the images of the smallest class


def data(
    name: Annotated[
        str | None, typer.Argument(help="A name (mnist …), a path, or hub:owner/name; all names if left out.")
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="A setting such as image_size=64; may be given several times."),
    ] = [],  # noqa: B006 (typer copies it)
    skip_bad: SkipBad = False,
    json: Json = False,
) -> None:
    """Tell what is in a data set.

    It is decoded into the cache if need be."""
    from convscope.data import data_names, load_data
    from convscope.runs import parse_overrides

    if name is None:
        names = data_names()
        if json:
            print_json(names)
        else:
            print_table("data sets by name", ("name", ""), list(names.items()), left=2, text=True)
        return
    settings = parse_overrides(set_) | ({"skip_bad": True} if skip_bad else {})
    if "source" in settings:
        raise SettingError("--set source: the data set is named by the first argument; leave it out")
    bundle = load_data(name, **settings)
    if json:
        print_json(_facts(bundle))
    else:
        _print(bundle)


def _facts(bundle: DataBundle) -> dict[str, Any]:
    splits = {"train": bundle.train, "val": bundle.val, "test": bundle.test}
    return {
        "name": bundle.name,
        "source": bundle.source,
        "layout": list(bundle.layout),
        "input": list(bundle.input_shape),
        "images": {name: len(split) for name, split in splits.items()},
        "classes": {target: list(names) for target, names in bundle.train.classes.items()},
        "mean": list(bundle.mean),
        "std": list(bundle.std),
        "duplicates": bundle.duplicates,
        "left_out": [{"file": file, "reason": reason} for file, reason in bundle.left_out],
        "digest": bundle.digest,
    }


def _print(bundle: DataBundle) -> None:
    facts = _facts(bundle)
    counts = ", ".join(f"{n:,} {split}" for split, n in facts["images"].items())
    print_line(f"{bundle.name}: {counts} images of {shape_text(bundle.input_shape)}, from {bundle.source}")
    for line in bundle.layout:
        print_line(f"  {line}")
    per_class = {
        s: getattr(bundle, s).targets_of("class").bincount(minlength=len(bundle.classes)) for s in facts["images"]
    }
    rows = [(c, *(f"{int(per_class[s][k]):,}" for s in per_class)) for k, c in enumerate(bundle.classes)]
    print_table("images per class", ("class", *per_class), rows)
    _print_imbalance(bundle.classes, per_class["train"].tolist())
    if bundle.duplicates:
        print_line(f"{bundle.duplicates} training images are also test images and were left out")
    for file, reason in bundle.left_out:
        print_line(f"left out: {file}: {reason}")


def _print_imbalance(classes: Sequence[str], images: Sequence[int]) -> None:
    """A line where the largest class has many times the training images of the smallest."""

    present = sorted((n, name) for n, name in zip(images, classes, strict=True) if n)
    if present and present[-1][0] >= _IMBALANCE * present[0][0]:
        (least, smallest), (most, largest) = present[0], present[-1]
        print_line(
            f"class imbalance: {most / least:,.0f} times as many training images of {largest} as of {smallest}; "
            "try recipe.class_weights: balanced, or recipe.sampling: balanced"
        )
