"""Attribution lenses by their names: those of our own, and Captum's methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, Unpack

from jaxtyping import Float
from torch import Tensor

from convscope.errors import UnknownNameError
from convscope.graph import TracedGraph
from convscope.lenses.attribution import Attribution
from convscope.lenses.cam import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from convscope.lenses.captum_adapter import CAPTUM_METHODS, attribute, settings_of
from convscope.lenses.gradients import gradient_times_input, saliency
from convscope.lenses.rectified import deconvnet, guided_backprop
from convscope.lenses.settings import SeededSettings
from convscope.lenses.targets import Target

ATTRIBUTIONS: dict[str, Callable[..., Attribution]] = {
    lens.__name__: lens
    for lens in (
        saliency, gradient_times_input, guided_backprop, deconvnet, grad_cam, grad_cam_plus_plus, hires_cam, layer_cam,
        xgrad_cam,
    )
}  # fmt: skip
"""The attribution lenses of our own, by name."""


def attribute_by_name(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    name: str,
    target: Target = None,
    **settings: Unpack[SeededSettings],
) -> Attribution:
    """What a lens of `ATTRIBUTIONS` or a method of `CAPTUM_METHODS` gives, with settings of its own.

    Raises:
        UnknownNameError: there is no such lens, or it has no such setting; the message lists those there are.
    """
    check_settings(name, settings)
    if name in CAPTUM_METHODS:
        return attribute(graph, images, name, target, **settings)  # type: ignore[misc]
    return ATTRIBUTIONS[name](graph, images, target, **settings)


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Refuses an unknown lens, and what is no setting of it, before any work; raises as `attribute_by_name`."""
    if name not in ATTRIBUTIONS and name not in CAPTUM_METHODS:
        names = [*ATTRIBUTIONS, *CAPTUM_METHODS, "occlusion"]
        raise UnknownNameError("attribution lens", name, names, "one of convscope's or Captum's")
    lens = ATTRIBUTIONS.get(name)
    allowed = list(signature(lens).parameters)[3:] if lens else settings_of(name)  # after graph, images, target
    for setting in settings.keys() - allowed:
        raise UnknownNameError("setting", setting, allowed, f"one of {name}")
