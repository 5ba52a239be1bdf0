"""One lens on one image as a picture worth showing: the image, the map over it and alone, and what the colours mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from convscope.draw import (
    Picture,
    coloured,
    enlarge,
    filter_picture,
    map_picture,
    overlay,
    panel,
    picture,
    scale_of,
    sheet,
    signed_picture,
)
from convscope.errors import RequestError, SettingError, UnknownNameError
from convscope.lenses import CAPTUM_METHODS, Attribution
from convscope.scope import ATTRIBUTIONS, Scope

LOOKS = ("filters", "activations", *ATTRIBUTIONS, *CAPTUM_METHODS)
"""The lenses that `look` knows."""

_ON_IMAGE = ("saliency", "guided_backprop", "deconvnet")
_CAMS = ("grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam")
_MOST_UNITS = 64


@dataclass(frozen=True)
class Look:
    """What a lens shows.

    Attributes:
        picture: to be looked at.
        tensors: what it was drawn from, by name.
        heading: what it is, in a line.
    """

    picture: Picture
    tensors: dict[str, Tensor]
    heading: str


def look(
    scope: Scope,
    lens: str,
    image: Float[Tensor, "C H W"] | None = None,
    *,
    layer: str | None = None,
    unit: int | None = None,
    position: Any = None,
    target: int | None = None,
) -> Look:
    """What a lens shows of one image, or of the network alone.

    Args:
        scope: over the network.
        lens: one of `LOOKS`.
        image: in [0, 1]; every lens but "filters" needs one.
        layer, unit, position, target: as the lens takes them.
    Raises:
        UnknownNameError: there is no such lens, or layer.
        SettingError: something that the lens needs is missing, or something that it does not take is given.
    """
    if lens not in LOOKS:
        raise UnknownNameError("lens", lens, LOOKS, "one of convscope's or Captum's")
    if lens == "filters":
        return _filters(scope, layer)
    if image is None:
        raise SettingError(f"--image: {lens} looks at an image; give a file, or the index of a test image")
    if lens == "activations":
        return _activations(scope, image, layer, unit)
    given = {"layer": layer, "unit": unit, "position": position}
    asked = {name: value for name, value in given.items() if value is not None}
    takes = set(given) if lens in _ON_IMAGE or lens == "gradient_times_input" else {"layer"} if lens in _CAMS else set()
    if refused := sorted(asked.keys() - takes):
        raise SettingError(f"--{refused[0]}: {lens} has no such setting; leave it out")
    return _attribution(scope, lens, image, scope.attribute(lens, image, target, **asked))


def _attribution(scope: Scope, lens: str, image: Tensor, found: Attribution) -> Look:
    values, unit = _shown(lens, found)
    scale = scale_of(values, unit)
    parts = [
        ("image", picture(image)),
        ("over the image", overlay(image, values, scale)),
        ("alone", coloured(values, scale)),
    ]
    if lens in ("guided_backprop", "deconvnet") and found.values.shape[1] == 3:
        parts.append(("in colour; grey is 0", filter_picture(found.values[0])))
    heading = f"{lens.replace('_', ' ')}: {_asked(scope, found)}"
    return Look(panel(parts, heading, scale, note=found.note), {"values": found.values}, heading)


def _shown(lens: str, found: Attribution) -> tuple[Float[Tensor, "H W"], str]:
    """The map to draw, and what its numbers are."""
    if lens in _ON_IMAGE:
        return found.saliency()[0, 0], "size of the gradient"
    values = found.values[0].sum(0)
    if lens == "smooth_grad":
        return values, "mean gradient, logits per unit of pixel"
    return values, "evidence, logits" if found.layer is None or lens in _CAMS else "answer of the layer"


def _asked(scope: Scope, found: Attribution) -> str:
    """What was asked about, in words."""
    words = []
    if found.target is not None and found.probability is not None:
        k = int(found.target[0])
        name = scope.classes[k] if k < len(scope.classes) else f"class {k}"
        words.append(f"{name}, probability {float(found.probability[0]):.3f}")
    if found.layer is not None:
        words.append(f"at {found.layer}" if words else f"of {found.layer}")
    if found.unit is not None:
        words.append(f"unit {found.unit}")
    if found.position is not None:
        row, column = found.position[0].tolist()
        words.append(f"row {row}, column {column}")
    return ", ".join(words)


def _activations(scope: Scope, image: Tensor, layer: str | None, unit: int | None) -> Look:
    if layer is None:
        raise SettingError("--layer: activations looks at a layer; convscope anatomy lists them")
    [(name, values)] = list(scope.activations(image, layers=[layer]).items())[:1]
    maps = values[0]
    if maps.ndim != 3:
        raise RequestError(f"layer {name!r} gives {tuple(maps.shape)} numbers an image and no maps; choose another one")
    if unit is not None and not 0 <= unit < len(maps):
        raise RequestError(f"unit {unit} is not in layer {name!r}; it has units 0 to {len(maps) - 1}")
    if unit is not None:
        scale = scale_of(maps[unit], "activation")
        parts = [("image", picture(image)), ("over the image", overlay(image, maps[unit], scale)),
                 ("alone", coloured(maps[unit], scale))]  # fmt: skip
        heading = f"activation of unit {unit} of {name}"
        return Look(panel(parts, heading, scale), {name: values}, heading)
    top = max(float(maps.flatten().quantile(0.995)), 1e-12)
    shown = [map_picture(one, top) for one in maps[:_MOST_UNITS]]
    size = max(1, 64 // max(shown[0].shape[:2]))
    maps_sheet = sheet([enlarge(one, size) for one in shown], columns=8, gap=3, ground=40)
    heading = f"activations of {name}: {len(shown)} of {len(maps)} units"
    parts = [("image", picture(image)), (f"black is 0 and below, white {top:.3g} and above", maps_sheet)]
    return Look(panel(parts, heading, side=maps_sheet.shape[0]), {name: values}, heading)


def _filters(scope: Scope, layer: str | None) -> Look:
    """Filters on the image in colour; deeper ones as a row for each unit, a column for each input."""
    if layer is None:
        layer = next((op.name for op in scope.graph.operations if op.kind == "conv"), None)
    if layer is None:
        raise RequestError("this network has no convolution; give --layer")
    weights = scope.filters(layer)
    if weights.ndim != 4:
        raise RequestError(f"layer {layer!r} has weights of {tuple(weights.shape)}, no filters with rows and columns")
    size = max(1, 48 // max(weights.shape[2:]))
    if weights.shape[1] == 3:
        shown = [enlarge(filter_picture(w), size) for w in weights[:_MOST_UNITS]]
        whole, note = sheet(shown, columns=8, gap=3), "grey is weight 0, each filter on its own scale"
    else:
        size = max(1, 24 // max(weights.shape[2:]))
        top = float(weights.abs().max())
        rows, columns = min(len(weights), 16), min(weights.shape[1], 16)
        shown = [enlarge(signed_picture(weights[u, c], top), size) for u in range(rows) for c in range(columns)]
        whole = sheet(shown, columns=columns, gap=2)
        note = f"a row a unit, a column an input; blue below 0, red above, full colour ±{top:.2g}"
    heading = f"filters of {layer}: {' x '.join(map(str, weights.shape))}"
    return Look(panel([(note, whole)], heading, side=whole.shape[0]), {layer: weights}, heading)
