"""The activations of every unit over the test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from convscope import draw, scans
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import AnyLayer
from convscope.analyses.testset import TestSetRequest, chart
from convscope.analyses.view import View
from convscope.base.words import counted

if TYPE_CHECKING:
    from convscope.scans import LayerStatistics
    from convscope.scope import Scope


class Request(TestSetRequest):
    """Statistics of each unit's activations over the test images; dead units, units always on, units alike."""

    layer: AnyLayer = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> dict[str, LayerStatistics]:
    """Of a layer, by default of all convolutions."""
    return scope.statistics(inputs.test, [request.layer or "conv"])


def view(scope: Scope, request: Request, result: dict[str, LayerStatistics], inputs: Inputs) -> View:
    """How often each size of activation occurs, layer by layer, and a row for each unit; units that stand out, by name."""
    import pandas as pd

    table = pd.concat([one.table() for one in result.values()], ignore_index=True)
    if "best_class" in table:
        names = inputs.test.classes["class"]
        table["best_class"] = [names[k] if k >= 0 else "none" for k in table["best_class"]]
    size, notable = f"{counted(len(table), 'unit')} of {counted(len(result), 'layer')}", notable_units(result)
    counts = {name: one.histogram.sum(0).tolist() for name, one in result.items()}
    figures = [chart(draw.histograms(counts, scans.EDGES.tolist()))]
    tensors = {f"histogram.{name}": one.histogram for name, one in result.items()}
    title = f"{size}: how often each activation occurs"
    return View(f"{size}; {notable}", figures, tensors, table, title, notable, side=1)


def notable_units(result: Mapping[str, LayerStatistics], most: int = 4) -> str:
    """The dead units, those always on and the pairs alike: how many, and the first of them by name."""
    groups = {
        "dead": [f"{layer} {unit}" for layer, one in result.items() for unit in one.dead.nonzero()[:, 0].tolist()],
        "always on": [f"{layer} {u}" for layer, one in result.items() for u in one.saturated.nonzero()[:, 0].tolist()],
        "pairs alike": [
            f"{layer} {first} and {second} ({correlation:.2f})"
            for layer, one in result.items()
            for first, second, correlation in one.duplicates()
        ],
    }
    parts = []
    for kind, units in groups.items():
        more = ", …" if len(units) > most else ""
        parts.append(f"{kind}: {len(units)}" + (f" ({', '.join(units[:most])}{more})" if units else ""))
    return "; ".join(parts)
