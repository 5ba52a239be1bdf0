"""Reducers that depend neither on the order of their parts nor on how they were cut: exact sums, and what is made of parts."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import check_finite

_BITS = 32
_LEAST = -1074
"""The smallest double is 2^-1074."""


class ExactSum:
    """The exact sums of doubles, one for each cell of a tensor.

    A double is written in digits of base 2^32, each a whole number, and the digits of each place are added as such. What
    is kept is therefore the same for the same addends in any order; only `value` rounds, once. A cell takes up to 2^31 addends.

    Idea: the pre-rounded summation of Demmel & Nguyen 2013, "Fast Reproducible Floating-Point Summation",
    doi:10.1109/ARITH.2013.9, with every digit kept in place of the leading ones.

    Args:
        shape: of the cells; () for one sum.

    Example:
        >>> total = ExactSum()
        >>> total.add(torch.tensor([1e16, 1.0, -1e16], dtype=torch.float64))
        >>> float(total.value)
        1.0
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.shape = shape
        self._digits: dict[int, Tensor] = {}  # place → whole numbers; none that is zero throughout

    def add(self, values: Float[Tensor, "N ..."]) -> None:
        """Adds N values to each cell.

        Raises:
            FailedError: one of them is NaN or infinite; the sums then hold part of them, or none.
        """
        rest = values.detach().to("cpu", torch.float64)
        # the digits of others would never come to an end
        check_finite(
            rest, "numbers to be summed are NaN or infinite: the network's are too large, or its weights are broken"
        )
        largest = float(rest.abs().max()) if rest.numel() else 0.0
        place = (math.frexp(largest)[1] - 1) // _BITS if largest else None  # of its leading digit
        while place is not None:
            unit = _unit(place)
            whole = (rest / unit).trunc_()
            self._add_digits(place, whole.long().sum(0))
            rest = rest - whole.mul_(unit)  # no step here rounds
            place = place - 1 if bool(rest.any()) else None

    def merge(self, other: ExactSum) -> None:
        """Takes in all that another sum has been given."""
        for place, digits in other._digits.items():
            self._add_digits(place, digits)

    @property
    def value(self) -> Float64[Tensor, "*cells"]:
        """The sums, each rounded to a double (to half a unit in the last place and 10^-16 of it).

        Raises:
            FailedError: one of them is too large for a double.
        """
        total, lost = torch.zeros(2, *self.shape, dtype=torch.float64)
        for place in sorted(self._digits, reverse=True):
            digits = self._digits[place]
            low = digits.fmod(2**_BITS)  # with the sign of the digits, so that no half is larger than the whole
            high = (digits - low) >> _BITS
            for term in (high.double() * _unit(place) * 2.0**_BITS, low.double() * _unit(place)):
                bigger = total + term
                added = bigger - total
                lost = lost + ((total - (bigger - added)) + (term - added))  # what the rounding left out, exactly
                total = bigger
        value = total + lost
        check_finite(value, "a sum is too large for a number of 64 bits: the network's numbers are out of scale")
        return value

    def _add_digits(self, place: int, digits: Tensor) -> None:
        old = self._digits.get(place)
        self._digits[place] = digits if old is None else old + digits


def _unit(place: int) -> float:
    """What a one at that place is worth."""
    return 2.0 ** max(_BITS * place, _LEAST)


class Summed:
    """A reducer that merges by adding up some of its attributes.

    Attributes:
        adds: their names; they are numbers, tensors, lists, other reducers, and dicts of these.
    """

    adds: ClassVar[tuple[str, ...]]

    def merge(self, other: Any) -> None:
        """Takes in all that another of the same kind has seen; the images must be others."""
        for name in self.adds:
            setattr(self, name, _added(getattr(self, name), getattr(other, name)))


class ByLayer(Summed):
    """A reducer that has one for each layer, in the network's order, and gives what each of them gives by the layer's name."""

    adds = ("parts",)
    parts: dict[str, Any]

    def result(self) -> dict[str, Any]:
        return {layer: part.result() for layer, part in self.parts.items()}


class ByImage(Summed):
    """A scan that measures each image by itself: a row an image, in whatever order they come."""

    adds = ("parts",)

    @cached_property
    def parts(self) -> list[dict[str, Tensor]]:
        return []

    def keep(self, index: Int[Tensor, " N"], **measured: Tensor) -> None:
        """Takes in tensors with a row for each image."""
        self.parts.append({"index": index.cpu()} | {name: tensor.cpu() for name, tensor in measured.items()})

    def result(self) -> Any:
        """`index` and all that was measured, by name, in the order of the images.

        Raises:
            RequestError: nothing was.
        """
        if not self.parts:
            raise RequestError("this scan has not seen an image yet; update it before asking for its result")
        joined = {name: torch.cat([part[name] for part in self.parts]) for name in self.parts[0]}
        order = joined["index"].argsort()
        return {name: tensor[order] for name, tensor in joined.items()}


def _added(own: Any, other: Any) -> Any:
    if isinstance(own, dict):
        return {name: _added(part, other[name]) for name, part in own.items()}
    if hasattr(own, "merge"):
        own.merge(other)
        return own
    return own + other
