"""Trains the cases of test_ranks.py in each of the processes that torchrun starts: python trained_together.py FOLDER."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import StoppedError
from convscope.training import together

PLAIN = {"batch": 31, "epochs": 2, "optimizer": "sgd", "rate": 0.05, "precision": "fp32"}
CASES: dict[str, dict[str, Any]] = {
    "uneven batch": PLAIN,
    "mixed parts": PLAIN | {"batch": 16, "accumulate": 2, "mixup": 0.4, "class_weights": "balanced", "clip_norm": 0.5},
    "averaged": PLAIN | {"momentum": 0.8, "averaging": "ema", "patience": 1},
    "stages": PLAIN | {
        "stages": [{"name": "a", "train": "head", "epochs": 1, "rate": 0.05}, {"name": "b", "epochs": 1, "rate": 0.01}]
    },
}  # fmt: skip


class Partly(nn.Module):
    """A small network with a layer that it does not use."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.head = nn.Linear(6 * 9, 4)
        self.unused = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(self.norm(self.conv(images)).relu(), 3).flatten(1))


def made(norm: bool = False) -> nn.Module:
    torch.manual_seed(5)
    return Partly(norm)


def write_data(folder: Path) -> None:
    """160 images of four classes, which differ by their brightness."""
    draws = np.random.default_rng(3)
    labels = np.arange(160) % 4
    images = (draws.integers(0, 100, (160, 8, 8)) + 40 * labels[:, None, None]).astype(np.uint8)
    np.savez(folder / "data.npz", images=images, labels=labels)


def train(case: dict[str, Any], out: Path, net: nn.Module | None = None, **more: Any) -> cs.Run:
    data = cs.load_data(out.parent / "data.npz")
    return cs.train(net or made(), data, cs.Recipe(**case), out, device="cpu", **more)


def stopped(out: Path, rank: int) -> None:
    """Trains the averaged case, which the second process is asked to stop in its 6th step, and goes on."""
    net, calls = made(), []

    def count(*given: object) -> None:
        calls.append(0)
        if rank == 1 and len(calls) == 7:  # two are trials, in evaluation and in training mode
            os.kill(os.getpid(), signal.SIGTERM)

    net.conv.register_forward_hook(count)
    try:
        train(CASES["averaged"], out, net)
    except StoppedError as error:
        if rank == 0:
            (out / "stopped.txt").write_text(str(error))
    train(CASES["averaged"], out, resume=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with together("cpu") as (ranks, _), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
        for name, case in CASES.items():
            train(case, folder / name)
        train(PLAIN | {"batch": 32}, folder / "norm", made(norm=True))
        stopped(folder / "stopped", ranks.rank)
