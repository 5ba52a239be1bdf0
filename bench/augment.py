"""What distortions take of a batch of images in uint8, beside shift and flip alone; the settings take turns.

python bench/augment.py [--batch 256] [--side 32] [--device cpu] [--rounds 30]
"""

from __future__ import annotations

import argparse
from itertools import count
from statistics import median

import torch

from convscope.data import Augmentation, augment
from machine import describe, in_turns

PLAIN = {"crop": 4, "flip": "random"}
SETTINGS = {
    "shift and flip": {},
    "and colour jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
    "and hue": {"hue": 0.1},
    "and rotation": {"rotation": 15},
    "and policy trivial": {"policy": "trivial"},
    "and policy rand": {"policy": "rand"},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--side", type=int, default=32)
    options.add_argument("--device", default="cpu")
    options.add_argument("--rounds", type=int, default=30)
    given = options.parse_args()
    device = torch.device(given.device)
    seeded = torch.Generator().manual_seed(0)
    shape = (given.batch, 3, given.side, given.side)
    images = torch.randint(0, 256, shape, generator=seeded, dtype=torch.uint8).to(device)
    steps = count()
    ways = {
        name: lambda more=more: augment(images, Augmentation(**PLAIN, **more), (0, 0, next(steps)))
        for name, more in SETTINGS.items()
    }
    times, _ = in_turns(ways, given.rounds, device)
    print(describe(device))
    print(f"{given.batch} images of {given.side} px, median and best of {given.rounds}")
    for name, seconds in times.items():
        print(f"{name}: {1e3 * median(seconds):.2f} ms, {1e3 * min(seconds):.2f} ms")


if __name__ == "__main__":
    main()
