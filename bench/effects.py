"""The effect of each filter of a network on CIFAR-10 test images, against doing each by a whole forward pass.

`filter_effects` beside the obvious loop: for every filter an edited copy (`convscope.lenses.ablate`) and a whole pass over the
same images in the same batches. Both take turns, layer by layer and batch by batch. A sample is measured, evenly spread over
the filters of each layer, and the first images; times are scaled to all filters of the layer and to 1,000 images. Ours also
counts the pass that is remembered, once a batch. The network's weights are random, with batch norm's statistics taken over
training images, so that about half of what the ReLUs get is positive.

    python bench/effects.py [--net net4] [--images 32] [--batch 32] [--filters 40] [--cpu-time] [--channels-last]

--cpu-time counts one thread's CPU seconds, which other processes disturb less than they do two threads' wall time.
--channels-last lays the network and images of the whole passes out as ours are inside, which makes them faster.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope import Scope
from convscope.data import Batch, DataBundle, batches, load_data
from convscope.graph import UnitRuns
from convscope.lenses import ablate, interventions
from convscope.nets import build_net
from convscope.scans import BatchOutputs, FilterEffects, head_of
from convscope.scans.scan import look_through
from machine import describe

ALL_IMAGES = 1_000


@dataclass
class Layer:
    """What is measured of a layer: seconds of the sample, and how far the figures are apart."""

    n_filters: int
    effects: FilterEffects
    whole: float = 0.0
    ours: float = 0.0
    apart: float = 0.0
    other: int = 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--net", default="net4")
    options.add_argument("--images", type=int, default=32)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--filters", type=int, default=40)
    options.add_argument("--cpu-time", action="store_true")
    options.add_argument("--channels-last", action="store_true")
    given = options.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    if given.cpu_time:
        torch.set_num_threads(1)
    data = load_data("cifar10")
    scope = _scope(given.net, data)
    test = data.test.subset(slice(0, given.images))
    layers = _layers(scope, test, given.filters)
    n_filters = sum(layer.n_filters for layer in layers.values())
    sampled = sum(len(units(layer, name)) for name, layer in layers.items())
    print(describe())
    print(
        f"{given.net}, {n_filters:,} filters of {len(layers)} layers; measured: {sampled} of them on {len(test)} images,"
    )
    print(f"batches of {given.batch}, {'CPU seconds of one thread' if given.cpu_time else 'wall seconds'}")
    net = ablate(scope.net, {})
    net = net.to(memory_format=torch.channels_last) if given.channels_last else net
    shared = 0.0
    for at, batch in enumerate([next(iter(batches(test, given.batch))), *batches(test, given.batch)]):
        if at == 1:  # the first batch came twice, to warm up
            layers, shared = _layers(scope, test, given.filters), 0.0
        shared += one_batch(scope, net, batch, layers, clock, given.channels_last)
    report(layers, shared, ALL_IMAGES / len(test))


def _scope(name: str, data: DataBundle) -> Scope:
    torch.manual_seed(0)
    net = build_net(name)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # plain means
    scope = Scope(net, torch.zeros(1, *data.input_shape), data.classes, (data.mean, data.std))
    with torch.no_grad():
        for batch in batches(data.train.subset(slice(0, 256)), 64):
            net(scope.prepare(batch.images))
    net.eval()
    return scope


def _layers(scope: Scope, images: object, n: int) -> dict[str, Layer]:
    found = interventions(scope.graph, "conv", "zero_weights")
    head, total = head_of(scope, images), sum(len(each.units) for each in found.values())
    step = max(1, total // n)
    layers = {}
    for name, each in found.items():
        sample = each.of(each.units[step // 2 :: step])
        layers[name] = Layer(len(each.units), FilterEffects(scope, {name: sample}, head))
    return layers


def units(layer: Layer, name: str) -> list[int]:
    return layer.effects.interventions[name].units


@torch.no_grad()
def one_batch(
    scope: Scope, net: nn.Module, batch: Batch, layers: dict[str, Layer], clock: Callable[[], float], laid_out: bool
) -> float:
    """Measures all layers on a batch; returns the seconds of the pass that is remembered."""
    start = clock()
    look = look_through(scope, [layer.effects for layer in layers.values()])
    outputs, activations = look(batch.images)
    seen = BatchOutputs(batch.index, outputs, batch.targets, activations)
    shared = clock() - start
    images = scope.prepare(batch.images)
    images = images.contiguous(memory_format=torch.channels_last) if laid_out else images
    for name, layer in layers.items():
        start = clock()
        layer.effects.update(seen)
        middle = clock()
        whole = [ablate(net, {name: unit})(images).double().softmax(1) for unit in units(layer, name)]
        layer.whole += clock() - middle
        layer.ours += middle - start
        compare(scope, layer, name, seen, whole)
    return shared


def compare(scope: Scope, layer: Layer, name: str, seen: BatchOutputs, whole: Sequence[Tensor]) -> None:
    """Notes the largest difference of a probability, and how many images are put into other classes."""
    intervention = layer.effects.interventions[name]
    before = seen.outputs.double().softmax(1)
    ours = {unit: before.clone() for unit in intervention.units}
    for rows in UnitRuns(scope.graph, intervention).run(seen.activations, 512):
        for unit, image, output in zip(rows.unit.tolist(), rows.image.tolist(), rows.outputs, strict=True):
            ours[unit][image] = output.double().softmax(0)
    for mine, theirs in zip(ours.values(), whole, strict=True):
        layer.apart = max(layer.apart, float((mine - theirs).abs().max()))
        layer.other += int((mine.argmax(1) != theirs.argmax(1)).sum())


def report(layers: dict[str, Layer], shared: float, scale: float) -> None:
    """A row for each layer, and the sum with the pass that is remembered."""
    print(f"\n{'':8} filters  sampled   whole passes, s   ours, s    ratio   largest difference, other class")
    ours, whole = shared * scale, 0.0
    for name, layer in layers.items():
        sampled = len(units(layer, name))
        to_all = scale * layer.n_filters / sampled
        ours, whole = ours + layer.ours * to_all, whole + layer.whole * to_all
        print(
            f"{name:8} {layer.n_filters:7} {sampled:8} {layer.whole * to_all:17,.1f} {layer.ours * to_all:9,.1f} "
            f"{layer.whole / layer.ours:8.2f}   {layer.apart:.1e}, {layer.other}"
        )
    print(
        f"{'all':8} {'':16} {whole:17,.1f} {ours:9,.1f} {whole / ours:8.2f}   (ours with {shared * scale:,.1f} s of passes)"
    )


if __name__ == "__main__":
    main()
