"""What a step of a trainer takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle, islice
from statistics import median

from convscope.data import batches
from convscope.training.loop import Trainer

_STEPS, _LONG_S = 6, 3.0


def step_seconds(trainer: Trainer) -> float:
    """The median of some steps after the first, their images included; of a single one where they take long."""
    trainer.net.train()
    return median(list(_timed(trainer))[1:])


def _timed(trainer: Trainer) -> Iterator[float]:
    augmentation = trainer.recipe.augmentation
    source = batches(trainer.data.train, trainer.batch, device=trainer.device, seed=0, augmentation=augmentation)
    first = began = time.perf_counter()
    for number, batch in enumerate(islice(cycle(source), _STEPS), 1):
        trainer._step(batch.images, batch.targets)[0].item()  # waits for a GPU
        now = time.perf_counter()
        yield now - began
        if number >= 2 and now - first > _LONG_S:
            return
        began = now
