"""Ablation as analyses and reports do it: units are replaced where the next layer reads them, named by their own layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convscope import graph, lenses
from convscope.errors import SettingError

if TYPE_CHECKING:
    from convscope.data import ImageSet
    from convscope.lenses import Units
    from convscope.scans import Ablation, LayerEffects
    from convscope.scope import Scope

_VALUE = {"zero_activation": "0", "mean_activation": "mean"}


@dataclass(frozen=True)
class AblationPlan:
    """How units of some layers are ablated; see `ablation_plan`.

    Attributes:
        how: see `convscope.lenses.ablate`.
        at: layer → the operation in whose result its units are replaced. With "zero_weights" the layer itself.
        words: for a heading, such as "0 behind the ReLU".
    """

    scope: Scope
    how: str
    at: dict[str, str]
    words: str

    def in_layer(self, layer: str) -> str:
        """For a row of a table, such as "0 in relu3"."""
        return "weights 0" if self.how == "zero_weights" else f"{_VALUE[self.how]} in {self.at[layer]}"

    def effects(
        self, images: ImageSet, units: Mapping[str, Units], screen: int | None = None
    ) -> dict[str, LayerEffects]:
        """`Scope.filter_effects` by layer; None stands for all units of one."""
        units_at = {self.at[layer]: some for layer, some in units.items()}
        effects = self.scope.filter_effects(images, units_at, self.how, screen)
        # With zero weights a layer that is used again is measured once, under its first name.
        return {layer: replace(effects[self.at[layer]], layer=layer) for layer in units if self.at[layer] in effects}

    def ablation(self, images: ImageSet, units: Mapping[str, list[int]]) -> Ablation:
        """`Scope.ablation` of units by layer.

        Raises:
            RequestError: a layer has no such unit.
        """
        ablation = self.scope.ablation(self.units_at(units), images, self.how)
        return replace(ablation, units={layer: list(some) for layer, some in units.items()})

    def units_at(self, units: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Units by the operation in whose result they are replaced, where several layers may have one operation.

        Raises:
            RequestError: a layer has no such unit.
        """
        units_at: dict[str, list[int]] = {}
        for layer, some in units.items():
            if self.at[layer] != layer:  # so that an error names the layer of the request
                lenses.choose_units(some, self.scope.n_units(layer), layer)
            units_at.setdefault(self.at[layer], []).extend(some)
        return units_at


def ablation_plan(scope: Scope, layers: Iterable[str], how: str | None = None) -> AblationPlan:
    """How units of these layers are ablated, where the next layer reads them; see `convscope.graph.where_read`.

    Args:
        layers: operations by name.
        how: "zero_activation", by default, for behind a batch norm a filter of zeros is not silent; "mean_activation";
            or "zero_weights".

    Raises:
        SettingError: `how` is none of the three.
        UnknownNameError: a layer is not in this network; the message lists those there are.
    """
    chosen = (how or "zero_activation").replace("-", "_")
    if chosen not in lenses.HOW:
        raise SettingError(f"--how {how}: expected zero_activation, mean_activation or zero_weights")
    if chosen == "zero_weights":
        return AblationPlan(scope, chosen, {layer: layer for layer in layers}, "weights and bias 0")
    at = {layer: graph.where_read(scope.graph, layer) for layer in layers}
    return AblationPlan(scope, chosen, at, f"{_VALUE[chosen]} {_place(scope, at)}")


def _place(scope: Scope, at: Mapping[str, str]) -> str:
    """Where the units are replaced, in words."""
    places = {
        None if at[layer] == layer else "ReLU" if graph.cuts_at_zero(scope.graph.operation(at[layer])) else "batch norm"
        for layer in at
    }
    for place in ("ReLU", "batch norm"):
        if place in places:
            return f"behind the {place}" + (", where one follows" if len(places) > 1 else "")
    return "in place of what the layer gives"
