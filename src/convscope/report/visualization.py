"""Feature visualization: images that maximize units, made by gradient ascent; those of the filter page are cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, TypeVar

import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convscope.base.console import progress_bar
from convscope.compute import share_threads
from convscope.draw import enlarge_to, picture, sheet
from convscope.errors import NetworkError
from convscope.graph import relu_after
from convscope.lenses import convolutions
from convscope.report.budget import Fit
from convscope.report.subject import ReportedRun
from convscope.scans import cached_scan

In = TypeVar("In")
Out = TypeVar("Out")

_STEPS = 48  # of gradient ascent: enough for form
_SHOWN_STEPS = 64  # in the report, where pictures are larger
_FIRST_UNITS, _LAST_UNITS, _CLASSES = 24, 12, 10  # shown of the first convolution, of the last, and of the classes
_ALL, _FIRST = 512, 64  # units up to which all are visualized, else of each layer
_AT_ONCE = 32
_WAYS = 3  # forwards and backwards, in passes forwards
_PER_PIXEL = 2000  # multiply-adds in a step, for each number of the picture: its Fourier transform, Adam


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
    """Feature visualizations of each layer's units: of all, or of the first where they are many or the network is large; none
    where not even one of each layer fits the budget.

    Args:
        subject: the run.
        units: how many each layer has.
    """
    most = visualization_fit(subject, units).n
    if not most:
        return {}
    counts = {layer: min(n, most) for layer, n in units.items()}
    scope, settings = subject.scope, {"units": counts, "steps": _STEPS}
    return cached_scan(
        scope, "maximized", subject.data.test, settings, Visualizations, lambda: _visualize(subject, counts)
    )


def visualization_fit(subject: ReportedRun, units: dict[str, int]) -> Fit:
    """How many units of a layer are visualized at most."""
    most = max(units.values()) if sum(units.values()) <= _ALL else min(_FIRST, max(units.values()))
    return _fit(subject, "Filters: feature visualization", most, units, _STEPS)


def _fit(subject: ReportedRun, part: str, most: int, units: Mapping[Any, int], steps: int) -> Fit:
    """By the multiply-adds of one picture of each layer; None among the layers stands for the classes."""
    pixels = _PER_PIXEL * prod(subject.run.input_shape)
    each = {layer: steps * (_WAYS * subject.work_up_to(layer) + pixels) for layer in units}
    return Fit.of(
        subject.minutes, part, most, lambda most: sum(min(n, most) * each[layer] for layer, n in units.items())
    )


def _visualize(subject: ReportedRun, counts: dict[str, int]) -> dict[str, Visualizations]:
    looked_at = {layer: relu_after(subject.scope.graph, layer) or layer for layer in counts}
    tasks = [(layer, units.tolist()) for layer, n in counts.items() for units in torch.arange(n).split(_AT_ONCE)]

    def work(task: tuple[str, list[int]]) -> tuple[Tensor, Tensor]:
        return _pictures(subject, looked_at[task[0]], task[1])

    parts: dict[str, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in counts}
    with progress_bar("feature visualization", sum(counts.values()), "units") as advance:
        for (layer, units), part in zip(tasks, _shared(work, tasks), strict=True):
            parts[layer].append(part)
            advance(len(units))
    tensors = {layer: [torch.cat(column) for column in zip(*pairs, strict=True)] for layer, pairs in parts.items()}
    return {layer: Visualizations(layer, looked_at[layer], *pair) for layer, pair in tensors.items()}


def _shared(work: Callable[[In], Out], tasks: Sequence[In]) -> Iterator[Out]:
    """The results, a task in each thread: maps are so small that threads within one operation wait for each other.

    The first is worked out alone, for it checks the network's gradient, once for all.
    """
    return chain(map(work, tasks[:1]), share_threads(work, tasks[1:]))


def _pictures(subject: ReportedRun, layer: str, units: Sequence[int]) -> tuple[Tensor, Tensor]:
    result = subject.scope.maximize(layer, units, steps=_STEPS)
    return torch.stack([torch.from_numpy(picture(one)) for one in result.picture]), result.activation.float().cpu()


def feature_visualization(subject: ReportedRun) -> dict[str, Any] | None:
    """What maximally activates the first units of the first convolution and of the last, and the classes; None where the
    network cannot be traced."""
    try:
        counts = _asked(subject)
    except NetworkError:
        return None
    fit = feature_visualization_fit(subject)
    fitting = {layer: min(n, fit.n) for layer, n in counts.items() if fit.n}
    parts = []
    with progress_bar("units", sum(fitting.values()), "units") as advance:
        for n, part in zip(
            fitting.values(), _shared(lambda task: _shown(subject, *task), list(fitting.items())), strict=True
        ):
            parts.append(part)
            advance(n)
    return {"fit": fit, "parts": parts}


def feature_visualization_fit(subject: ReportedRun) -> Fit:
    """How many units of a layer, and classes, at most."""
    counts = _asked(subject)
    return _fit(subject, "Feature visualization", max(counts.values()), counts, _SHOWN_STEPS)


def _asked(subject: ReportedRun) -> dict[str | None, int]:
    """How many units of each layer; None stands for the classes."""
    graph, scope = subject.scope.graph, subject.scope
    names = convolutions(graph)
    most = dict.fromkeys(names[:1], _FIRST_UNITS) | dict.fromkeys(names[1:][-1:], _LAST_UNITS)
    layers: dict[str | None, int] = {relu_after(graph, name) or name: n for name, n in most.items()}
    return {layer: min(n, scope.n_units(layer)) for layer, n in (layers | {None: _CLASSES}).items()}


def _shown(subject: ReportedRun, layer: str | None, n: int) -> dict[str, Any]:
    """A sheet of the first units of a layer, or of the classes."""
    maximized = subject.scope.maximize(layer, list(range(n)), steps=_SHOWN_STEPS)
    return {
        "layer": layer,
        "units": subject.scope.n_units(layer),
        "shown": n,
        "names": [subject.scope.output_name(unit) for unit in maximized.units] if layer is None else None,
        "low": float(maximized.activation.min()),
        "high": float(maximized.activation.max()),
        "picture": sheet(
            [enlarge_to(one, 64) for one in map(picture, maximized.picture)], columns=6 if layer else 5, gap=4
        ),
    }
