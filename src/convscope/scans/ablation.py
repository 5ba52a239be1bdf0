"""The effect of ablating a chosen set of units, together, on a network's answers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.errors import NetworkError
from convscope.graph import Intervention, TracedGraph
from convscope.lenses import Units, check_how
from convscope.scans.answered import answers_of_both
from convscope.scans.cached import cached_record
from convscope.scans.effects import Ablation
from convscope.scans.filter_effects import interventions_over
from convscope.scans.scan import AnyImages, Images, PassSettings, Subject, shown, sizes


class IntervenedNet(nn.Module):
    """A network with interventions in the results of its traced operations; for its outputs alone.

    Args:
        scope: over the network, which it traces anew in another process.
        interventions: by operation.
    """

    def __init__(self, scope: Subject, interventions: Mapping[str, Intervention]) -> None:
        super().__init__()
        self.net, self.interventions, self._scope = scope.net, dict(interventions), scope

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        graph = self._scope.graph
        instead = {call: each.instead for each in self.interventions.values() for call in each.calls}
        return graph.run(images, instead=instead)[graph.outputs[0]]


def ablation(
    scope: Subject,
    layers: Mapping[str, Units],
    images: AnyImages,
    how: str = "zero_weights",
    **settings: Unpack[PassSettings],
) -> Ablation:
    """What a network answers to images, beside what it answers with a chosen set of units ablated.

    Two passes over the same batches. In the folder of a run the result is kept, and found again.

    Args:
        scope: the network, a `Scope`.
        layers: path of a module → its units, see `convscope.lenses.ablate`. An activation may also be that of a function,
            or of one call of a module that is used again, by its name in the graph.
        images: a set with the classes that the network tells apart. For a network of several heads the first counts.
        how: see `convscope.lenses.ablate`. The mean of "mean_activation" is over these images; where all layers are
            modules that run once, they are all held in memory for it.
        settings: batch_size, max_memory, workers, progress; see `scan`.

    Returns:
        An `Ablation`: each image's answers, and from them accuracies, differences with paired intervals, confusion
        matrices, and the images that flip.

    Raises:
        UnknownNameError, RequestError, SettingError: as of `convscope.lenses.ablate`; or there are no images, or they came
            without classes or with others.
        FailedError: the network gives NaN or infinity.

    Source: Morcos et al. 2018, arXiv 1803.06959; the interval: Newcombe 1998, see `paired_difference`.

    Example:
        >>> result = ablation(scope, {"conv1": [3, 5]}, data.test)
        >>> result.change(), result.change(of_class=0), result.lost, result.confusion_change
    """
    images, of_pass = shown(scope, images), sizes(settings, ["layers", "how"])
    edited = _ablated(scope, layers, images, how, **settings)
    units = {
        layer: list(range(scope.n_units(layer))) if chosen is None else torch.as_tensor(chosen).reshape(-1).tolist()
        for layer, chosen in layers.items()
    }

    def make() -> Ablation:
        return Ablation(units=units, how=how, **answers_of_both(scope, edited, images, **settings))

    request = {"units": list(map(list, units.items())), "how": how}
    return cached_record(scope, "ablation", images, request | of_pass, Ablation, make)


def _ablated(
    scope: Subject, layers: Mapping[str, Units], images: Images, how: str, **settings: Unpack[PassSettings]
) -> Subject:
    """Over an edited copy, or, where an activation is that of no module, over the network with interventions in its graph."""
    check_how(how)
    graph = None if how == "zero_weights" else graph_of(scope)
    if graph is None or all(_is_run_once(graph, layer) for layer in layers):
        return scope.ablate(layers, how, images if how == "mean_activation" else None)
    edited = copy(scope)
    edited.net = IntervenedNet(scope, interventions_over(scope, images, layers, how, **settings))
    edited.graph = graph  # type: ignore[misc]  # of the network as it is: the copy is there for its answers alone
    return edited


def graph_of(scope: Subject) -> TracedGraph | None:
    """The traced network; None where it cannot be traced, and there are modules alone."""
    try:
        return scope.graph
    except NetworkError:
        return None


def _is_run_once(graph: TracedGraph, layer: str) -> bool:
    """Whether it is a module that runs once in a pass, or is not known to be anything else."""
    calls = [op.name for op in graph.operations if op.module == layer]
    again = [name for name in calls if name != layer and not name.startswith(f"{layer}.")]
    return not again and (bool(calls) or layer not in graph.by_name)
