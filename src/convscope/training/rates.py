"""What some steps show before a training: the rate to take, by a range test (Smith 2017), and what a step costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
import torch

from convscope.compute import choose_device, own_random_state, threads
from convscope.data import DataBundle
from convscope.errors import DivergedError
from convscope.nets import make_task
from convscope.runs import Run, RunSpec, build_from_spec
from convscope.training.checks import check_fit, check_images
from convscope.training.loop import Trainer
from convscope.training.precision import settled_precision, step_seconds, timed_recipe
from convscope.training.train import fit_whitening, make_card

_STEPS = 100
_SGD = 1e-4, 10.0
_ADAPTIVE = 1e-6, 1.0  # a step of Adam, RMSprop or Muon is about as long as the rate, whatever the gradient
_MEMORY = 0.9
_EXPLODED = 4.0  # times the least smoothed loss


@torch.inference_mode(mode=False)
@torch.enable_grad()
def find_rate(spec: RunSpec, data: DataBundle, device: str = "auto") -> tuple[float, pd.DataFrame]:
    """A learning rate for the recipe of a spec: a quarter of that at which the smoothed loss of a range test is least.

    Trains a network of its own for 100 steps, with the recipe's batches, augmentation and optimizer on images of full size. Its
    rate grows from step to step by the same factor: from 10⁻⁴ to 10 for sgd, from 10⁻⁶ to 1 for the others. Each step's loss is
    smoothed (exponential moving average of 0.9, corrected for its beginning, as in Adam); the test ends early where it is four
    times the least. Its seed is 0 whatever the recipe's, so that runs of a study that differ by the seed alone have one rate.

    Args:
        spec: its recipe has no stages; its rate has no part in it.
        data: see load_data; only its train images are looked at.
        device: see convscope.compute.choose_device.
    Returns:
        The rate, to two digits; and a row a step: `rate`, `loss` of the batch before the step at that rate, and `smoothed`.
    Raises:
        DivergedError: the loss is no number from the first steps on.
    Source: Smith 2017, section 3.3, arXiv 1506.01186, which reads bounds for a cyclical rate from the accuracy.
    """
    where = choose_device(device)
    recipe = spec.recipe.model_copy(update={"rate": 1.0, "seed": 0, "compile": False, "resize": None})
    task = make_task(spec.task, data.train.classes)
    with own_random_state(where), threads(recipe.threads):
        torch.manual_seed(recipe.seed)
        card = make_card(data, task)
        net = build_from_spec(spec, card)
        check_fit(net, card, task, recipe)
        check_images(net, data, spec.recipe)
        fit_whitening(net, data)
        test = _RangeTest(Run(Path()), net, data, task, recipe, where)
        losses = pd.DataFrame(test.steps_taken(), columns=["rate", "loss", "smoothed"])
    if len(losses) < 2:
        raise DivergedError("recipe.rate: find: the loss is no number at any rate; look at the images, or give a rate")
    least = losses["rate"].iloc[losses["smoothed"].argmin()]
    return float(f"{least / 4:.1e}"), losses


class _RangeTest(Trainer):
    """A trainer whose rate grows from step to step."""

    def _rate(self, step: int) -> float:
        low, high = _SGD if self.recipe.optimizer == "sgd" else _ADAPTIVE
        return low * (high / low) ** (step / (_STEPS - 1))

    def steps_taken(self) -> Iterator[tuple[float, float, float]]:
        """Rate, loss and smoothed loss of each step, until the loss has exploded or is no number."""
        self.stages.train()
        mean, least = 0.0, math.inf
        for step, (images, targets) in enumerate(islice(self.endless_batches(), _STEPS)):
            self.state.step = step
            loss = float(self._step(images, targets)[0])
            mean = _MEMORY * mean + (1 - _MEMORY) * loss
            smoothed = mean / (1 - _MEMORY ** (step + 1))
            least = min(least, smoothed)
            if not smoothed <= _EXPLODED * least:
                return
            yield self._rate(step), loss, smoothed


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
        trainer = Trainer(Run(Path()), net, data, task, recipe, where)
        seconds = step_seconds(trainer)
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    return StepCost(n_parameters, trainer.steps, seconds)
