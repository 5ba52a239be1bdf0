"""What the attribution analyses share: their requests, how they are computed, and their pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from convscope import draw
from convscope.analyses.request import AnyLayer, ImageRequest, Position, Target, Unit
from convscope.analyses.view import Figure, View

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from convscope.analyses.analysis import Inputs
    from convscope.draw import Picture, Scale
    from convscope.lenses import Attribution, TaskTarget
    from convscope.scope import Scope

_BY_SIZE = ("saliency", "guided_backprop", "deconvnet")
_IN_COLOUR = ("guided_backprop", "deconvnet")
_EVIDENCE = "evidence, logits"
_SHARE = 0.99  # of the pixels: gradients of single ones stand far above all others
_MEASURES = dict.fromkeys(_BY_SIZE, "size of the gradient") | {"smooth_grad": "mean gradient, logits per unit of pixel"}


class ClassRequest(ImageRequest):
    """Of an attribution that explains a class."""

    target: Target = None


class LayerRequest(ClassRequest):
    """Of an attribution that explains a class at a layer."""

    layer: AnyLayer = None


class NeuronRequest(LayerRequest):
    """Of an attribution that explains a class, or units of a layer."""

    unit: Unit = None
    position: Position = None


def attribution(name: str) -> Callable[[Scope, ClassRequest, Inputs], Attribution]:
    """The `compute` of an attribution lens."""

    def compute(scope: Scope, request: ClassRequest, inputs: Inputs) -> Attribution:
        settings: dict[str, Any] = request.model_dump(exclude={"target"}, exclude_none=True)
        return scope.attribute(name, inputs.image, target_of(scope, request.target), **settings)

    return compute


def target_of(scope: Scope, target: int | str | None) -> TaskTarget | None:
    """A class by its name, or by its number where no class is called so."""
    if isinstance(target, str) and target.isdecimal() and len(target) < 10 and target not in scope.classes:
        target = int(target)
    return None if target is None else scope.target(target)


def view(scope: Scope, request: ClassRequest, result: Attribution, inputs: Inputs) -> View:
    """The image, the map over it, and the map alone; of guided backpropagation in colour, too."""
    values, scale = shown_map(result)
    figures: list[Figure] = [
        ("image", draw.picture(inputs.image)),
        ("over the image", draw.overlay(inputs.image, values, scale)),
        ("alone", draw.coloured(values, scale)),
    ]
    if result.method in _IN_COLOUR and result.values.shape[1] == 3:
        figures.append(("in colour; grey is 0", draw.filter_picture(result.values[0], scale.high)))
    heading = f"{result.method.replace('_', ' ')}: {in_words(scope, result)}"
    longest = max(inputs.image.shape[1:])
    side = longest * max(1, 256 // longest)  # as large as the image beside it
    return View(heading, figures, {"values": result.values}, scale=scale, side=side, remark=result.note)


def shown_map(result: Attribution, image: int = 0) -> tuple[Float[Tensor, "H W"], Scale]:
    """The map to draw for one of the images, and what its colours mean."""
    values = result.saliency()[image, 0] if result.method in _BY_SIZE else result.values[image].sum(0)
    label = _MEASURES.get(result.method, _EVIDENCE)
    of_class_at_layer = result.target is not None and result.layer is not None
    share = 1.0 if of_class_at_layer else _SHARE
    return values, draw.scale_of(values, label, result.method not in _BY_SIZE, share)


def small_picture(result: Attribution, image: Float[Tensor, "C H W"], index: int = 0) -> Picture:
    """One picture for a row of many: in colour where the method gives colours, else over the image."""
    if result.method in _IN_COLOUR and result.values.shape[1] == 3:
        return draw.filter_picture(result.values[index], shown_map(result, index)[1].high)
    values, scale = shown_map(result, index)
    return draw.coloured(values, scale) if result.method in _BY_SIZE else draw.overlay(image, values, scale)


def in_words(scope: Scope, result: Attribution) -> str:
    """The class or the units that it explains."""
    words = []
    if result.target is not None and result.probability is not None:
        words.append(f"{scope.class_name(int(result.target[0]))}, probability {float(result.probability[0]):.3f}")
    if result.layer is not None:
        words.append(f"at {result.layer}" if words else f"of {result.layer}")
    if result.unit is not None:
        words.append(f"unit {result.unit}")
    if result.position is not None:
        row, column = result.position[0].tolist()
        words.append(f"row {row}, column {column}")
    return ", ".join(words)
