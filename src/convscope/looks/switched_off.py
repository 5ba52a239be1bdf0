"""Units switched off as looks and reports do it: where the next layer reads them, told by the layers that were named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from convscope.data import ImageSet
from convscope.errors import SettingError
from convscope.graph import TracedGraph, cuts_at_zero, where_read
from convscope.lenses import HOW, Units, choose_units
from convscope.scans import Ablation, LayerEffects
from convscope.scope import Scope

USUAL = "zero_activation"
"""How, where nothing else is asked for: a filter of zeros is not silent behind a batch norm."""

_VALUE = {"zero_activation": "0", "mean_activation": "mean"}


@dataclass(frozen=True)
class SwitchedOff:
    """How units of some layers are switched off.

    Attributes:
        how: see `convscope.lenses.ablate`.
        at: layer, as named → the operation in whose result they are replaced: where the next layer reads
            them, see `convscope.graph.where_read`. With "zero_weights" the layer itself.
        words: for a heading, such as "0 behind the ReLU".
    """

    how: str
    at: dict[str, str]
    words: str

    def in_layer(self, layer: str) -> str:
        """For a row of a table, such as "0 in relu3"."""
        return "weights 0" if self.how == "zero_weights" else f"{_VALUE[self.how]} in {self.at[layer]}"


def switched_off(scope: Scope, layers: Iterable[str], how: str | None = None) -> SwitchedOff:
    """How units of these layers are switched off.

    Args:
        layers: operations by name.
        how: "zero_activation", by default; "mean_activation"; or "zero_weights".

    Raises:
        SettingError: `how` is none of the three.
        UnknownNameError: a layer is not in this network; the message lists those there are.
    """
    chosen = (how or USUAL).replace("-", "_")
    if chosen not in HOW:
        raise SettingError(f"--how {how}: expected zero_activation, mean_activation or zero_weights")
    if chosen == "zero_weights":
        return SwitchedOff(chosen, {layer: layer for layer in layers}, "weights and bias 0")
    at = {layer: where_read(scope.graph, layer) for layer in layers}
    return SwitchedOff(chosen, at, f"{_VALUE[chosen]} {_place(scope.graph, at)}")


def effects_without(
    scope: Scope, images: ImageSet, units: Mapping[str, Units], off: SwitchedOff, screen: int | None = None
) -> dict[str, LayerEffects]:
    """`filter_effects` by the layers that were named.

    Args:
        units: layer → those to measure; None for all.
        off: how, for these layers.
        screen: see `convscope.scans.filter_effects`.
    """
    found = scope.filter_effects(images, {off.at[layer]: some for layer, some in units.items()}, off.how, screen)
    # With zero weights a layer that is used again is measured once, under its first name.
    return {layer: replace(found[off.at[layer]], layer=layer) for layer in units if off.at[layer] in found}


def ablation_without(scope: Scope, images: ImageSet, units: Mapping[str, list[int]], off: SwitchedOff) -> Ablation:
    """`ablation` by the layers that were named.

    Raises:
        RequestError: a layer has no such unit.
    """
    switched: dict[str, list[int]] = {}
    for layer, some in units.items():
        if off.at[layer] != layer:  # to be told of the layer that was named
            choose_units(some, scope.n_units(layer), layer)
        switched.setdefault(off.at[layer], []).extend(some)
    found = scope.ablation(switched, images, off.how)
    return replace(found, units={layer: list(some) for layer, some in units.items()})


def _place(graph: TracedGraph, at: Mapping[str, str]) -> str:
    """Where the units are replaced, in words."""
    places = {_kind(graph, layer, at[layer]) for layer in at}
    for place in ("ReLU", "batch norm"):
        if place in places:
            return f"behind the {place}" + (", where one follows" if len(places) > 1 else "")
    return "in place of what the layer gives"


def _kind(graph: TracedGraph, layer: str, at: str) -> str | None:
    if at == layer:
        return None
    return "ReLU" if cuts_at_zero(graph.operation(at)) else "batch norm"
