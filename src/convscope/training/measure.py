"""What a step of a training takes, measured before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from convscope.compute import choose_device, own_random_state
from convscope.data import Batch, DataBundle, batches
from convscope.nets import make_task
from convscope.runs import Run, RunSpec, build_from_spec
from convscope.training.loop import Trainer
from convscope.training.train import make_card

_STEPS, _LONG_S = 6, 3.0


@dataclass(frozen=True)
class StepCost:
    """A network's size, and what its training takes at least.

    Attributes:
        parameters: of the network.
        steps: of an epoch.
        seconds: of one step.
    """

    parameters: int
    steps: int
    seconds: float


def measure_step(spec: RunSpec, data: DataBundle, device: str = "auto") -> StepCost:
    """The cost of a step, the median of some after the first; nothing is kept of them. Compiled networks are measured as they
    are written. Of a recipe with stages the whole network is trained: no stage's step costs more."""
    where, recipe = (
        choose_device(device),
        spec.recipe.model_copy(update={"compile": False, "stages": None, "rate": 1e-3}),
    )
    task = make_task(spec.task, data.train.classes)
    with own_random_state(where):
        net = build_from_spec(spec, make_card(data, task))
        trainer = Trainer(Run(Path()), net, data, task, recipe, where, resume=False)
        trainer.net.train()
        source = batches(data.train, trainer.batch, device=where, seed=0, augmentation=recipe.augmentation)
        times = list(_timed(trainer, islice(cycle(source), _STEPS)))
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    return StepCost(n_parameters, trainer.steps, median(times[1:]))


def _timed(trainer: Trainer, source: Iterator[Batch]) -> Iterator[float]:
    """Seconds of each step, its images included; no more steps than two once they have taken long."""
    first = began = time.perf_counter()
    for number, batch in enumerate(source, 1):
        trainer._step(batch.images, batch.targets)[0].item()  # waits for a GPU
        now = time.perf_counter()
        yield now - began
        if number >= 2 and now - first > _LONG_S:
            return
        began = now
