"""How much ablating each unit would matter, to first order: from gradients, without doing it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from convscope.graph import INPUT, Intervention, TracedGraph, check_gradient
from convscope.nets import Head
from convscope.scans.exact import ExactSum
from convscope.scans.room import MAX_MEMORY
from convscope.scans.scan import BatchOutputs, Subject


class FirstOrder:
    """A scan that estimates, for each unit of some layers, how much its ablation would matter.

    The change of an image's cross-entropy is ∂C/∂z · (v - z), summed over the positions of the unit's map z, with v what
    the layer gives in its place. Its size is averaged over the images. What lies behind a unit is not linear, so the
    estimate serves to rank units, not to tell their effects. The source divides by the number of positions, which is
    the same for all units of a layer, and scales the layers against each other; here layers are not compared.

    Args:
        scope: the network that is scanned.
        interventions: by layer.
        head: whose cross-entropy it is.
        max_memory: bytes for the images that are followed back at once, of which every result is held.

    Source: Molchanov et al. 2017, equations 5 to 8, arXiv 1611.06440.
    """

    needs_outputs = False
    layers = (INPUT,)

    def __init__(
        self, scope: Subject, interventions: Mapping[str, Intervention], head: Head, max_memory: int | None = None
    ) -> None:
        self.scope, self.interventions, self.head, self.max_memory = scope, dict(interventions), head, max_memory
        self.n, self.sums = 0, {name: ExactSum((len(each.values),)) for name, each in interventions.items()}

    def update(self, seen: BatchOutputs) -> None:
        graph, images, labels = self.scope.graph, seen.activations[INPUT], seen.targets[self.head.target]
        values_each = 2 * sum(prod(op.output_shape) for op in graph.operations)
        budget = self.max_memory or MAX_MEMORY
        for rows in torch.arange(len(images)).split(max(1, budget // (4 * values_each))):
            self._add(graph, images[rows.to(images.device)], labels[rows])
        self.n += len(seen.index)

    def merge(self, other: FirstOrder) -> None:
        self.n += other.n
        for name, total in self.sums.items():
            total.merge(other.sums[name])

    def result(self) -> dict[str, Float64[Tensor, " U"]]:
        """For each layer the units' mean size of change, in nats; 0 for a unit on which the answers do not depend."""
        return {name: total.value / self.n for name, total in self.sums.items()}

    def _add(self, graph: TracedGraph, images: Float[Tensor, "N C H W"], labels: Int64[Tensor, " N"]) -> None:
        check_gradient(graph, images)
        calls = list(dict.fromkeys(call for each in self.interventions.values() for call in each.calls))
        with torch.inference_mode(False), torch.enable_grad():
            pixels = images.clone().requires_grad_()  # so that frozen weights do not end the way back
            results = graph.run(pixels, [*calls, graph.outputs[0]])
            loss = self.head.losses(results[graph.outputs[0]].float(), labels.to(images.device).clone()).sum()
            gradients = torch.autograd.grad(loss, [results[call] for call in calls], allow_unused=True)
        slopes = dict(zip(calls, gradients, strict=True))
        for name, each in self.interventions.items():
            total = torch.zeros(len(images), len(each.values))
            for call in each.calls:
                slope, result = slopes[call], results[call].detach().movedim(each.unit_axis, -1)
                if slope is not None:
                    change = slope.movedim(each.unit_axis, -1) * (each.values.to(result) - result)
                    total += change.reshape(len(images), -1, total.shape[1]).sum(1).float().cpu()
            self.sums[name].add(total.abs())
