"""What a step of a training takes, measured before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from convscope.compute import choose_device, own_random_state
from convscope.data import DataBundle
from convscope.nets import make_task
from convscope.runs import Run, RunSpec, build_from_spec
from convscope.training.loop import Trainer
from convscope.training.precision import settled_precision, step_seconds, timed_recipe
from convscope.training.train import make_card


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


@torch.inference_mode(mode=False)
@torch.enable_grad()
def measure_step(spec: RunSpec, data: DataBundle, device: str = "auto") -> StepCost:
    """The cost of a step, the median of some after the first; nothing is kept of them. Compiled networks are measured as they
    are written. Of a recipe with stages it is a step of the last; images have their full size."""
    where = choose_device(device)
    task = make_task(spec.task, data.train.classes)
    with own_random_state(where):
        net = build_from_spec(spec, make_card(data, task))
        recipe = timed_recipe(spec.recipe, settled_precision(spec.recipe, net, data, task, where)["format"])
        trainer = Trainer(Run(Path()), net, data, task, recipe, where, resume=False)
        seconds = step_seconds(trainer)
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    return StepCost(n_parameters, trainer.steps, seconds)
