"""What looking at every filter costs beside the pass of the network that cannot be avoided.

`top_patches` and `statistics` of all convolutions, fed from one pass over CIFAR-10's test images, against the plain forward
pass of the same network on the same images at the same batch size. Both go over the images in pieces and take turns, so
that whatever else the machine does falls on both. Peak memory is that of the process above what network and images take.

    python bench/scans.py [--net net4] [--images 10000] [--pieces 10] [--batch N]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch

from convscope import Scope
from convscope.data import ImageSet, batches, load_data
from convscope.nets import build_net
from convscope.scans import Scan, Statistics, TopPatches, batch_that_fits, feed
from convscope.scans.scan import cut, look_through
from machine import describe


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--net", default="net4")
    options.add_argument("--images", type=int, default=10_000)
    options.add_argument("--pieces", type=int, default=10)
    options.add_argument("--batch", type=int)
    given = options.parse_args()
    torch.manual_seed(0)
    data = load_data("cifar10")
    scope = Scope(build_net(given.net).eval(), torch.zeros(1, *data.input_shape), data.classes, (data.mean, data.std))
    images = data.test.subset(slice(0, given.images))
    scans = _scans(scope, images)
    names = [name for each in scans.values() for name in each.layers]
    size = given.batch or batch_that_fits(scope.graph, sorted(set(names)), images)
    print(describe())
    print(
        f"{given.net}, {len(images):,} images, batches of {size}, all convolutions: {len(scans['statistics'].parts)} layers"
    )
    _warm_up(scope, images.subset(slice(0, size)), size)
    before = _peak()
    times = _take_turns(scope, images, given.pieces, size, scans)
    above = (_peak() - before) / 1e6
    bare, ours = sum(times["forward"]), sum(times["scans"])
    ratios = sorted(b / a for a, b in zip(times["forward"], times["scans"], strict=True))
    print(f"forward pass {bare:.1f} s, with the scans {ours:.1f} s, ratio {ours / bare:.2f}")
    print(f"ratios of the pieces: {ratios[0]:.2f} to {ratios[-1]:.2f}, median {ratios[len(ratios) // 2]:.2f}")
    print(f"peak memory above network, images and forward pass: {above:,.0f} MB")


def _scans(scope: Scope, images: ImageSet) -> dict[str, Scan]:
    return {
        "top_patches": TopPatches.of(scope, images, "conv"),
        "statistics": Statistics.of(scope, images, "conv"),
    }


def _forward(scope: Scope, images: ImageSet, size: int) -> None:
    with torch.no_grad():
        for batch in batches(images, size):
            scope.net(scope.prepare(batch.images))


def _feed(scope: Scope, images: ImageSet, size: int, scans: list[Scan]) -> None:
    feed(scope.net, look_through(scope, scans), cut(images, size), scans, lambda n: None)


def _warm_up(scope: Scope, images: ImageSet, size: int) -> None:
    _forward(scope, images, size)
    _feed(scope, images, size, list(_scans(scope, images).values()))


def _take_turns(
    scope: Scope, images: ImageSet, pieces: int, size: int, scans: dict[str, Scan]
) -> dict[str, list[float]]:
    """Seconds of each way for each piece; the results, asked for once, go to the last."""
    ways: dict[str, Callable[[ImageSet], object]] = {
        "forward": lambda part: _forward(scope, part, size),
        "scans": lambda part: _feed(scope, part, size, list(scans.values())),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for rows in torch.arange(len(images)).chunk(pieces):
        for name, way in ways.items():
            start = time.perf_counter()
            way(images.subset(rows))
            times[name].append(time.perf_counter() - start)
    start = time.perf_counter()
    for each in scans.values():
        each.result()
    times["scans"][-1] += time.perf_counter() - start
    return times


def _peak() -> float:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    main()
