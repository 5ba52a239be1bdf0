"""Means, deviations and correlations of the units of a layer, from sums that merge exactly."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from convscope.scans.exact import ExactSum, Summed

_BLOCK = 128
"""Units at once in the matrix of products: large enough for full speed, small enough to save half of it."""


class Moments(Summed):
    """Sums of the numbers that each unit gives, and of their products with those of the others.

    A batch's products are taken about the batch's own means in the network's number format, as one matrix product, and
    brought back about zero in float64: so a mean far from zero costs no digits of the deviation. The batches' sums are then
    added exactly.

    Args:
        n_units: of the layer.
        products: with those of other units, U (U + 1) / 2 sums; else only each unit's square.
    """

    adds = ("n", "sums", "second")

    def __init__(self, n_units: int, products: bool) -> None:
        self.products, self.n = products, 0
        self.sums = ExactSum((n_units,))
        self.n_units = n_units
        self.second = ExactSum((n_units * (n_units + 1) // 2 if products else n_units,))

    def update(self, maps: Float[Tensor, "N U P"]) -> None:
        """Takes in the maps of some images."""
        n = maps.shape[0] * maps.shape[2]
        about = maps.sum(2).sum(0) / n
        rest = maps.new_empty(maps.shape[1], maps.shape[0], maps.shape[2])
        torch.sub(maps.transpose(0, 1), about[:, None, None], out=rest)
        rest = rest.flatten(1)  # U, N·P
        second = _products(rest) if self.products else rest.square().sum(1)
        shift, left, second = about.double().cpu(), rest.sum(1).double().cpu(), second.double().cpu()
        if self.products:  # Σxy = Σ(x-a)(y-b) + a·Σ(y-b) + b·Σ(x-a) + n·a·b
            crossed = torch.outer(shift, left)
            second += crossed + crossed.T + n * torch.outer(shift, shift)
            second = second[*self._half]
        else:
            second += 2 * shift * left + n * shift**2
        self.n += n
        self.sums.add((left + n * shift)[None])
        self.second.add(second[None])

    @property
    def mean(self) -> Float64[Tensor, " U"]:
        return self.sums.value / self.n

    @property
    def deviation(self) -> Float64[Tensor, " U"]:
        """The root of the mean squared distance from the mean, over all numbers (n, not n - 1)."""
        squares = self._squares.diagonal() if self.products else self.second.value
        return (squares / self.n - self.mean**2).clamp(min=0).sqrt()

    @property
    def _half(self) -> Int64[Tensor, "2 P"]:
        """The places of the products that are summed: on and below the diagonal, for the others are the same."""
        return torch.tril_indices(self.n_units, self.n_units)

    @property
    def _squares(self) -> Float64[Tensor, "U U"]:
        """The sums of all products."""
        squares = torch.zeros(self.n_units, self.n_units, dtype=torch.float64)
        squares[*self._half] = self.second.value
        return squares + squares.tril(-1).T

    def correlation(self, constant: Tensor) -> Float32[Tensor, "U U"] | None:
        """Pearson's, of each pair of units, image by image and position by position; 0 for units that are constant."""
        if not self.products:
            return None
        mean = self.mean
        covariance = self._squares / self.n - torch.outer(mean, mean)
        scale = covariance.diagonal().clamp(min=0).sqrt()
        varying = (scale > 0) & ~constant
        scale = scale.where(varying, torch.inf)
        correlation = (covariance / torch.outer(scale, scale)).clamp(-1, 1)
        correlation.diagonal()[varying] = 1
        return correlation.where(varying & varying[:, None], 0).float()


def _products(rest: Float[Tensor, "U M"]) -> Float[Tensor, "U U"]:
    """`rest @ rest.T`, of which only the blocks up to the diagonal are worked out: they are mirrored."""
    products = rest.new_zeros(len(rest), len(rest))
    for start in range(0, len(rest), _BLOCK):
        end = min(start + _BLOCK, len(rest))
        torch.mm(rest[start:end], rest[:end].T, out=products[start:end, :end])
    return products.tril() + products.tril(-1).T
