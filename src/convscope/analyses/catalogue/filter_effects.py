"""The effect of ablating each unit alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from convscope import analyses, draw, lenses
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import AnyLayer, How
from convscope.analyses.testset import SampleRequest, chart
from convscope.analyses.view import View
from convscope.base.words import counted

if TYPE_CHECKING:
    import pandas as pd

    from convscope.scans import LayerEffects
    from convscope.scope import Scope


class Request(SampleRequest):
    """Ablation of each unit alone: how much accuracy it is worth on the test images."""

    default_images = 1000

    layer: AnyLayer = None
    how: How = None
    screen: Annotated[
        int | None,
        Field(
            ge=1, description="Of each layer measure only so many units, those that a first-order estimate names first."
        ),
    ] = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> dict[str, LayerEffects]:
    """On 1,000 test images by default, of a layer or of all convolutions."""
    layers = lenses.select_layers(scope.graph, [request.layer or "conv"])
    plan = analyses.ablation_plan(scope, layers, request.how)
    return plan.effects(request.sample(inputs.test), dict.fromkeys(layers), request.screen)


def view(scope: Scope, request: Request, result: dict[str, LayerEffects], inputs: Inputs) -> View:
    """A point a unit, a line a layer; in the table those come first without which most is lost."""
    import pandas as pd

    plan = analyses.ablation_plan(scope, result, request.how)
    table = pd.concat([one.table() for one in result.values()], ignore_index=True)
    table.insert(2, "off", [plan.in_layer(layer) for layer in table["layer"]])
    n_units, table = len(table), table[table["measured"]]
    rows = table.rename(columns={"layer": "name", "change": "value"})[["name", "value"]]
    figures = [
        chart(draw.changes(rows.assign(low=rows["value"], high=rows["value"]), "change of accuracy without the unit"))
    ]
    table = table.sort_values("change", kind="stable")
    everything = len(table) == n_units
    measured = f"each of {n_units}" if everything else f"{len(table)} of {n_units}"
    selection = None if everything else f"in each layer the {request.screen} that an estimate names first"
    procedure = f"{measured} units ablated, each alone ({plan.words})"
    outcome = f"on {counted(len(request.rows(inputs.test)), 'test image')}: {largest_loss(table)}"
    tensors = {f"accuracy_after.{name}": one.accuracy_after for name, one in result.items()}
    heading = ", ".join(filter(None, (procedure, selection, outcome)))
    return View(heading, figures, tensors, table, f"{procedure}, {outcome}", selection, side=1)


def largest_loss(ranked: pd.DataFrame) -> str:
    """Without which unit most accuracy is lost, where any is."""
    worst = ranked.iloc[0]
    if worst["change"] >= 0:
        return "none of them lowers the accuracy"
    return (
        f"accuracy falls most without unit {worst['unit']} of {worst['layer']}, by {-100 * worst['change']:.1f} points"
    )
