"""Attributions as pictures: gradients, guided backpropagation, class-activation maps, Captum's methods."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from convscope.draw import Picture, Scale, coloured, filter_picture, overlay, panel, picture, scale_of
from convscope.lenses import Attribution
from convscope.looks.records import Asked, Look
from convscope.scope import Scope

_BY_SIZE = ("saliency", "guided_backprop", "deconvnet")
CAMS = ("grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam")
_IN_COLOUR = ("guided_backprop", "deconvnet")
_EVIDENCE = "evidence, logits"
_SHARE = 0.99  # of the pixels: gradients of single ones stand far above all others
_MEASURES = dict.fromkeys(_BY_SIZE, "size of the gradient") | {"smooth_grad": "mean gradient, logits per unit of pixel"}


def look_attribution(name: str, scope: Scope, asked: Asked) -> Look:
    """The image, the map over it, and the map alone; of guided backpropagation in colour, too."""
    image = asked.given()["image"]
    question = {key: value for key, value in asked.given().items() if key not in ("image", "target")}
    found = scope.attribute(name, image, asked.target, **question)
    values, scale = shown_map(found)
    parts = [
        ("image", picture(image)),
        ("over the image", overlay(image, values, scale)),
        ("alone", coloured(values, scale)),
    ]
    if name in _IN_COLOUR and found.values.shape[1] == 3:
        parts.append(("in colour; grey is 0", filter_picture(found.values[0], scale.high)))
    heading = f"{name.replace('_', ' ')}: {in_words(scope, found)}"
    side = drawn_side(image)
    return Look(panel(parts, heading, scale, side, note=found.note), {"values": found.values}, heading)


def drawn_side(image: Float[Tensor, "C H W"]) -> int:
    """The side in pixels of an image in a panel, so that what stands beside it is as large."""
    longest = max(image.shape[1:])
    return longest * max(1, 256 // longest)


def shown_map(found: Attribution, image: int = 0) -> tuple[Float[Tensor, "H W"], Scale]:
    """The map to draw for one of the images, and what its colours mean."""
    values = found.saliency()[image, 0] if found.method in _BY_SIZE else found.values[image].sum(0)
    label = _MEASURES.get(found.method, _EVIDENCE)
    share = 1.0 if found.method in CAMS else _SHARE
    return values, scale_of(values, label, found.method not in _BY_SIZE, share)


def small_picture(found: Attribution, image: Float[Tensor, "C H W"], index: int = 0) -> Picture:
    """One picture for a row of many: in colour where the method gives colours, else over the image."""
    if found.method in _IN_COLOUR and found.values.shape[1] == 3:
        return filter_picture(found.values[index], shown_map(found, index)[1].high)
    values, scale = shown_map(found, index)
    return coloured(values, scale) if found.method in _BY_SIZE else overlay(image, values, scale)


def in_words(scope: Scope, found: Attribution) -> str:
    """What was asked about."""
    words = []
    if found.target is not None and found.probability is not None:
        words.append(f"{scope.class_name(int(found.target[0]))}, probability {float(found.probability[0]):.3f}")
    if found.layer is not None:
        words.append(f"at {found.layer}" if words else f"of {found.layer}")
    if found.unit is not None:
        words.append(f"unit {found.unit}")
    if found.position is not None:
        row, column = found.position[0].tolist()
        words.append(f"row {row}, column {column}")
    return ", ".join(words)
