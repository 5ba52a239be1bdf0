"""Feature visualization: images that maximize units, made by gradient ascent; those of the filter page are cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convscope.base.console import progress_bar
from convscope.draw import enlarge_to, picture, sheet
from convscope.errors import NetworkError
from convscope.graph import relu_after
from convscope.report.subject import ReportedRun
from convscope.scans import cached_scan

_STEPS = 48  # of gradient ascent: enough for form
_SHOWN_STEPS = 64  # in the report, where pictures are larger
_UNITS = {"first": 24, "deep": 12}
_CLASSES = 10
_ALL, _FIRST = 512, 64  # units up to which all are visualized, else of each layer
_WORK = 3e13  # multiply-adds in all: minutes
_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Visualizations:
    """Pictures that maximally activate the first units of a layer.

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


def visualizations(subject: ReportedRun, units: dict[str, int]) -> dict[str, Visualizations]:
    """Feature visualizations of each layer's units: of all, or of the first where they are many or the network is large.

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
    return cached_scan(
        scope, "maximized", subject.data.test, settings, Visualizations, lambda: _visualize(subject, asked)
    )


def _visualize(subject: ReportedRun, asked: dict[str, int]) -> dict[str, Visualizations]:
    found = {}
    with progress_bar("feature visualization", sum(asked.values()), "units") as advance:
        for layer, n in asked.items():
            looked_at = relu_after(subject.scope.graph, layer) or layer
            parts: list[tuple[Any, Tensor]] = []
            for units in torch.arange(n).split(_AT_ONCE):
                parts.append(_pictures(subject, looked_at, units.tolist()))
                advance(len(units))
            pictures, activation = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            found[layer] = Visualizations(layer, looked_at, pictures, activation)
    return found


def _pictures(subject: ReportedRun, layer: str, units: Sequence[int]) -> tuple[Tensor, Tensor]:
    made = subject.scope.maximize(layer, units, steps=_STEPS)
    return torch.stack([torch.from_numpy(picture(one)) for one in made.picture]), made.activation.float().cpu()


def feature_visualization(subject: ReportedRun) -> list[dict[str, Any]]:
    """What maximally activates the first units of the first convolution and of the last, and the classes."""
    try:
        graph = subject.scope.graph
    except NetworkError:
        return []
    convolutions = [op.name for op in graph.operations if op.kind == "conv"]
    asked: list[tuple[str | None, int]] = [(name, _UNITS["first"]) for name in convolutions[:1]]
    asked += [(name, _UNITS["deep"]) for name in convolutions[-1:] if name not in convolutions[:1]]
    asked.append((None, _CLASSES))
    found = []
    for name, most in asked:
        layer = name and (relu_after(graph, name) or name)
        n_units = subject.scope.n_units(layer)
        shown = subject.scope.maximize(layer, list(range(min(most, n_units))), steps=_SHOWN_STEPS)
        pictures = [enlarge_to(one, 64) for one in map(picture, shown.picture)]
        names = [subject.scope.output_name(unit) for unit in shown.units] if layer is None else None
        found.append({
            "layer": layer,
            "units": n_units,
            "shown": len(pictures),
            "names": names,
            "low": float(shown.activation.min()),
            "high": float(shown.activation.max()),
            "picture": sheet(pictures, columns=6 if layer else 5, gap=4),
        })  # fmt: skip
    return found
