"""Constants in place of what a layer gives for some of its units."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Intervention:
    """An ablation of some units of a layer: at all positions their activations are replaced by constants.

    Attributes:
        calls: the operations that give these activations: the layer's own, or all that run with the same filters.
        values: what the layer gives in place of each of its units, (U,).
        chosen: which units are replaced, (U,).
        unit_axis: of the results, counted with the batch's.
    """

    calls: tuple[str, ...]
    values: Float[Tensor, " U"]
    chosen: Bool[Tensor, " U"]
    unit_axis: int = 1

    @property
    def units(self) -> list[int]:
        """Those that are replaced, in ascending order."""
        return self.chosen.nonzero()[:, 0].tolist()

    def of(self, units: Iterable[int]) -> Intervention:
        """The same of these units alone."""
        chosen = torch.zeros_like(self.chosen)
        chosen[list(units)] = True
        return replace(self, chosen=chosen)

    def on(self, result: Tensor) -> Tensor:
        """A result of the layer with all chosen units replaced."""
        shape = (-1, *[1] * (result.ndim - 1 - self.unit_axis))  # of the axes from the units' on
        chosen, values = self.chosen.to(result.device), self.values.to(result)
        return torch.where(chosen.view(shape), values.view(shape), result)

    def instead(self, operator: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """What the layer gives, to be called in place of its operator; see `TracedGraph.run`."""
        return self.on(operator(*args, **kwargs))
