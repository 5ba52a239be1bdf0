"""Mixup and CutMix: each image of a batch with another one of it, and the targets of both."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.data.seeds import generator

Targets = dict[str, Tensor]


def mix(
    images: Float[Tensor, "N ..."], targets: Targets, mixup: float, cutmix: float, key: tuple[int, ...]
) -> tuple[Float[Tensor, "N ..."], list[tuple[float, Targets]]]:
    """The mixed images, and the shares of the targets in them, which sum to 1, the largest first.

    λ is drawn for the batch from the Beta distribution (α, α), and each image mixed with that at its place in a permutation
    of the batch. Mixup: λ·a + (1 − λ)·b (Zhang et al. 2018, arXiv 1710.09412). CutMix: in a, a rectangle of b in
    the image's proportions, of 1 − λ of its area, about any pixel; what sticks out over the edge is lost, and λ is then the
    share of a that is left (Yun et al. 2019, arXiv 1905.04899).

    Args:
        images: (N, C, H, W), before or after normalization; without mixing, anything.
        targets: of each image, by name.
        mixup, cutmix: α of each; 0 for none. With both, one of the two is drawn, evenly.
        key: decides all that is random.
    """
    if not (mixup or cutmix):
        return images, [(1.0, targets)]
    draws = generator("mix", *key)
    cuts = bool(cutmix) and (not mixup or draws.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(draws.beta(alpha, alpha))
    partner = torch.from_numpy(draws.permutation(len(images))).to(images.device)
    others = images[partner]
    if cuts:
        height, width = images.shape[2:]
        rows, columns = (_cut(side, share, draws.random()) for side in (height, width))
        images = images.clone()
        images[:, :, rows, columns] = others[:, :, rows, columns]
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    else:
        images = others.lerp(images, share)
    shares = [(share, targets), (1 - share, {name: values[partner] for name, values in targets.items()})]
    return images, sorted(shares, key=lambda pair: -pair[0])


def _cut(side: int, share: float, draw: float) -> slice:
    """Which places along one axis the rectangle covers; its centre is any pixel."""
    length = int(side * math.sqrt(1 - share))
    start = int(draw * side) - length // 2
    return slice(max(0, start), min(side, start + length))
