"""What it gains that commands keep the memory they free: each pass in a process that does, and in one that does not.

python bench/memory.py [--threads 1] [--rounds 3]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

import convscope as cs
from convscope.base.memory import tune_memory
from machine import describe

CASES = {
    "lite0, 13 images of 224 px, forward": ("lite0", 13, 224, False),
    "lite0, 32 images of 224 px, forward": ("lite0", 32, 224, False),
    "air-cifar, 250 images of 32 px, forward and backward": ("air-cifar", 250, 32, True),
    "net4, 128 images of 32 px, forward and backward": ("net4", 128, 32, True),
}
PASSES = 8


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--case")
    options.add_argument("--keep", action="store_true")
    given = options.parse_args()
    if given.case:
        print(_pass(given))
        return
    print(describe())
    for case in CASES:
        for number in range(given.rounds):
            for way in ([], ["--keep"]):
                again = [sys.executable, __file__, "--threads", str(given.threads), "--case", case, *way]
                found = subprocess.run(again, capture_output=True, text=True, check=True).stdout.strip()
                print(f"{case:54} {number} {'kept ' if way else 'plain'}  {found}", flush=True)


def _pass(given: argparse.Namespace) -> str:
    if given.keep:
        tune_memory()
    torch.set_num_threads(given.threads)
    name, n_images, side, learns = CASES[given.case]
    net = cs.build_net(name).to(memory_format=torch.channels_last).train(learns)
    images = torch.rand(n_images, 3, side, side).contiguous(memory_format=torch.channels_last)

    def work() -> None:
        with torch.set_grad_enabled(learns):
            outputs = net(images)
            if learns:
                outputs.logsumexp(1).sum().backward()

    work()
    work()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(PASSES):
        work()
    seconds, after = (time.perf_counter() - began) / PASSES, resource.getrusage(resource.RUSAGE_SELF)
    system, peak = (after.ru_stime - before.ru_stime) / PASSES, after.ru_maxrss / 1024
    return f"{1e3 * seconds:7.0f} ms a pass, of which {1e3 * system:5.0f} ms in the system; peak {peak:5.0f} MB"


if __name__ == "__main__":
    main()
