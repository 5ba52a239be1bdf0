"""XGrad-CAM: Grad-CAM with gradients weighted by the activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscope import lenses
from convscope.analyses.analysis import Inputs
from convscope.analyses.attribution import LayerRequest, target_of, view

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.lenses import Attribution
    from convscope.scope import Scope

__all__ = ["Request", "compute", "view"]


class Request(LayerRequest):
    """XGrad-CAM: a layer's maps, weighted by the gradient of a class where they are active (Fu et al. 2020)."""


def compute(scope: Scope, request: Request, inputs: Inputs) -> Attribution:
    """map = Σᵤ αᵤ Aᵤ with αᵤ = Σ (∂s/∂Aᵤ · Aᵤ) / Σ Aᵤ, sums over positions; 0 for a unit whose activations sum to 0.

    Source: Fu et al. 2020, section 3.2, arXiv 2008.02312.
    """
    images, target = scope.prepare(inputs.image), scope.target(target_of(scope, request.target))
    return lenses.class_activation_map(scope.graph, images, target, request.layer, "xgrad_cam", _weigh)


def _weigh(activations: Tensor, gradients: Tensor) -> Tensor:
    total = activations.sum((2, 3), keepdim=True)
    weights = (activations * gradients).sum((2, 3), keepdim=True) / total
    return (weights.masked_fill(total == 0, 0) * activations).sum(1)
