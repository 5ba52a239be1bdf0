"""How often each unit gives numbers of each size, in bins that are fixed, so that counts can be added up."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

_SHIFT = 21
"""A float's bits above these: its sign, its exponent, and two bits of its mantissa."""
_LOW, _HIGH = (127 - 12) << 2, (127 + 12) << 2  # what stands there for 2^-12 and 2^12
_KEYS = 1 << 10  # of one sign


def _edges() -> Float32[Tensor, " B1"]:
    keys = torch.arange(_LOW, _HIGH + 1, dtype=torch.int32)
    sizes = (keys << _SHIFT).view(torch.float32)
    infinity = torch.tensor([torch.inf])
    return torch.cat([-infinity, -sizes.flip(0), sizes, infinity])


EDGES = _edges()
"""The edges of the bins (B + 1 = 196), in rising order.

Four bins to each power of two: 1, 1.25, 1.5, 1.75, 2, 2.5, … from 2^-12 to 2^12, the same below zero, one bin for what is
smaller than 2^-12, and the two ends to infinity. A number on an edge belongs to the bin farther from zero.
"""


def histogram(maps: Float32[Tensor, "N U P"]) -> Int64[Tensor, "U B"]:
    """How many numbers of each unit lie in each bin; they must be finite.

    The bin is read off the number's own bits, so it takes one pass, and no comparison.
    """
    n_units = maps.shape[1]
    keys = maps.view(torch.int32) >> _SHIFT  # of negative numbers from -1024 on, by rising size
    offsets = torch.arange(n_units, dtype=torch.int32, device=maps.device) * (2 * _KEYS) + _KEYS
    counts = torch.bincount(keys.add_(offsets[:, None]).flatten(), minlength=2 * _KEYS * n_units)
    negative, positive = counts.view(n_units, 2, _KEYS).unbind(1)
    small = positive[:, :_LOW].sum(1, keepdim=True) + negative[:, :_LOW].sum(1, keepdim=True)
    above, below = (side[:, _HIGH:].sum(1, keepdim=True) for side in (positive, negative))
    parts = (below, negative[:, _LOW:_HIGH].flip(1), small, positive[:, _LOW:_HIGH], above)
    return torch.cat(parts, 1).cpu()
