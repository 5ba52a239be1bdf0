"""Which units an answer to one image rests on: the change of the target's logit when each is ablated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from convscope.errors import RequestError
from convscope.graph import TracedGraph
from convscope.lenses.gradients import portions_of_pass
from convscope.lenses.targets import Target, resolve_target
from convscope.lenses.units import units_and_axis


@dataclass(frozen=True, eq=False)
class UnitEffects:
    """What ablating each of some units does to the answer to one image; the largest drop of the logit comes first.

    Attributes:
        layers: whose unit each is.
        units: its number in the layer, (M,).
        logit_change: of the target, after less before, (M,): negative where the unit speaks for the target.
        probability_change: of the target, after less before, (M,).
        estimate: of the change of the logit, to first order, by which the units were chosen, (M,).
        target: the class.
        probability: of it, with all units.
    """

    layers: list[str]
    units: Int[Tensor, " M"]
    logit_change: Float[Tensor, " M"]
    probability_change: Float[Tensor, " M"]
    estimate: Float[Tensor, " M"]
    target: int
    probability: float


def unit_effects(
    graph: TracedGraph,
    image: Float[Tensor, "N C H W"],
    at: Sequence[str],
    target: Target = None,
    measured: int = 200,
) -> UnitEffects:
    """The change of the target's logit when a unit's result is replaced by 0, one unit at a time, for one image.

    All units are ranked by a first-order estimate of the change, −Σ activation · gradient over the positions (Molchanov et al.
    2017, arXiv 1611.06440, equation 7, with its sign); those with the largest drops are measured, by running what lies behind.

    Args:
        graph: the traced network.
        image: one, normalised.
        at: operations in whose results units are ablated.
        target: see `Target`.
        measured: how many units are measured.

    Raises:
        UnknownNameError: there is no such operation.
        RequestError: there is more than one image, or no layer; or the network gives no row of logits, or a layer's units
            are not known.
    """
    if len(image) != 1:
        raise RequestError(f"images: {len(image)}; expected one")
    if not at:
        raise RequestError("layers: there is none; give one at least, such as ['conv1']")
    resolved = resolve_target(graph, image, target)
    axes = {name: units_and_axis(graph, name)[1] for name in at}
    with torch.inference_mode(False), torch.enable_grad():
        pixels = image.clone().detach().requires_grad_()
        results = graph.run(pixels, list(dict.fromkeys([*at, resolved.operation])))
        score, fields = resolved.read(results[resolved.operation])
        layers = {name: results[name] for name in at}
        gradients = torch.autograd.grad(score.sum(), list(layers.values()), allow_unused=True)
    estimates = {
        name: -(result.detach() * gradient).movedim(axes[name], 0).flatten(1).sum(1).cpu()
        for (name, result), gradient in zip(layers.items(), gradients, strict=True)
        if gradient is not None
    }
    estimate = torch.cat(list(estimates.values()) or [torch.zeros(0)])
    owner = [(name, unit) for name, values in estimates.items() for unit in range(len(values))]
    chosen = estimate.argsort(stable=True)[:measured]
    rows = [owner[place] for place in chosen.tolist()]
    logits = _ablated(graph, image, layers, axes, rows)
    assert resolved.target is not None
    task, target = resolved.target.task, int(fields["target"][0])
    change = task.scores(logits)[:, target] - score.detach().cpu()
    order = change.argsort(stable=True)
    return UnitEffects(
        layers=[rows[k][0] for k in order.tolist()],
        units=torch.tensor([rows[k][1] for k in order.tolist()], dtype=torch.int64),
        logit_change=change[order],
        probability_change=(task.probabilities(logits)[:, target] - fields["probability"].cpu())[order],
        estimate=estimate[chosen[order]],
        target=target,
        probability=float(fields["probability"][0]),
    )


@torch.no_grad()
def _ablated(
    graph: TracedGraph,
    image: Tensor,
    layers: Mapping[str, Tensor],
    axes: Mapping[str, int],
    rows: Sequence[tuple[str, int]],
) -> Float[Tensor, "M K"]:
    """The network's answers with each unit ablated."""
    output = graph.operation(graph.outputs[0])
    answers = torch.empty((len(rows), *output.output_shape), dtype=image.dtype)
    for name, result in layers.items():
        of_layer = [k for k, row in enumerate(rows) if row[0] == name]
        for some in portions_of_pass(graph, output.name, len(of_layer), image):
            part = of_layer[some]
            changed = result.detach().repeat_interleave(len(part), 0)
            changed.movedim(axes[name], 1)[torch.arange(len(part)), [rows[k][1] for k in part]] = 0
            images = image.expand(len(part), *image.shape[1:])
            answers[part] = graph.run(images, [output.name], given={name: changed})[output.name].cpu()
    return answers
