"""The effect of each filter on the answers: a scan of a network whose units are ablated one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Any, Unpack

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from convscope.graph import INPUT, Intervention, TracedGraph, UnitRuns, check_gradient
from convscope.lenses import UnitsOf, check_how, interventions
from convscope.nets import Head
from convscope.scans.answered import Answered, answered, head_of
from convscope.scans.cached import cached_scan
from convscope.scans.effects import LayerEffects
from convscope.scans.exact import ByLayer, ExactSum, Summed
from convscope.scans.room import MAX_MEMORY, rows_that_fit
from convscope.scans.scan import AnyImages, BatchOutputs, Images, PassSettings, Subject, check_count, scan, shown, sizes


class _UnitMeans(Summed):
    """A scan of a number for each unit of some layers, averaged over the images."""

    adds = ("n", "sums")

    def __init__(self, interventions: Mapping[str, Intervention]) -> None:
        self.interventions, self.n = dict(interventions), 0
        self.sums = {name: ExactSum((len(each.values),)) for name, each in interventions.items()}

    def result(self) -> dict[str, Float64[Tensor, " U"]]:
        """By the layer's name."""
        return {name: total.value / self.n for name, total in self.sums.items()}


class FirstOrder(_UnitMeans):
    """A scan that estimates, for each unit of some layers, how much its ablation would matter.

    The change of an image's cross-entropy is ∂C/∂z · (v - z), summed over the positions of the unit's map z, with v what
    the layer gives in its place. Its size is averaged over the images. What lies behind a unit is not linear, so the
    estimate serves to rank units, not to tell their effects. The source divides by the number of positions, which is
    the same for all units of a layer, and scales the layers against each other; here layers are not compared.
    The result has for each layer its units' mean size of change, in nats; 0 for a unit on which the answers do not depend.

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
        super().__init__(interventions)
        self.scope, self.head, self.max_memory = scope, head, max_memory

    def update(self, seen: BatchOutputs) -> None:
        graph, images, labels = self.scope.graph, seen.activations[INPUT], seen.targets[self.head.target]
        values_each = 2 * sum(prod(op.output_shape) for op in graph.operations)
        budget = self.max_memory or MAX_MEMORY
        for rows in torch.arange(len(images)).split(max(1, budget // (4 * values_each))):
            self._add(graph, images[rows.to(images.device)], labels[rows])
        self.n += len(seen.index)

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


def filter_effects(
    scope: Subject,
    images: AnyImages,
    layers: UnitsOf = "conv",
    how: str = "zero_weights",
    screen: int | None = None,
    **settings: Unpack[PassSettings],
) -> dict[str, LayerEffects]:
    """The effect of ablating each filter of some layers, one at a time, on the answers to a set of images.

    Nothing is run that a filter has no part in, see `convscope.graph.UnitRuns`: for a batch the network runs once, and for
    each unit only what lies behind it, on the images to which it makes a difference. Figures are those of whole passes of
    an edited network, to rounding: an image whose two best classes are equal to rounding may be counted either way. In the
    folder of a run the result is kept, and found again.

    Args:
        scope: the network, a `Scope`.
        images: a set with the classes that the network tells apart. For a network of several heads the first counts.
        layers: names, patterns or kinds, see `convscope.lenses.select_layers`; all convolutions by default. A layer that
            is used again counts once, under its first name. With `{"conv1": [0, 3]}` these units alone.
        how: what becomes of a unit's output, see `convscope.lenses.ablate`: "zero_weights" (filter and bias are 0),
            "zero_activation", or "mean_activation" (its mean over these images, from a pass of its own). Behind a batch
            norm zero weights do not silence a unit: it then gives one constant everywhere, which can harm more than its
            loss. To silence a convolution take "zero_activation" in `convscope.graph.where_read`, the ReLU behind it.
        screen: measure only so many units of each layer, those that matter most to first order, see `FirstOrder`; the
            result says which were measured. Costs one pass forward and back. None measures all.
        settings: batch_size, max_memory, workers, progress; see `scan`.

    Returns:
        Layer → `LayerEffects`, in the network's order: accuracy and mean probability of the true class without each unit,
        overall and by class, differences with paired intervals, the images that flip.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        RequestError: a layer has no filters or no such unit, or its units are not known; there are no images, or they
            came without classes; an operation behind a layer mixes the images of a batch.
        SettingError: `how` or `screen` is out of range.
        FailedError: the network gives NaN or infinity.

    Source: Morcos et al. 2018, arXiv 1803.06959; the screen: Molchanov et al. 2017, arXiv 1611.06440.

    Example:
        >>> effects = filter_effects(scope, data.test)["conv3"]
        >>> effects.accuracy_after.argmin(), effects.change(7), effects.lost_images(7)
    """
    images = shown(scope, images)
    check_how(how)
    if screen is not None:
        check_count("screen", screen)

    def make() -> dict[str, LayerEffects]:
        head = head_of(scope, images)
        by_layer = interventions_over(scope, images, layers, how, **settings)
        estimates: dict[str, Tensor] = {}
        if screen is not None:
            first_order = FirstOrder(scope, by_layer, head, settings.get("max_memory"))
            [estimates] = scan(scope, images, [first_order], **settings)
            by_layer = {name: _screened(each, estimates[name], screen) for name, each in by_layer.items()}
        effects = FilterEffects(scope, by_layer, head, how, estimates, settings.get("max_memory"))
        [measured] = scan(scope, images, [effects], **settings)
        return measured

    named = dict(layers) if isinstance(layers, Mapping) else layers
    request = {"layers": named, "how": how, "screen": screen}
    return cached_scan(scope, "filter-effects", images, request | sizes(settings, request), LayerEffects, make)


def interventions_over(
    scope: Subject, images: Images, layers: UnitsOf, how: str, **settings: Unpack[PassSettings]
) -> dict[str, Intervention]:
    """Those of `convscope.lenses.interventions`; with "mean_activation" the means are those over these images."""
    zeros = interventions(scope.graph, layers, how)
    if how != "mean_activation":
        return zeros
    [means] = scan(scope, images, [_Means(zeros)], **settings)
    return {name: replace(each, values=means[name]) for name, each in zeros.items()}


class _Means(_UnitMeans):
    """A scan of the mean of each unit over all that an intervention replaces: over a class token, too."""

    def __init__(self, interventions: Mapping[str, Intervention]) -> None:
        super().__init__(interventions)
        self.layers = tuple(interventions)

    def update(self, seen: BatchOutputs) -> None:
        self.n += len(seen.index)
        for name, each in self.interventions.items():
            units_last = seen.activations[name].movedim(each.unit_axis, -1).double()
            self.sums[name].add(units_last.reshape(len(units_last), -1, len(each.values)).mean(1))


def _screened(each: Intervention, estimate: Tensor, n: int) -> Intervention:
    """The same for the `n` units whose estimates are largest; of equal ones the first."""
    order = estimate[each.chosen].argsort(descending=True, stable=True)[:n]
    return each.of(torch.tensor(each.units)[order].tolist())


class FilterEffects(ByLayer):
    """A scan of the effects of ablating units, one at a time; see `filter_effects`.

    Args:
        scope: the network that is scanned.
        interventions: their units are ablated, by the layers' names.
        head: whose answers count.
        how: said in the result.
        estimates: of each layer's units, said in the result; none where nothing was screened.
        max_memory: bytes for the images and units that are run at once.
    """

    needs_outputs = True

    def __init__(
        self,
        scope: Subject,
        interventions: Mapping[str, Intervention],
        head: Head,
        how: str = "zero_weights",
        estimates: Mapping[str, Tensor] | None = None,
        max_memory: int | None = None,
    ) -> None:
        self.scope, self.head, self.max_memory = scope, head, max_memory
        estimates = estimates or {}
        self.parts = {name: _Sums(name, each, head, how, estimates.get(name)) for name, each in interventions.items()}
        self.layers = tuple(dict.fromkeys(name for run in self._runs.values() for name in run.needs))

    @cached_property
    def _runs(self) -> dict[str, UnitRuns]:
        return {name: UnitRuns(self.scope.graph, sums.intervention) for name, sums in self.parts.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Another process plans its runs anew, over the graph that it traces itself."""
        return {name: value for name, value in vars(self).items() if name != "_runs"}

    def update(self, seen: BatchOutputs) -> None:
        labels = seen.targets[self.head.target]
        before = answered(self.head, seen.outputs, labels)
        on_cpu = all(p.device.type == "cpu" for p in self.scope.net.parameters())
        for name, runs in self._runs.items():
            sums = self.parts[name]
            column = sums.intervention.chosen.cumsum(0) - 1  # of each unit that is ablated
            # As they are, to be overwritten where a unit makes a difference; the last column stays.
            after = Answered(*(each[:, None].repeat(1, len(sums.intervention.units) + 1) for each in before))
            for rows in runs.run(seen.activations, rows_that_fit(runs.values_each, on_cpu, self.max_memory)):
                some = answered(self.head, rows.outputs, labels[rows.image])
                for all_rows, values in zip(after, some, strict=True):
                    all_rows[rows.image, column[rows.unit]] = values
            sums.update(after, seen.index, labels)


