"""The weight-randomization check of an attribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import Method
from convscope.analyses.testset import SampleRequest, chart
from convscope.analyses.view import View
from convscope.base.words import counted

if TYPE_CHECKING:
    from convscope.scans import RandomizationCheck
    from convscope.scope import Scope


class Request(SampleRequest):
    """Heatmap validation by random weights (Adebayo et al. 2018): does the map depend on what was learned?"""

    method: Method = "grad_cam"


def compute(scope: Scope, request: Request, inputs: Inputs) -> RandomizationCheck:
    """On 50 test images by default."""
    return scope.randomization_check(request.method, request.sample(inputs.test))


def view(scope: Scope, request: Request, result: RandomizationCheck, inputs: Inputs) -> View:
    """How similar a map stays to itself as the weights are made random, from the last layer downwards."""
    table = result.table().rename(columns={"method": "curve", "similarity": "value"})
    table.insert(1, "x", range(1, len(table) + 1))
    least = min(0.0, float(table["low"].astype("float64").min()))  # NaN, of no interval, is not the least
    ticks, reach = list(result.layers), (math.floor(5 * least) / 5, 1.0)  # the whole way from 1 to nothing in common
    axis = "weights random from the last layer down to"
    figures = [chart(draw.curves(table, axis, "rank correlation", ticks=ticks, reach=reach))]
    verdict = result.verdict or f"of {request.method} the intervals carry no verdict"
    n_images = counted(result.n, "test image")
    title = f"randomization check of {request.method} on {n_images}"
    heading = f"randomization check on {n_images}: {verdict}"
    return View(heading, figures, {"similarity": result.similarity}, table, title, verdict, side=1)
