"""Ablation of chosen units, together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import analyses, draw, lenses
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import How, Units
from convscope.analyses.testset import SampleRequest, chart
from convscope.analyses.view import View
from convscope.base.words import counted
from convscope.errors import RequestError

if TYPE_CHECKING:
    from convscope.scans import Ablation, Estimate
    from convscope.scope import Scope


class Request(SampleRequest):
    """Ablation of chosen units together: what it does to each class of the test images, and to the confusion matrix."""

    units: Units = None
    how: How = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> Ablation:
    """On all test images by default."""
    images = request.sample(inputs.test) if request.images else inputs.test
    units = request.units or _first_units(scope)
    return analyses.ablation_plan(scope, units, request.how).ablation(images, units)


def view(scope: Scope, request: Request, result: Ablation, inputs: Inputs) -> View:
    """The difference in accuracy of each class, and the change of the confusion matrix."""
    table = result.table()
    columns = {"class": "name", "difference": "value", "difference_low": "low", "difference_high": "high"}
    rows = table.rename(columns=columns)[["name", "value", "low", "high"]]
    figures = [
        chart(draw.changes(rows, "difference of accuracy")),
        chart(draw.moved(result.confusion_change.tolist(), result.classes)),
    ]
    units = "; ".join(f"{layer}: {', '.join(map(str, some))}" for layer, some in result.units.items())
    before, after = map(_percent, (result.accuracy_before(), result.accuracy_after()))
    plan = analyses.ablation_plan(scope, result.units, request.how)
    heading = f"ablation ({plan.words}), {units}: accuracy {before} before, {after} after"
    remark = (
        f"of {counted(len(result.index), 'test image')} {len(result.lost)} were right and are wrong now, "
        f"{len(result.gained)} the other way round"
    )
    tensors = {"confusion_before": result.confusion_before, "confusion_after": result.confusion_after}
    return View(heading, figures, tensors, table, remark=remark, side=1, columns=1)


def _first_units(scope: Scope) -> dict[str, list[int]]:
    """Two of each of the first five convolutions; one where there is no more."""
    names = lenses.convolutions(scope.graph)
    if not names:
        raise RequestError("this network has no convolution; name units with --units")
    return {name: list(range(min(2, scope.n_units(name)))) for name in names[:5]}


def _percent(figure: Estimate) -> str:
    return "undefined" if figure.value is None else f"{100 * figure.value:.2f} %"
