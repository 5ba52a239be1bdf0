"""From a recipe to a trained network: a plain loop over steps and epochs that can be stopped at any moment and resumed."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from convscope.data import DataBundle, ImageSet, batches
from convscope.errors import DivergedError, StoppedError
from convscope.nets import Task
from convscope.runs import GIVEN, HISTORY, Recipe, Run
from convscope.training.device import autocast, number_format, place
from convscope.training.interrupt import StopWish
from convscope.training.optimizers import make_optimizer, rate_at, set_rate
from convscope.training.state import TrainingState, load_state, save_state

_CHANCE_MULTIPLE = 1e4
"""A loss of so many times that of guessing counts as exploded."""


@runtime_checkable
class Watcher(Protocol):
    """Someone who looks on while a network trains; it must not touch anything."""

    def begin(self, epochs: int, steps: int, history: list[dict[str, Any]]) -> None: ...
    def step(self, epoch: int, step: int, loss: float | None) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...
    def end(self) -> None: ...


class Trainer:
    """One network being trained on one data set by one recipe, in one run folder.

    Args:
        run: the folder that takes the history and the checkpoints.
        net: trained in place.
        data: images and targets.
        task: what the outputs mean.
        recipe: how.
        device: where.
        resume: go on from the run's checkpoint.
    """

    def __init__(
        self, run: Run, net: nn.Module, data: DataBundle, task: Task, recipe: Recipe, device: torch.device, resume: bool
    ) -> None:
        self.run, self.data, self.task, self.recipe, self.device = run, data, task, recipe, device
        self.net = place(net, recipe, device)
        self.optimizer = make_optimizer(self.net, recipe)
        self.state = load_state(run, self.net, self.optimizer) if resume else TrainingState()
        self.forward = torch.compile(self.net) if recipe.compile else self.net
        self.dtype = number_format(recipe, device)
        self.normalize = Normalizer(data.mean, data.std, device)
        self.batch = min(recipe.batch, len(data.train))
        self.steps = len(data.train) // self.batch
        # looking at the loss makes the host wait for a GPU, so there it is looked at less often
        self.look_every = 1 if device.type == "cpu" else 50

    def fit(self, watcher: Watcher, wish: StopWish) -> None:
        """Trains to the end of the recipe, or until patience is over, writing history and checkpoint every epoch.

        Raises:
            StoppedError: the user wished to stop; the state is saved.
            DivergedError: the loss is infinite, not a number, or exploded.
        """
        watcher.begin(self.recipe.epochs, self.steps, self.state.history)
        try:
            while self.state.epoch < self.recipe.epochs and not self._patience_is_over():
                self._train_epoch(watcher, wish)
                self._end_epoch()
                watcher.epoch(self.state.history[-1])
        finally:
            watcher.end()
        if self.state.best:
            self.net.load_state_dict(self.state.best)
        self.net.eval()

    def _train_epoch(self, watcher: Watcher, wish: StopWish) -> None:
        state, recipe = self.state, self.recipe
        self.net.train()
        started, before = time.perf_counter(), state.sums["seconds"]
        sums = torch.tensor([state.sums["loss"], state.sums["correct"]], dtype=_sum_type(self.device)).to(self.device)
        for batch in batches(
            self.data.train, self.batch, device=self.device, seed=recipe.seed, epoch=state.epoch,
            first_step=state.step, augmentation=recipe.augmentation, drop_last=True,
        ):  # fmt: skip
            loss, correct = self._step(batch.images, batch.targets)
            sums += torch.stack([loss * len(batch.images), correct]).to(sums.dtype)
            look = (state.step + 1) % self.look_every == 0 or state.step + 1 == self.steps
            value = self._checked(loss) if look else None
            state.step += 1
            state.sums["images"] += len(batch.images)
            watcher.step(state.epoch, state.step, value)
            if wish.asked:
                self._keep(sums, before + time.perf_counter() - started)
                self._stop()
        self._keep(sums, before + time.perf_counter() - started)

    def _step(self, images: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """One optimizer step; gives the loss and the number of right images, still on the device."""
        number = self.state.epoch * self.steps + self.state.step
        torch.manual_seed(step_seed(self.recipe.seed, number))  # dropout: from the step alone
        set_rate(self.optimizer, rate_at(self.recipe, number, self.steps))
        with autocast(self.device, self.dtype):
            outputs = self.forward(self._prepare(images))
        loss = self.task.loss(outputs.float(), targets, self.recipe.label_smoothing)
        loss.backward()
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach(), self.task.correct(outputs.detach(), targets).sum()

    def _prepare(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        return self.normalize(images).contiguous(memory_format=layout)

    def _end_epoch(self) -> None:
        """Validates, adds the epoch's row to the history, and writes history and checkpoint."""
        state, sums = self.state, self.state.sums
        train_loss = sums["loss"] / sums["images"]
        val_loss, val_accuracy = self.validate(self.data.val)
        if not math.isfinite(train_loss + val_loss):
            raise self._diverged(val_loss if math.isfinite(train_loss) else train_loss, self.steps - 1)
        state.history.append({
            "epoch": state.epoch + 1,
            "train_loss": train_loss, "train_accuracy": sums["correct"] / sums["images"],
            "val_loss": val_loss, "val_accuracy": val_accuracy,
            "rate": rate_at(self.recipe, state.epoch * self.steps, self.steps),
            "seconds": sums["seconds"], "images_per_s": sums["images"] / sums["seconds"],
        })  # fmt: skip
        self._keep_best()
        state.begin_epoch()
        self.run.write_history(state.history)
        save_state(self.run, state, self.net, self.optimizer)

    @torch.no_grad()
    def validate(self, images: ImageSet) -> tuple[float, float]:
        """Mean loss (without label smoothing) and accuracy over a set, in evaluation mode."""
        self.net.eval()
        sums = torch.zeros(2, dtype=_sum_type(self.device), device=self.device)
        for batch in batches(images, evaluation_batch(images, self.batch), device=self.device):
            with autocast(self.device, self.dtype):
                outputs = self.net(self._prepare(batch.images))
            loss = self.task.loss(outputs.float(), batch.targets) * len(batch.images)
            sums += torch.stack([loss, self.task.correct(outputs, batch.targets).sum()]).to(sums.dtype)
        loss, correct = (sums / max(1, len(images))).tolist()
        return loss, correct

    def _keep(self, sums: Tensor, seconds: float) -> None:
        self.state.sums["loss"], self.state.sums["correct"] = sums.tolist()
        self.state.sums["seconds"] = seconds

    def _keep_best(self) -> None:
        """With patience, remembers the weights of the best epoch."""
        state, watch = self.state, self.recipe.watch
        if self.recipe.patience is None:
            return
        sign = 1 if watch == "val_accuracy" else -1
        best = None if state.best_epoch is None else state.history[state.best_epoch][watch]
        if best is None or sign * state.history[-1][watch] > sign * best:
            state.best_epoch = state.epoch
            state.best = {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}

    def _patience_is_over(self) -> bool:
        if self.recipe.patience is None or self.state.best_epoch is None:
            return False
        return self.state.epoch - 1 - self.state.best_epoch >= self.recipe.patience

    def _checked(self, loss: Tensor) -> float:
        value = float(loss)
        chance = sum(math.log(len(head.classes)) for head in self.task.heads)
        if not math.isfinite(value) or value > _CHANCE_MULTIPLE * chance:
            raise self._diverged(value, self.state.step)
        return value

    def _diverged(self, loss: float, step: int) -> DivergedError:
        epoch = self.state.epoch
        rate = rate_at(self.recipe, epoch * self.steps + step, self.steps)
        good = f"the last good checkpoint is that of epoch {epoch}" if epoch else "there is no good checkpoint yet"
        return DivergedError(
            f"{self.run.path}: the loss is {loss:.4g} in epoch {epoch + 1}, step {step + 1}, at rate {rate:.3g}; {good}; "
            f"try a lower recipe.rate, or recipe.clip_norm=1 (the course is in {HISTORY})"
        )

    def _stop(self) -> None:
        save_state(self.run, self.state, self.net, self.optimizer)
        again = f"convscope train --resume {self.run.path}"
        if self.run.spec.net.name == GIVEN:
            again = f"cs.train(net, data, recipe, out={str(self.run.path)!r}, resume=True)"
        raise StoppedError(
            f"stopped in epoch {self.state.epoch + 1} of {self.recipe.epochs} after step {self.state.step} of {self.steps}; "
            f"all is saved: go on with {again}"
        )


def evaluation_batch(images: ImageSet, training_batch: int) -> int:
    """Images at once where no gradients are kept: at least a training step's, and up to 512 small ones."""
    return min(512, max(training_batch, 2**21 // images.pixels[0].numel()))


class Normalizer:
    """Images in [0, 1] → (image - mean) / std of each channel, on one device."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.mean = torch.tensor(mean, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, device=device).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def step_seed(seed: int, step: int) -> int:
    """32 well-mixed bits of (seed, step): PyTorch's CPU generator looks at no more than 32 bits of a seed."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def _sum_type(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no doubles
