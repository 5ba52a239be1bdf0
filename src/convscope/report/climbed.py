"""What most excites each unit of the convolutions, climbed for once and kept in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convscope.console import progress_bar
from convscope.draw import picture
from convscope.graph import relu_after
from convscope.report.subject import Subject
from convscope.scans import cached_scan

_STEPS = 48  # of gradient ascent: enough for form
_ALL, _FIRST = 512, 64  # units up to which all are climbed for, else of each layer
_WORK = 3e13  # multiply-adds in all: minutes
_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Climbed:
    """Pictures that most excite the first units of a layer.

    Attributes:
        layer: the layer asked for.
        looked_at: the ReLU that follows it, where one does; else the layer itself.
        pictures: one a unit, in whole numbers.
        activation: that each reaches, the mean over the map.
    """

    layer: str
    looked_at: str
    pictures: UInt8[Tensor, "n H W 3"]
    activation: Float[Tensor, " n"]

    def table(self) -> pd.DataFrame:
        """A row for each unit: layer, unit, activation."""
        return pd.DataFrame({"layer": self.layer, "unit": range(len(self.activation)), "activation": self.activation})


def climbed(subject: Subject, units: dict[str, int]) -> dict[str, Climbed]:
    """What most excites the units of each layer: of all, or of the first ones where they are many or the network is large.

    Args:
        subject: the run.
        units: how many each layer has.
    """
    most = _ALL if sum(units.values()) <= _ALL else _FIRST
    afford = max(
        1, int(_WORK / (3 * _STEPS * max(1, subject.anatomy.multiply_adds)) / len(units))
    )  # forwards, backwards
    asked = {layer: min(n, most, afford) for layer, n in units.items()}
    scope, settings = subject.scope, {"units": asked, "steps": _STEPS}
    return cached_scan(scope, "maximized", subject.data.test, settings, Climbed, lambda: _climb(subject, asked))


def _climb(subject: Subject, asked: dict[str, int]) -> dict[str, Climbed]:
    found = {}
    with progress_bar("what excites units", sum(asked.values()), "units") as advance:
        for layer, n in asked.items():
            looked_at = relu_after(subject.scope.graph, layer) or layer
            parts: list[tuple[Any, Tensor]] = []
            for units in torch.arange(n).split(_AT_ONCE):
                parts.append(_pictures(subject, looked_at, units.tolist()))
                advance(len(units))
            pictures, activation = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            found[layer] = Climbed(layer, looked_at, pictures, activation)
    return found


def _pictures(subject: Subject, layer: str, units: Sequence[int]) -> tuple[Tensor, Tensor]:
    made = subject.scope.maximize(layer, units, steps=_STEPS)
    return torch.stack([torch.from_numpy(picture(one)) for one in made.picture]), made.activation.float().cpu()
