"""The units that an answer to one image rests on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from convscope import draw, lenses
from convscope.analyses.ablation import ablation_plan
from convscope.analyses.analysis import Inputs
from convscope.analyses.attribution import target_of
from convscope.analyses.request import TOP, ImageRequest, Target
from convscope.analyses.view import Figure, View
from convscope.errors import RequestError

if TYPE_CHECKING:
    from convscope.lenses import UnitEffects
    from convscope.scope import Scope

_TOP = 12


class Request(ImageRequest):
    """The units of the convolutions whose ablation lowers the target's logit of an image most."""

    target: Target = None
    top: Annotated[int | None, Field(ge=1, le=200, description=TOP)] = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> UnitEffects:
    """The units of all convolutions, replaced by 0 where the next layer reads them; each by the convolution's name."""
    names = lenses.convolutions(scope.graph)
    if not names:
        raise RequestError("this network has no convolution whose units could be ablated")
    place_of = ablation_plan(scope, names).at
    effects = scope.unit_effects(inputs.image, list(dict.fromkeys(place_of.values())), target_of(scope, request.target))
    layer_of = {place: layer for layer, place in place_of.items()}
    return replace(effects, layers=[layer_of[place] for place in effects.layers])


def view(scope: Scope, request: Request, result: UnitEffects, inputs: Inputs) -> View:
    """Maps of the units, and a table of their effects."""
    import pandas as pd

    ranks = range(min(request.top or _TOP, int((result.logit_change < 0).sum())))
    rows = [
        {"layer": result.layers[k], "unit": int(result.units[k]), "logit_change": float(result.logit_change[k]),
         "probability_change": float(result.probability_change[k])}
        for k in ranks
    ]  # fmt: skip
    figures: list[Figure] = [("image", draw.picture(inputs.image))]
    for k in ranks:
        layer, unit = result.layers[k], int(result.units[k])
        [maps] = scope.activations(inputs.image, [layer]).values()
        caption = f"{layer} {unit}: {float(result.logit_change[k]):+.2f}".replace("-", "−")
        figures.append((caption, draw.coloured(maps[0, unit], draw.scale_of(maps[0, unit], "activation"))))
    heading = f"unit effects: {scope.class_name(result.target)}, probability {result.probability:.3f}, rests on " + (
        ", ".join(f"{row['layer']} {row['unit']}" for row in rows[:3]) or "no unit"
    )
    tensors = {name: getattr(result, name) for name in ("units", "logit_change", "probability_change", "estimate")}
    return View(heading, figures, tensors, pd.DataFrame(rows), remark="below each unit the change of the logit without it",
                side=128, columns=5)  # fmt: skip
