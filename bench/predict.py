"""Predicting photos: against the bare forward pass plus decoding in threads, in turns in one run.

python bench/predict.py RUN FOLDER [--rounds N]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch

from convscope.compute import evaluation_batch, in_order
from convscope.data import Normalizer, image_files, pixels_of
from convscope.runs import open_run
from machine import describe, in_turns


def main() -> None:
    parsed = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsed.add_argument("run", type=Path)
    parsed.add_argument("folder", type=Path)
    parsed.add_argument("--rounds", type=int, default=3)
    given = parsed.parse_args()
    run, files = open_run(given.run), list(image_files([given.folder]))
    channels, height, width = run.input_shape
    size = evaluation_batch(run.input_shape, torch.device("cpu"))
    net, normalize = run.net, Normalizer(*run.normalization, torch.device("cpu"))
    decoded: list[torch.Tensor] = []

    def decode() -> None:
        found = in_order(lambda path: pixels_of(path, channels, (height, width)), files, os.cpu_count() or 1)
        decoded[:] = [torch.from_numpy(pixels.copy()) for pixels in found]

    @torch.no_grad()
    def forward() -> None:
        for start in range(0, len(decoded), size):
            net(normalize(torch.stack(decoded[start : start + size]).float() / 255)).softmax(1).max(1)

    works: dict[str, Callable[[], object]] = {
        "decoding": decode,
        "forward": forward,
        "predict": lambda: run.predict(files),
    }
    times, _ = in_turns(works, given.rounds)
    least = {name: min(seconds) for name, seconds in times.items()}
    print(describe())
    print(f"{len(files):,} files of {channels}×{height}×{width}, least of {given.rounds}")
    for name, value in least.items():
        print(f"{name:10} {value:8.2f} s")
    apart = least["decoding"] + least["forward"]
    print(f"predict is {least['predict'] / apart:.2f} × decoding plus the forward pass")


if __name__ == "__main__":
    main()
