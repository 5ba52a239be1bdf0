"""3×3 convolutions of maps with zeros around, in a quarter of the multiply-adds: Winograd's minimal filtering.

A row of 4 inputs and a filter of 3 weights are two polynomials, and the 6 outputs that they reach their product.
That is known from its values at 6 points, and each value takes one product, where the direct way takes 12; in two
dimensions 36 instead of 144. So a map is cut into tiles of 4×4 inputs, both factors are evaluated at the points,
multiplied there for all pairs of units (36 matrix products), and turned back into outputs; those of neighbouring
tiles overlap by 2 and are added up. This is F(4×4, 3×3) transposed: as a change lies in a box and zero is around it,
its inputs are fewer than the outputs that they reach, and so tiles of inputs are fewer than tiles of outputs.

A map of 5×5 or 9×9 is mostly rim in tiles of 4, and takes a half or two thirds of the products in tiles of 5: a map
is cut into those that suit it.

In float32 errors were 3e-6 of the largest output for 256 units of input with tiles of 4, and 6e-6 with tiles of 5:
2 to 20 times those of PyTorch's own convolution, by the size of the map. Tiles of 6 would err by 1e-5. Tiles of 3
or of unlike sides save another 2 to 10 % of the products, and lose it to more weights in more forms.

Source: Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308; the points
    after Barabasz et al. 2018, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
    Networks", arXiv:1803.10986.
"""

from __future__ import annotations

from functools import cache, partial
from math import isqrt, prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

KERNEL = 3
OVERLAP = KERNEL - 1
TILES = (4, 5)
"""Sides that tiles can have."""

POINTS = (0.0, 1.0, -1.0, 0.5, -2.0, 2.0)
"""Where the polynomials are evaluated, as many as a tile needs, and at infinity: a polynomial's value there is its last
coefficient."""

LARGEST = 16 << 20
"""Bytes of the largest tensor on the way: from 32 MB on the system hands out new pages for each, which take longer to
come by than a product to find, and beyond the cache it is slower too."""

PER_PRODUCT = 120
"""What a product takes for each unit of input and output besides its multiply-adds, in multiply-adds; as measured."""


def tiles(length: int, side: int) -> int:
    """How many tiles cover so many rows or columns."""
    return -(-length // side)


def products(side: int) -> int:
    """How many products a tile takes for a pair of units."""
    return (side + OVERLAP) ** 2


def best_side(height: int, width: int) -> int:
    """The side of the tiles that take the fewest products for a map."""
    return min(TILES, key=lambda side: products(side) * tiles(height, side) * tiles(width, side))


def evaluated(weight: Float[Tensor, "Co Ci 3 3"], side: int) -> Float[Tensor, "P Ci Co"]:
    """The weights of a convolution as `convolve` takes them: each filter's values at the P points of such tiles."""
    n_outputs, n_inputs = weight.shape[:2]
    # A convolution in the networks' sense slides its filter unturned: as a polynomial it is turned.
    filters = weight.flip(2, 3).permute(2, 3, 1, 0).reshape(KERNEL, KERNEL, -1)
    return _both_ways(_values(KERNEL, side), filters).view(-1, n_inputs, n_outputs)


EVALUATED = {side: partial(evaluated, side=side) for side in TILES}


def convolve(x: Float[Tensor, "N Ci H W"], weight: Float[Tensor, "P Ci Co"]) -> Float[Tensor, "N Co H+2 W+2"]:
    """All that a 3×3 convolution gives other than 0 for maps with zeros around: conv2d with padding 2.

    Args:
        x: fastest where a position's units lie side by side (channels last); so they do in what comes back.
        weight: see `evaluated`; the tiles are those that it was evaluated for.
    """
    height, width = x.shape[2:]
    n_tiles = prod(tiles(length, _side(weight)) for length in (height, width))
    bytes_each = len(weight) * n_tiles * max(weight.shape[1:]) * x.element_size()
    at_once = max(1, LARGEST // max(1, bytes_each))
    found = [_overlapped(_outputs(some, weight)) for some in x.split(at_once)]
    joined = found[0] if len(found) == 1 else torch.cat(found)
    return joined[:, : height + OVERLAP, : width + OVERLAP].permute(0, 3, 1, 2)


def _side(weight: Float[Tensor, "P Ci Co"]) -> int:
    return isqrt(len(weight)) - OVERLAP


def _outputs(x: Float[Tensor, "N Ci H W"], weight: Float[Tensor, "P Ci Co"]) -> Float[Tensor, "p p N down across Co"]:
    """What each tile reaches."""
    side, tiled = _side(weight), _tiled(x, _side(weight))
    values = _both_ways(_values(side, side), tiled.view(side, side, -1)).view(len(weight), -1, x.shape[1])
    found = torch.bmm(values, weight).view(side + OVERLAP, side + OVERLAP, -1)
    return _both_ways(_coefficients(side), found).view(*found.shape[:2], *tiled.shape[2:-1], -1)


def _tiled(x: Float[Tensor, "N C H W"], side: int) -> Float[Tensor, "side side N down across C"]:
    """A tile's rows and columns first, with zeros below and to the right of the last."""
    height, width = x.shape[2:]
    down, across = tiles(height, side), tiles(width, side)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, across * side - width, 0, down * side - height))
    return padded.view(len(x), down, side, across, side, -1).permute(2, 4, 0, 1, 3, 5).contiguous()


def _overlapped(outputs: Float[Tensor, "p p N down across C"]) -> Float[Tensor, "N rows columns C"]:
    """The tiles in their places, each a tile's side from the last, with the sum where they overlap."""
    reached, _, n, down, across, n_units = outputs.shape
    side = reached - OVERLAP
    found = outputs.new_empty(n, down + 1, side, across + 1, side, n_units)
    places = found.permute(2, 4, 0, 1, 3, 5)
    places[:OVERLAP, :, :, -1], places[:, :OVERLAP, :, :, -1] = 0, 0  # what lies beyond is cut off
    places[:, :, :, :-1, :-1] = outputs[:side, :side]
    places[:OVERLAP, :, :, 1:, :-1] += outputs[side:, :side]
    places[:, :OVERLAP, :, :-1, 1:] += outputs[:side, side:]
    places[:OVERLAP, :OVERLAP, :, 1:, 1:] += outputs[side:, side:]
    return found.view(n, (down + 1) * side, (across + 1) * side, n_units)


def _both_ways(matrix: Float[Tensor, "p c"], x: Float[Tensor, "c c n"]) -> Float[Tensor, "p p n"]:
    """The matrix applied to rows and to columns."""
    points, n = matrix.shape
    matrix = matrix.to(x)
    rows = (matrix @ x.view(n, -1)).view(points, n, -1)
    return torch.bmm(matrix.expand(points, points, n), rows)


@cache
def _values(n: int, side: int) -> Float[Tensor, "p n"]:
    """What turns a polynomial's n coefficients into its values at the points for tiles of that side."""
    points = torch.tensor(POINTS[: side + 1], dtype=torch.float64)
    powers = points[:, None] ** torch.arange(n)
    return torch.cat([powers, torch.eye(n, dtype=torch.float64)[-1:]])


@cache
def _coefficients(side: int) -> Float[Tensor, "p p"]:
    """What turns the values of an output's polynomial into its coefficients."""
    return torch.linalg.inv(_values(side + OVERLAP, side))
