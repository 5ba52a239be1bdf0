"""How alike the layers of two networks are: linear CKA of their activations on the same images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from convscope.errors import RequestError
from convscope.lenses import activations
from convscope.scans.scan import Subject


def linear_cka(first: Float[Tensor, "N ..."], second: Float[Tensor, "N ..."]) -> float:
    """Linear centred kernel alignment of two layers' activations on the same N images, in [0, 1].

    With X and Y the activations, a row an image, each column less its mean: ‖XᵀY‖² / (‖XᵀX‖ · ‖YᵀY‖), Frobenius norms. 1 means
    alike up to rotation and one factor; 0 also where a layer gives the same for all images.

    Source: Kornblith, Norouzi, Lee & Hinton 2019, arXiv 1905.00414, equation 4.
    """
    return float(_alignment(_gram(first), _gram(second)))


def layer_similarity(
    first: Subject,
    second: Subject,
    images: Float[Tensor, "N C H W"],
    layers: Mapping[str, list[str]],
    at_once: int = 64,
) -> Float64[Tensor, "L M"]:
    """Linear CKA of each of some layers of a network with each of another's.

    Args:
        first, second: scopes.
        images: in [0, 1]; a few hundred, for N × N products are kept of each layer.
        layers: those of the "first" and of the "second".
        at_once: images in a pass.
    Raises:
        UnknownNameError: there is no such layer.
        RequestError: there are fewer than 3 images.
    """
    if len(images) < 3:
        raise RequestError(f"images: {len(images)}; expected 3 or more, for similarity is over images")
    grams = [_grams(scope, images, layers[which], at_once) for which, scope in (("first", first), ("second", second))]
    return torch.tensor([[float(_alignment(a, b)) for b in grams[1]] for a in grams[0]], dtype=torch.float64)


def _grams(scope: Subject, images: Tensor, layers: list[str], at_once: int) -> list[Tensor]:
    """The centred products of the images' activations, for each layer."""
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for part in images.split(at_once):
        for layer, values in activations(scope.graph, scope.prepare(part), layers).items():
            rows[layer].append(values.flatten(1).cpu())
    return [_gram(torch.cat(rows[layer])) for layer in layers]


def _gram(of_images: Float[Tensor, "N ..."]) -> Float64[Tensor, "N N"]:
    values = of_images.flatten(1).double()
    values = values - values.mean(0)
    return values @ values.T


def _alignment(first: Tensor, second: Tensor) -> Tensor:
    """⟨K, L⟩ / (‖K‖ · ‖L‖) of centred products: what CKA is in their terms."""
    norms = first.norm() * second.norm()
    return (first * second).sum() / norms if norms > 0 else norms
