"""What the attribution analyses share: their requests, how they are computed, and their pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model

from convscope import draw
from convscope.analyses.request import AnyLayer, ImageRequest, Noise, NSamples, Position, Target, Unit
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


_OF_UNITS = {
    "saliency": "Saliency: the size of the gradient of a class, or of a layer's units, at each pixel (Simonyan et al. 2013).",
    "gradient_times_input": "Gradient × input: the gradient of a class or of units, times the pixel.",
    "guided_backprop": "Guided backpropagation: the gradient through rectifiers that pass positive gradients alone "
    "(Springenberg et al. 2014).",
    "deconvnet": "A deconvolutional network: activations led back to the pixels (Zeiler & Fergus 2013).",
}
_AT_A_LAYER = {
    "grad_cam": "Grad-CAM: a layer's maps, weighted by the mean gradient of a class (Selvaraju et al. 2017).",
    "grad_cam_plus_plus": "Grad-CAM++: weights for several occurrences of a class (Chattopadhay et al. 2018).",
    "hires_cam": "HiResCAM: a layer's maps times the gradient of a class at each position (Draelos & Carin 2020).",
    "layer_cam": "LayerCAM: as HiResCAM, with positive gradients alone (Jiang et al. 2021).",
    "xgrad_cam": "XGrad-CAM: a layer's maps, weighted by the gradient of a class where they are active (Fu et al. 2020).",
}
_BY_CAPTUM = {
    "integrated_gradients": "Integrated gradients from a baseline to the image (Sundararajan et al. 2017), through Captum.",
    "smooth_grad": "SmoothGrad: the mean gradient of noisy copies of the image (Smilkov et al. 2017), through Captum.",
    "gradient_shap": "Gradient SHAP: expected gradients over random baselines (Lundberg & Lee 2017), through Captum.",
    "lrp": "Layer-wise relevance propagation, the ε-rule (Bach et al. 2015), through Captum.",
}
_STEPS = Annotated[int | None, Field(ge=1, description="Steps from the baseline to the image; 50 by default.")]
_EPSILON = Annotated[float | None, Field(gt=0, description="ε of the rule; 1e-9 by default.")]
_SETTINGS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"n_steps": (_STEPS, None)},
    "smooth_grad": {"n_samples": (NSamples, None), "noise": (Noise, None)},
    "gradient_shap": {"n_samples": (NSamples, None), "noise": (Noise, None)},
    "lrp": {"epsilon": (_EPSILON, None)},
}

ATTRIBUTIONS: dict[str, type[ClassRequest]] = {
    name: create_model("Request", __base__=base, __doc__=about, **_SETTINGS.get(name, {}))
    for base, lenses in ((NeuronRequest, _OF_UNITS), (LayerRequest, _AT_A_LAYER), (ClassRequest, _BY_CAPTUM))
    for name, about in lenses.items()
}
"""The request of each attribution lens, by its name."""


def compute(name: str, scope: Scope, request: ClassRequest, inputs: Inputs) -> Attribution:
    """That of the lens of this name."""
    settings: dict[str, Any] = request.model_dump(exclude={"target"}, exclude_none=True)
    return scope.attribute(name, inputs.image, target_of(scope, request.target), **settings)


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
