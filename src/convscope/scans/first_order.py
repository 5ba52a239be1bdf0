"""How much switching off each unit would matter, to first order: from gradients, without doing it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from convscope.graph import INPUT, TracedGraph, check_gradient
from convscope.nets import Head
from convscope.scans.exact import ExactSum
from convscope.scans.room import MAX_MEMORY
from convscope.scans.scan import Seen, Subject
from convscope.scans.silenced_layers import SilencedLayer


class FirstOrder:
    """A scan that estimates, for each unit of some layers, how much switching it off would matter.

    The change of an image's cross-entropy is ∂C/∂z · (v - z), summed over the positions of the unit's map z, with v what
    the layer gives for the unit when it is off. Its size is averaged over the images. What lies behind a unit is bent, so
    the estimate serves to rank units, not to tell their effects. The source divides by the number of positions, which is
    the same for all units of a layer, and scales the layers against each other; here layers are not compared.

    Args:
        scope: the network that is scanned.
        layers: by name.
        head: whose cross-entropy it is.
        max_memory: bytes for the images that are followed back at once, of which every result is held.

    Source: Molchanov et al. 2017, equations 5 to 8, arXiv 1611.06440.
    """

    needs_outputs = False

    def __init__(
        self, scope: Subject, layers: Mapping[str, SilencedLayer], head: Head, max_memory: int | None = None
    ) -> None:
        self.scope, self.silenced, self.head, self.max_memory, self.n = scope, dict(layers), head, max_memory, 0
        self.layers = (INPUT,)
        self.parts = {name: ExactSum((len(each.values),)) for name, each in layers.items()}

    def update(self, seen: Seen) -> None:
        graph, images, labels = self.scope.graph, seen.activations[INPUT], seen.targets[self.head.target]
        values_each = 2 * sum(prod(op.output_shape) for op in graph.operations)
        budget = self.max_memory or MAX_MEMORY
        for rows in torch.arange(len(images)).split(max(1, budget // (4 * values_each))):
            for name, change in self._changes(graph, images[rows.to(images.device)], labels[rows]).items():
                self.parts[name].add(change.abs())
        self.n += len(seen.index)

    def merge(self, other: FirstOrder) -> None:
        self.n += other.n
        for name, total in self.parts.items():
            total.merge(other.parts[name])

    def result(self) -> dict[str, Float64[Tensor, " U"]]:
        """For each layer the units' mean size of change, in nats; 0 for a unit that the answers do not hang on."""
        return {name: total.value / self.n for name, total in self.parts.items()}

    def _changes(
        self, graph: TracedGraph, images: Float[Tensor, "N C H W"], labels: Int64[Tensor, " N"]
    ) -> dict[str, Float[Tensor, "N U"]]:
        check_gradient(graph, images)
        names = list(dict.fromkeys(call for each in self.silenced.values() for call in each.calls))
        with torch.inference_mode(False), torch.enable_grad():
            pixels = images.clone().requires_grad_()  # so that frozen weights do not end the way back
            found = graph.run(pixels, [*names, graph.outputs[0]])
            loss = self.head.losses(found[graph.outputs[0]].float(), labels.to(images.device).clone()).sum()
            gradients = torch.autograd.grad(loss, [found[name] for name in names], allow_unused=True)
        slopes = dict(zip(names, gradients, strict=True))
        return {name: self._of_layer(each, found, slopes) for name, each in self.silenced.items()}

    def _of_layer(
        self, layer: SilencedLayer, found: Mapping[str, Tensor], slopes: Mapping[str, Tensor | None]
    ) -> Float[Tensor, "N U"]:
        total = torch.zeros(len(found[layer.calls[0]]), len(layer.values))
        for call in layer.calls:
            slope = slopes[call]
            if slope is not None:
                result, slope = (each.detach().movedim(layer.unit_axis, -1) for each in (found[call], slope))
                change = slope * (layer.values.to(result) - result)
                total += change.reshape(*total.shape[:1], -1, total.shape[1]).sum(1).float().cpu()
        return total
