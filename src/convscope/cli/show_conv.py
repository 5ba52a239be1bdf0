"""What convscope conv prints: layers on paper, and windows of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text

from convscope import courses
from convscope.base.console import open_console
from convscope.base.words import shape_text
from convscope.cli.show import print_json, print_line, print_table
from convscope.courses import Chain, ChainStep, Worked, WorkedWindow, number, window_in_words
from convscope.errors import SettingError

if TYPE_CHECKING:
    from convscope.courses import Order

MOST, MOST_ROWS = 16, 24
"""Windows on one screen, and rows of numbers."""
_PAIRS = ("kernel", "stride", "dilation", "output_padding")
_ORDERS: dict[str, str] = {"chw": "channels×height×width", "hwc": "height×width×channels"}


def sizes(text: str, order: Order | None, layers: Sequence[str], one: dict[str, Any], as_json: bool) -> None:
    """Layers on paper: words one after another, or one layer by its settings."""
    shape, layout = courses.read_shape(text, order)
    chain = _chain(shape, layers, {key: value for key, value in one.items() if value is not None})
    if as_json:
        print_json({"input": text, "read_as": _ORDERS[layout], **chain.to_json()})
        return
    other = "chw" if layout == "hwc" else "hwc"
    doubt = (
        order is None
        and "@" not in text
        and len({*shape}) > 1
        and text.count("x") + text.count("×") + text.count(",") == 2
    )
    hint = f", read as {_ORDERS[layout]}; --order {other} for {_ORDERS[other]}" if doubt else ""
    channels = f"{shape[0]} channel{'' if shape[0] == 1 else 's'}"
    print_line(f"input: {channels} of {shape[1]}×{shape[2]}{hint}\n")
    if layers:
        _print_chain(chain)
    else:
        _print_layer(chain.steps[0])


def worked(
    example: str | None, window: str | None, unit: int | None, out: Path | None, as_json: bool, settings: dict[str, Any]
) -> None:
    """A worked example: its windows as a table, as JSON, and as a picture."""
    worked_example = courses.worked_example(example, **settings)
    chosen = _chosen(worked_example, window, unit)
    if out:
        _draw(worked_example, chosen, out)
    if as_json:
        print_json(worked_example.to_json(chosen) | ({"picture": out} if out else {}))
        return
    _print_worked(worked_example, chosen)
    if out:
        print_line(f"\npicture: {out}")
    elif example == "report-e" and not any(settings.values()):
        print_line("\nwith zero padding: --padding same; dilated: --padding same --dilation 2; pooled: --pool max")


def _chain(shape: tuple[int, int, int], layers: Sequence[str], settings: dict[str, Any]) -> Chain:
    if layers and settings:
        options = ", ".join(map(_option, settings))
        raise SettingError(
            f"{options}: not with layers as words; write {layers[0]} with letters behind, such as c64k3s2p1"
        )
    if layers:
        return courses.chain(shape, " ".join(layers))
    for key in (*_PAIRS, "padding"):
        if key in settings:
            parse = courses.padding if key == "padding" else courses.pair
            settings[key] = parse(_option(key), settings[key])
    if "pool" in settings:
        kind = settings.pop("pool")
        for key in settings:
            if key not in ("kernel", "stride", "padding", "dilation"):
                raise SettingError(f"{_option(key)}: it does not go with a pool; leave it out")
        return courses.pool(shape, kind, **settings)
    if "filters" not in settings:
        raise SettingError(
            "conv: which layer? write words behind the shape, such as c64k3s2, or --filters 64, or --pool max"
        )
    return courses.conv(shape, **settings)


def _option(key: str) -> str:
    return "--no-bias" if key == "bias" else f"--{key.replace('_', '-')}"


def _print_chain(chain: Chain) -> None:
    columns = ("layer", "window", "output", "parameters", "multiply-\nadds", "field", "step")
    rows = [
        (step.name, " ".join(window_in_words(step, short=True)) or step.kind.replace("_", " "), *step.figures)
        for step in chain.steps
    ]
    print_table("", columns, rows, left=2)
    print_line(f"\n{chain.parameters:,} parameters, {chain.multiply_adds:,} multiply-adds an image")
    print_line("field: the receptive field; step: from one position's field to the next; both in pixels\n")
    for step in chain.steps:
        for name, formula in _sizes_of(step):
            print_line(f"  {step.name:7} {name:14} {formula}")


def _print_layer(step: ChainStep) -> None:
    channels, height, width = step.output_shape
    maps = f"{channels} map{'' if channels == 1 else 's'} of {height}×{width}"
    print_line(f"{step.kind.replace('_', ' ')} {', '.join(window_in_words(step))}")
    print_line(f"output: {maps}; {channels}×{height}×{width}, as {_ORDERS['hwc']} {height}×{width}×{channels}\n")
    formulas = dict(step.formulas)
    lines = [*_sizes_of(step), *((key, formulas[key]) for key in ("parameters", "multiply_adds") if key in formulas)]
    field = shape_text(step.receptive_field)
    pace = "" if step.stride is None else f" pixels, {step.figures[-1]} from one position to the next"
    for name, text in [*lines, ("receptive field", f"{field}{pace}")]:
        print_line(f"  {name.replace('multiply_adds', 'multiply-adds'):16} {text}")


def _sizes_of(step: ChainStep) -> list[tuple[str, str]]:
    """The formulas of height and width; one where they are the same."""
    formulas = step.formulas
    if "height" not in formulas:
        return []
    if formulas["height"] == formulas["width"]:
        return [("height, width", formulas["height"])]
    return [("height", formulas["height"]), ("width", formulas["width"])]


def _chosen(example: Worked, window: str | None, unit: int | None) -> list[WorkedWindow]:
    if window is None:
        return example.windows(unit)
    parts = window.replace(";", ",").split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise SettingError(f"--window: {window!r}; expected row and column of the output from 0, such as 1,2")
    row, column = map(int, parts)
    units = range(example.step.output_shape[0]) if unit is None else [unit]
    return [example.window(one, row, column) for one in units]


def _draw(example: Worked, chosen: Sequence[WorkedWindow], out: Path) -> None:
    from convscope.courses import worked_drawing, worked_picture
    from convscope.runs import write_whole

    kind = out.suffix.lower()
    if kind not in (".svg", ".png"):
        raise SettingError(f"--out: {out} ends with {kind or 'nothing'}; expected .svg or .png")
    content = worked_picture(example, chosen) if kind == ".png" else worked_drawing(example, chosen).encode("utf-8")
    write_whole(out, content)


def _print_worked(example: Worked, chosen: Sequence[WorkedWindow]) -> None:
    console = open_console(highlight=False, markup=False)
    console.print(Text(courses.in_words(example), "bold"), *example.notes, sep="\n", soft_wrap=True)
    inputs = [_matrix(name, one) for name, one in zip(example.channels, example.image, strict=True)]
    units = list(dict.fromkeys(window.unit for window in chosen))
    console.print("\ninput", Columns(inputs, padding=(0, 4)), sep="\n")
    if example.weight is not None:
        for unit in units:
            bias = f", bias {number(example.bias[unit])}" if example.bias.any() else ""
            names = [example.channels[n] for n in example.window(unit).channels]
            kernels = [_matrix(name, one) for name, one in zip(names, example.filter(unit), strict=True)]  # type: ignore[arg-type]
            console.print(f"\nfilter{_of(example, unit)}{bias}", Columns(kernels, padding=(0, 4)), sep="\n")
    console.print(_products(example, chosen[:MOST]))
    if len(chosen) > MOST:
        console.print(f"… {len(chosen)} windows in all; --window ROW,COLUMN shows one, --json all")
    outputs = [_matrix(f"output{_of(example, unit)}", example.output[unit]) for unit in units]
    console.print(Columns(outputs, padding=(0, 4)))


def _of(example: Worked, unit: int) -> str:
    if example.step.output_shape[0] == 1:
        return ""
    return f" {example.channels[unit]}" if example.weight is None else f" of unit {unit}"


def _matrix(name: str, numbers: np.ndarray) -> Group:
    """Numbers in rows; of large ones the first rows and the columns that the terminal has room for, and how many there are."""
    cells = [list(map(number, row)) for row in numbers[:MOST_ROWS]]
    widths = accumulate(max(map(len, column)) + 2 for column in zip(*cells, strict=True))
    fit = max(1, sum(width <= open_console().width + 2 for width in widths))
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    for _ in range(fit):
        table.add_column(justify="right", no_wrap=True)
    for row in cells:
        table.add_row(*row[:fit])
    parts: list[Text | Table] = [Text(name, "dim")] if name else []
    parts.append(table)
    if numbers.shape != (len(cells), fit):
        parts.append(Text(f"… {shape_text(numbers.shape)} in all; --json prints them", "dim"))
    return Group(*parts)


def _products(example: Worked, chosen: Sequence[WorkedWindow]) -> Table:
    table, named = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1)), any(example.channels)
    table.add_column("row,\ncolumn", no_wrap=True)
    if named:
        table.add_column("channel", no_wrap=True)
    table.add_column("window" if example.weight is None else "input · weight", ratio=1)
    table.add_column("largest" if example.step.kind == "max_pool" else "sum", justify="right", no_wrap=True)
    for window in chosen:
        several = example.step.output_shape[0] > 1 and example.weight is not None
        place = f"{f'{window.unit}: ' if several else ''}{window.row}, {window.column}"
        for n, channel in enumerate(window.channels):
            name = [example.channels[channel]] if named else []
            table.add_row("" if n else place, *name, _terms(example, window, n), number(window.per_channel[n]))
        terms, equals, value = courses.add_up(window).rpartition(" = ")
        if equals:
            table.add_row(*[""] * (len(table.columns) - 2), Text(terms, "bold"), Text(value, "bold"))
        table.add_section()
    return table


def _terms(example: Worked, window: WorkedWindow, n: int) -> Text:
    """The products of one channel, padding in grey."""
    parts, pool = [], example.weight is None
    for t, row in enumerate(window.rows):
        for u, column in enumerate(window.columns):
            value = window.inputs[n, t, u]
            if np.isnan(value):
                continue
            weight = number(window.weights[n, t, u])
            term = number(value) if pool else f"{number(value)}·{f'({weight})' if weight[0] == '−' else weight}"
            inside = row in range(example.image.shape[1]) and column in range(example.image.shape[2])
            parts.append(Text(term, "" if inside else "dim"))
    return Text(", " if example.step.kind == "max_pool" else " + ").join(parts) if parts else Text("nothing", "dim")
