"""A value and the index of its image as one whole number, so that the best of many are the same in any order of arrival."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int, Int64
from torch import Tensor

NONE = torch.iinfo(torch.int64).min
"""The rank of nothing: below all others."""
_LOW = 2**32 - 1


def ranks(values: Float32[Tensor, "U N"], index: Int[Tensor, " N"]) -> Int64[Tensor, "U N"]:
    """Whole numbers that order as (value, then the smaller index) do; no two images of a unit have the same.

    The upper half holds the value: the bits of a float, read as a whole number, order as floats do; of negative ones the
    bits below the sign are turned over. The lower half holds 2^32 - 1 - index.
    """
    bits = (values + 0.0).view(torch.int32)  # -0 becomes 0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (_LOW - index.long())


def values_of(found: Int64[Tensor, "*rest"]) -> Float32[Tensor, "*rest"]:
    """The values of ranks; NaN for nothing."""
    ordered = (found >> 32).int()
    values = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return torch.where(found == NONE, torch.nan, values)


def indices_of(found: Int64[Tensor, "*rest"]) -> Int64[Tensor, "*rest"]:
    """The indices of ranks; -1 for nothing."""
    return torch.where(found == NONE, -1, _LOW - (found & _LOW))
