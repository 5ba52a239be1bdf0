"""3×3 convolutions of maps with zeros around, in a quarter of the multiply-adds: Winograd's minimal filtering.

A row of 4 inputs and a filter of 3 weights are two polynomials, and the 6 outputs that they reach their product.
That is known from its values at 6 points, and each value takes one product, where the direct way takes 12; in two
dimensions 36 instead of 144. So a map is cut into tiles of 4×4 inputs, both factors are evaluated at the points,
multiplied there for all pairs of units (36 matrix products), and turned back into outputs; those of neighbouring
tiles overlap by 2 and are added up. This is F(4×4, 3×3) transposed: as a change lies in a box and zero is around it,
its inputs are fewer than the outputs that they reach, and so tiles of inputs are fewer than tiles of outputs.

In float32 errors were 3e-6 of the largest output for 256 units of input: 2 to 10 times those of PyTorch's own
convolution, by the size of the map. At the usual points, with 2 and −2, they are 2 to 3 times larger still.

Source: Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308; the points
    after Barabasz et al. 2018, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
    Networks", arXiv:1803.10986.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

KERNEL, TILE = 3, 4
OVERLAP = KERNEL - 1
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
"""Where the polynomials are evaluated, besides at infinity: there a polynomial's value is its last coefficient."""

SIDE = len(POINTS) + 1
PRODUCTS = SIDE**2

LARGEST = 16 << 20
"""Bytes of the largest tensor on the way: from 32 MB on the system hands out new pages for each, which take longer to
come by than a product to find, and beyond the cache it is slower too."""

PER_TILE = 3000
"""What a tile takes for each unit of input and output besides its products, in multiply-adds; as measured."""


def tiles(length: int) -> int:
    """How many tiles cover so many rows or columns."""
    return -(-length // TILE)


def evaluated(weight: Float[Tensor, "Co Ci 3 3"]) -> Float[Tensor, "36 Ci Co"]:
    """The weights of a convolution as `convolve` takes them: each filter's values at the points."""
    n_outputs, n_inputs = weight.shape[:2]
    # A convolution in the networks' sense slides its filter unturned: as a polynomial it is turned.
    filters = weight.flip(2, 3).permute(2, 3, 1, 0).reshape(KERNEL**2, -1)
    return (_OF_FILTERS.to(weight) @ filters).view(PRODUCTS, n_inputs, n_outputs)


def convolve(x: Float[Tensor, "N Ci H W"], weight: Float[Tensor, "36 Ci Co"]) -> Float[Tensor, "N Co H+2 W+2"]:
    """All that a 3×3 convolution gives other than 0 for maps with zeros around: conv2d with padding 2.

    Args:
        x: fastest where a position's units lie side by side (channels last); so they do in what comes back.
        weight: see `evaluated`.
    """
    height, width = x.shape[2:]
    bytes_each = PRODUCTS * tiles(height) * tiles(width) * max(weight.shape[1:]) * x.element_size()
    at_once = max(1, LARGEST // max(1, bytes_each))
    found = [_overlapped(_outputs(some, weight)) for some in x.split(at_once)]
    joined = found[0] if len(found) == 1 else torch.cat(found)
    return joined[:, : height + OVERLAP, : width + OVERLAP].permute(0, 3, 1, 2)


def _outputs(x: Float[Tensor, "N Ci H W"], weight: Float[Tensor, "36 Ci Co"]) -> Float[Tensor, "6 6 N down across Co"]:
    """What each tile reaches."""
    n, n_inputs, height, width = x.shape
    values = (_OF_INPUTS.to(x) @ _tiled(x).view(TILE**2, -1)).view(PRODUCTS, -1, n_inputs)
    products = torch.bmm(values, weight).view(PRODUCTS, -1)
    return (_TO_OUTPUTS.to(x) @ products).view(SIDE, SIDE, n, tiles(height), tiles(width), -1)


def _values(n: int) -> Float[Tensor, "6 n"]:
    """What turns a polynomial's n coefficients into its values at the points."""
    powers = torch.tensor(POINTS, dtype=torch.float64)[:, None] ** torch.arange(n)
    return torch.cat([powers, torch.eye(n, dtype=torch.float64)[-1:]])


def _tiled(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "4 4 N down across C"]:
    """A tile's rows and columns first, with zeros below and to the right of the last."""
    n, n_units, height, width = x.shape
    found = x.new_zeros(TILE, TILE, n, tiles(height), tiles(width), n_units)
    for row in range(TILE):
        for column in range(TILE):
            part = x[:, :, row::TILE, column::TILE].permute(0, 2, 3, 1)
            found[row, column, :, : part.shape[1], : part.shape[2]] = part
    return found


def _overlapped(outputs: Float[Tensor, "6 6 N down across C"]) -> Float[Tensor, "N rows columns C"]:
    """The tiles in their places, each 4 rows or columns from the last, with the sum where they overlap."""
    *_, n, down, across, n_units = outputs.shape
    found = outputs.new_empty(n, down + 1, TILE, across + 1, TILE, n_units)
    found[:, -1], found[:, :, :, -1] = 0, 0
    places = found.permute(2, 4, 0, 1, 3, 5)
    places[:, :, :, :-1, :-1] = outputs[:TILE, :TILE]
    places[:OVERLAP, :, :, 1:, :-1] += outputs[TILE:, :TILE]
    places[:, :OVERLAP, :, :-1, 1:] += outputs[:TILE, TILE:]
    places[:OVERLAP, :OVERLAP, :, 1:, 1:] += outputs[TILE:, TILE:]
    return found.view(n, (down + 1) * TILE, (across + 1) * TILE, n_units)


def _in_two_dimensions(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m*m n*n"]:
    return torch.kron(matrix, matrix)


_OF_INPUTS, _OF_FILTERS = (_in_two_dimensions(_values(n)) for n in (TILE, KERNEL))
_TO_OUTPUTS = _in_two_dimensions(torch.linalg.inv(_values(SIDE)))
