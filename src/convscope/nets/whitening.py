"""A first layer that whitens patches of the images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 5e-4
"""Added to the variances, for images in units of their deviation, so that directions in which nothing varies stay small."""


class Whitening(nn.Conv2d):
    """Patches of k × k pixels along the eigenvectors of their covariance, each divided by its deviation; and the same negated.

    For eigenvectors v and eigenvalues λ of the matrix of second moments of all C·k² values of a patch, the 2·C·k² filters are
    ±v / √(λ + ε), ε = 5e-4 (Jordan 2024, arXiv 2404.00498; after Page 2019, "How to train your ResNet"). They do not learn.

    Attributes:
        fitted: whether the filters are those of some images; until `fit` they are random.

    Args:
        channels: C of the images.
        kernel: k.
    """

    fitted: Tensor

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, 2 * channels * kernel**2, kernel, bias=False)
        self.weight.requires_grad_(False)
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, images: Float[Tensor, "N C H W"]) -> None:
        """Computes the filters from all patches of normalised images."""
        kernel = self.kernel_size[0]
        moments = torch.zeros(self.out_channels // 2, self.out_channels // 2, dtype=torch.float64)
        for some in images.split(256):
            patches = nn.functional.unfold(some, kernel).transpose(1, 2).flatten(0, 1).double().cpu()
            moments += patches.T @ patches
        n_patches = len(images) * (images.shape[2] - kernel + 1) * (images.shape[3] - kernel + 1)
        values, vectors = torch.linalg.eigh(moments / n_patches)
        # an eigenvector's sign is the library's choice: the largest part is made positive, so that machines agree
        largest = vectors.abs().argmax(dim=0, keepdim=True)
        filters = (vectors * vectors.gather(0, largest).sign() / (values + EPSILON).sqrt()).T
        self.weight.copy_(torch.cat([filters, -filters]).view_as(self.weight))
        self.fitted.fill_(True)
