"""What the tests of trainings share: a small network, a short recipe, and ways to stop."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.data import Augmentation, DataBundle
from convscope.nets import build_net
from convscope.runs import MODEL, Recipe
from convscope.training import Silent

Make = Callable[..., DataBundle]
NET = "c8b M c8b f16b D0.3"


def small_net(seed: int = 0, text: str = NET, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build_net(text, classes=3, image_size=8, **options)


def short_recipe(**changes: Any) -> Recipe:
    settings = {"epochs": 3, "batch": 24, "rate": 0.01, "augmentation": Augmentation(crop=1, brightness=0.2)}
    return Recipe(**(settings | changes))


def digest_of(path: Path) -> str:
    return hashlib.sha256((path / MODEL).read_bytes()).hexdigest()


class StopAt(Silent):
    """Presses Ctrl-C, or dies, at a step."""

    def __init__(self, epoch: int, step: int, act: Callable[[], None]) -> None:
        self.at, self.act = (epoch, step), act

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if (epoch, step) == self.at:
            self.act()


def with_threads(n: int, work: Callable[[], Any]) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def die() -> None:
    """As a kill does, from inside a step."""
    raise KeyboardInterrupt