class _Sums(Summed):
    """Answers summed up by class: a column for each unit that is ablated, and the last for the network as it is."""

    adds = ("images", "right", "probability", "change", "squares", "flips")

    def __init__(
        self, layer: str, intervention: Intervention, head: Head, how: str, estimate: Float64[Tensor, " U"] | None
    ) -> None:
        self.layer, self.intervention, self.head, self.how, self.estimate = layer, intervention, head, how, estimate
        n_units, n_classes = len(intervention.units), len(head.classes)
        self.images, self.right = torch.zeros(2, n_classes, dtype=torch.int64)
        self.probability = ExactSum((n_classes, n_units + 1))
        self.change, self.squares = ExactSum((n_units,)), ExactSum((n_units,))
        self.flips = [torch.zeros(0, 5, dtype=torch.int64)]

    def update(self, answers: Answered, index: Int64[Tensor, " N"], labels: Int64[Tensor, " N"]) -> None:
        """Takes in answers (N, U + 1)."""
        n, before = len(self.images), answers.predicted[:, -1]
        right = answers.predicted == labels[:, None]
        self.images = self.images + torch.bincount(labels, minlength=n)
        self.right = self.right + torch.bincount(labels[right[:, -1]], minlength=n)
        by_class = torch.zeros(1, *self.probability.shape, dtype=torch.float64)
        self.probability.add(by_class.index_add_(1, labels, answers.probability[None]))
        change = answers.probability[:, :-1] - answers.probability[:, -1:]
        self.change.add(change)
        self.squares.add(change.square())
        image, unit = (right != right[:, -1:]).nonzero().unbind(1)
        columns = (unit, index[image], labels[image], before[image], answers.predicted[image, unit])
        self.flips.append(torch.stack(columns, 1))

    def result(self) -> LayerEffects:
        """With a row for each unit of the layer, of which some were chosen."""
        chosen = self.intervention.chosen
        units, n_classes, n = chosen.nonzero()[:, 0], len(self.images), int(self.images.sum())
        flips = torch.cat(self.flips)
        flips = flips[flips[:, 1].argsort(stable=True)]
        flips = flips[flips[:, 0].argsort(stable=True)]
        flips[:, 0] = units[flips[:, 0]]
        cell, was_right = flips[:, 0] * n_classes + flips[:, 2], flips[:, 2] == flips[:, 3]
        lost, gained = (cell[mask].bincount(minlength=len(chosen) * n_classes) for mask in (was_right, ~was_right))
        probability = self.probability.value.T / self.images
        after = torch.full((len(chosen), n_classes), torch.nan, dtype=torch.float64)
        after[units] = probability[:-1]
        deviation = torch.full((len(chosen),), torch.nan, dtype=torch.float64)
        deviation[units] = (self.squares.value / n - (self.change.value / n).square()).clamp(min=0).sqrt()
        return LayerEffects(
            layer=self.layer,
            how=self.how,
            classes=list(self.head.classes),
            images_per_class=self.images.clone(),
            right=self.right.clone(),
            probability=probability[-1].clone(),
            lost=lost.view(-1, n_classes),
            gained=gained.view(-1, n_classes),
            probability_after=after,
            deviation=deviation,
            flips=flips,
            measured=chosen.clone(),
            estimate=self.estimate,
        )
