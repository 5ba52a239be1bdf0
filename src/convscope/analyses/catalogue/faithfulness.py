"""Insertion and deletion curves of an attribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import Method
from convscope.analyses.testset import SampleRequest, chart
from convscope.analyses.view import View
from convscope.base.words import counted

if TYPE_CHECKING:
    from convscope.scans import FaithfulnessCurves
    from convscope.scope import Scope


class Request(SampleRequest):
    """Heatmap validation by insertion and deletion (Petsiuk et al. 2018): does the probability follow the map?"""

    method: Method = "grad_cam"


def compute(scope: Scope, request: Request, inputs: Inputs) -> FaithfulnessCurves:
    """The curves on 50 test images by default."""
    return scope.faithfulness(request.method, request.sample(inputs.test))


def view(scope: Scope, request: Request, result: FaithfulnessCurves, inputs: Inputs) -> View:
    """The target's probability as pixels go in the lens's order, and as they come back, beside a random order."""
    import pandas as pd

    curves = {"deleted": result.deletion, "put back": result.insertion, "deleted at random": result.random}
    rows = [
        {"curve": name, "x": x} | estimate.to_json()
        for name, curve in curves.items()
        for x, estimate in zip(result.shares.tolist(), result.course(curve), strict=True)
    ]
    table = pd.DataFrame(rows)
    figures = [chart(draw.curves(table, "share of the pixels", "probability of the class", percent=True))]
    tensors = {name.replace(" ", "_"): curve for name, curve in curves.items()}
    title = f"faithfulness of {request.method} on {counted(result.n, 'test image')}"
    return View(
        f"faithfulness on test images: {result.verdict}", figures, tensors, table, title, result.verdict, side=1
    )
