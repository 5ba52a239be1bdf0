"""The layers whose units are switched off: in which results, by what, which of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.errors import RequestError
from convscope.graph import Operation, Silenced, TracedGraph
from convscope.lenses import Units, choose_units
from convscope.scans.layers import LayerMap, layer_maps
from convscope.scans.scan import Images, PassSettings, Subject
from convscope.scans.statistics import statistics

UnitsOf = Sequence[str] | str | Mapping[str, Units]
"""Layers, by names, patterns or kinds, with all their units; or each with those units that are meant."""

_FILTERED = ("conv", "conv_transpose", "dense")


@dataclass(frozen=True, eq=False)
class SilencedLayer:
    """A layer whose units are switched off, one at a time.

    Attributes:
        calls: the operations in whose results they are: all that share its filters, or the layer's own.
        unit_axis: of their results, counted with the batch's.
        values: what the layer gives for each unit then, (U,).
        units: those to switch off, in ascending order.
    """

    calls: tuple[str, ...]
    unit_axis: int
    values: Float[Tensor, " U"]
    units: tuple[int, ...]

    def in_graph(self, graph: TracedGraph) -> Silenced:
        """How they are switched off there."""
        return Silenced(graph, self.calls, self.unit_axis)

    def screened(self, estimate: Float[Tensor, " U"], n: int) -> SilencedLayer:
        """The same, with those `n` of its units alone whose estimates are largest; of equal ones the first."""
        units = torch.tensor(self.units)
        largest = units[estimate[units].argsort(descending=True, stable=True)[:n]].sort().values
        return replace(self, units=tuple(largest.tolist()))

    def together(self, operator: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """What the layer gives with all of them off, in place of what its operator does."""
        last = operator(*args, **kwargs).movedim(self.unit_axis, -1).clone()
        units = list(self.units)
        last[..., units] = self.values[units].to(last)
        return last.movedim(-1, self.unit_axis)


class WithoutUnits(nn.Module):
    """A network in which units of some layers are off together, in the results of its traced operations.

    So functions can be among the layers, and single calls of a module that is used again, which a hook on a module cannot
    tell apart.

    Args:
        scope: over the network, which it traces anew in another process.
        layers: operation → the units that are off, and what it gives for them.
    """

    def __init__(self, scope: Subject, layers: Mapping[str, SilencedLayer]) -> None:
        super().__init__()
        self.net, self.layers, self._scope = scope.net, dict(layers), scope

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        graph = self._scope.graph
        instead = {name: each.together for name, each in self.layers.items()}
        return graph.run(images, instead=instead)[graph.outputs[0]]


def with_means(
    scope: Subject, images: Images, layers: Mapping[str, SilencedLayer], **settings: Unpack[PassSettings]
) -> dict[str, SilencedLayer]:
    """The same, but that units give their mean over these images and all positions when they are off."""
    means = statistics(scope, images, list(layers), correlations=False, **settings)
    return {name: replace(each, values=means[name].mean) for name, each in layers.items()}


def silenced_layers(graph: TracedGraph, layers: UnitsOf, how: str) -> dict[str, SilencedLayer]:
    """Those that are meant, in the network's order, with the units that are meant, which give 0 when they are off.

    With "zero_weights" a layer that is used again is one, under its first name.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        RequestError: a layer's units are not known, or it has no such unit, or with "zero_weights" it has no filters.
    """
    if isinstance(layers, Mapping):
        return _with_units(graph, layers, how)
    found = {}
    for each in layer_maps(graph, layers):
        calls = _sharing_filters(graph, graph.operation(each.name)) if how == "zero_weights" else (each.name,)
        values, units = torch.zeros(each.n_units), tuple(range(each.n_units))
        found[calls[0]] = SilencedLayer(calls, _unit_axis(each), values, units)
    return found


def _with_units(graph: TracedGraph, layers: Mapping[str, Units], how: str) -> dict[str, SilencedLayer]:
    chosen: dict[str, set[int]] = {}
    for asked, units in layers.items():
        for name, each in silenced_layers(graph, [asked], how).items():
            chosen.setdefault(name, set()).update(choose_units(units, len(each.values), name))
    whole = silenced_layers(graph, list(layers), how)
    return {name: replace(each, units=tuple(sorted(chosen[name]))) for name, each in whole.items()}


def _sharing_filters(graph: TracedGraph, op: Operation) -> tuple[str, ...]:
    """The operations that run with the same filters: calls of one module, not of another with the same weights."""
    if op.kind not in _FILTERED:
        raise RequestError(
            f"layer {op.name!r} is a {op.kind} and has no filters of its own; name a convolution or dense layer, "
            "or give how='zero_activation'"
        )
    others = (other for other in graph.operations if other.kind == op.kind)
    return tuple(other.name for other in others if _filters(graph, other) == _filters(graph, op))


def _filters(graph: TracedGraph, op: Operation) -> tuple[int, object]:
    return id(graph.net.get_submodule(op.module)), op.node.args[1]


def _unit_axis(layer: LayerMap) -> int:
    taken = layer.where.axes if layer.where else ()
    return next(axis for axis in (1, 2, 3) if axis not in taken)
