"""From a recipe to a trained network: a plain loop over steps and epochs that can be stopped at any moment and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain, count, islice

import numpy as np
import torch
from torch import Tensor, nn

from convscope.base.signals import StopWish
from convscope.base.words import shape_text
from convscope.compute import evaluation_batch
from convscope.data import DataBundle, ImageSet, Normalizer, batches, mix
from convscope.errors import DivergedError, FailedError, StoppedError
from convscope.nets import Task
from convscope.runs import GIVEN, HISTORY, Recipe, Run
from convscope.training.device import autocast, number_format, place
from convscope.training.features import NoFeaturesError, check_tail, features_of, tail_of
from convscope.training.imbalance import class_weights
from convscope.training.live import Watcher
from convscope.training.optimizers import Averaging, make_optimizer, rate_at
from convscope.training.ranks import Ranks
from convscope.training.resizing import resized
from convscope.training.stages import Stages
from convscope.training.state import TrainingState, load_optimizer, load_state, save_state

_NO_MEMORY = ("can't allocate memory", "not enough memory")
"""What PyTorch says on a CPU, on Linux and on Windows, for which it has no error of its own."""

_CHANCE_MULTIPLE = 1e4
"""A loss this many times that of guessing counts as exploded."""


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
        ranks: the processes that train it together.
    """

    def __init__(
        self, run: Run, net: nn.Module, data: DataBundle, task: Task, recipe: Recipe, device: torch.device,
        resume: bool = False, ranks: Ranks = Ranks(),
    ) -> None:  # fmt: skip
        self.run, self.data, self.task, self.whole, self.device = run, data, task, recipe, device
        self.ranks = ranks
        self.net = place(net, recipe, device)
        self.stages = Stages(self.net, recipe, data.input_shape)
        self.state, slots = load_state(run, self.net) if resume else (TrainingState(), {})
        self._begin_stage()
        if resume:
            load_optimizer(self.optimizer, slots)
            if not ranks.is_first:
                self.state.sums |= {"loss": 0.0, "correct": 0.0}  # the first process has those of all
        weights = class_weights(recipe, task, data.train)
        self.class_weights = {target: values.to(device) for target, values in weights.items()}
        self.balance = task.heads[0].target if recipe.sampling == "balanced" else None
        self.dtype = number_format(recipe, device)
        self.sum_type = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no doubles
        self.normalize = Normalizer(data.mean, data.std, device)
        self.part = min(recipe.batch, len(data.train))  # images at once
        self.batch = self.part * min(recipe.accumulate, len(data.train) // self.part)
        self.steps = len(data.train) // self.batch
        # looking at the loss makes the host wait for a GPU, so there it is looked at less often
        self.look_every = 1 if device.type == "cpu" else 50

    def fit(self, watcher: Watcher, wish: StopWish) -> None:
        """Trains to the end of the recipe, or until patience is over, writing history and checkpoint every epoch.

        Raises:
            StoppedError: the user wished to stop; the state is saved.
            DivergedError: the loss is infinite, not a number, or exploded.
        """
        watcher.begin(self.whole.epochs, self.steps, self.state.history)
        try:
            self._train_stage(watcher, wish)
            for _ in self.whole.parts[self.state.stage + 1 :]:
                self.state.begin_stage()
                self._begin_stage()
                self._train_stage(watcher, wish)
        finally:
            watcher.end()
            self.stages.end()
        self.net.eval()

    def _begin_stage(self) -> None:
        """Freezes what the stage does not train, and makes its optimizer."""
        self.stages.begin(self.state.stage)
        self.recipe = self.whole.parts[self.state.stage]
        self.net.zero_grad()  # of what its owner did with it before
        self.optimizer = make_optimizer(self.net, self.recipe, self.stages.factors)
        self.averaging = Averaging(self.net, self.recipe, self.state.average)
        self.train_set, self.val_set = self.data.train, self.data.val
        self.part_that_runs = self.net
        self.forward = self.ranks.joined(self._compiled(self.net))

    def _compiled(self, net: nn.Module) -> nn.Module:
        by_size = False if self.recipe.resize else None  # a program for each of the few sizes, in place of one for any
        return torch.compile(net, dynamic=by_size) if self.recipe.compile else net  # type: ignore[return-value]

    def _train_stage(self, watcher: Watcher, wish: StopWish) -> None:
        """Trains to the end of the stage, or until patience is over; it ends with the best weights where there is patience."""
        if self._stage_goes_on():
            if self._stage_name:
                watcher.stage(self._stage_name, self._prepare_stage(wish))
            while self._stage_goes_on():
                self._train_epoch(watcher, wish)
                self._end_epoch()
                watcher.epoch(self.state.history[-1])
        self.averaging.finish()
        if self.state.best:
            self.net.load_state_dict(self.state.best)

    @property
    def _stage_name(self) -> str | None:
        """None where all learns from beginning to end."""
        if self.whole.stages:
            return self.whole.stages[self.state.stage].name
        return None if self.whole.train == ("all",) else ", ".join(self.whole.train)

    def _stage_goes_on(self) -> bool:
        patience, best = self.recipe.patience, self.state.best_epoch
        patient = patience is None or best is None or self.state.epoch - 1 - best < patience
        return patient and self._epoch_of_stage < self.recipe.epochs

    @property
    def _epoch_of_stage(self) -> int:
        return self.state.epoch - self.state.first_epoch

    def _prepare_stage(self, wish: StopWish) -> str:
        """Computes the features that the stage can be trained on, and says in words what will be done."""
        parameters = list(self.net.parameters())
        n_all = sum(one.numel() for one in parameters)
        n_learning = sum(one.numel() for one in parameters if one.requires_grad)
        words = f"{self.stages.words_of(self.recipe.train)}{n_learning:,} of {n_all:,} parameters learn"
        if n_learning == n_all:
            return words
        began = time.perf_counter()
        try:
            self._keep_features(wish)
        except NoFeaturesError as reason:
            return f"{words}; each step runs the whole network: {reason}"
        finally:
            self.state.sums["seconds"] += time.perf_counter() - began
        n_bytes = self.train_set.pixels.nbytes + self.val_set.pixels.nbytes
        return f"{words}, on kept features of the images ({n_bytes / 2**20:,.1f} MiB)"

    @torch.no_grad()
    def _keep_features(self, wish: StopWish) -> None:
        """From now on runs only the part that learns, on what reaches it of the training and validation images."""
        obstacles = {
            "recipe.keep_features is off": not self.recipe.keep_features,
            "the training images are augmented": not self.recipe.augmentation.is_off,
            "the training images are mixed": self.recipe.mixup or self.recipe.cutmix,
            "the training images are resized": self.recipe.resize,
            "several processes train together": self.ranks.count > 1,
        }
        for reason, holds in obstacles.items():
            if holds:
                raise NoFeaturesError(reason)
        self.net.eval()
        image = torch.zeros(1, *self.data.input_shape, device=self.device)
        tail = tail_of(self.net, self.stages.learning, self.normalize(image))
        batch = evaluation_batch(self.data.input_shape, self.device, self.part)
        outputs = partial(self._outputs, self.net, are_features=False)

        def stop_if_asked() -> None:
            if wish.asked:
                self._stop()

        train_set, val_set = (
            features_of(images, outputs, tail, batch, self.device, self.run.path, stop_if_asked)
            for images in (self.data.train, self.data.val)
        )
        by_tail = partial(self._outputs, tail.module, are_features=True)
        check_tail(self.data.train, outputs, train_set, by_tail, min(batch, self.part), self.device, self.dtype)
        self.train_set, self.val_set, self.part_that_runs = train_set, val_set, tail.module
        self.forward = self._compiled(tail.module)

    @property
    def _on_features(self) -> bool:
        return self.part_that_runs is not self.net

    def _outputs(self, net: nn.Module, inputs: Tensor, *, are_features: bool) -> Tensor:
        """Of a network for images in [0, 1], or of its tail for features; in number format and memory layout of the recipe."""
        inputs = inputs if are_features else self.normalize(inputs)
        channels_last = self.recipe.channels_last and inputs.ndim == 4
        layout = torch.channels_last if channels_last else torch.contiguous_format
        with autocast(self.device, self.dtype):
            return net(inputs.contiguous(memory_format=layout))

    def _training_batches(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        augmentation = None if self._on_features else self.recipe.augmentation
        made = batches(
            self.train_set, self.batch, device=self.device, seed=self.recipe.seed, epoch=epoch, first_step=first_step,
            augmentation=augmentation, drop_last=True, balance=self.balance,
        )  # fmt: skip
        return ((batch.images, batch.targets) for batch in made)

    def endless_batches(self) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The images and targets of the steps of one epoch after the other."""
        return chain.from_iterable(map(self._training_batches, count()))

    def _train_epoch(self, watcher: Watcher, wish: StopWish) -> None:
        state = self.state
        self.stages.train()
        started, before = time.perf_counter(), state.sums["seconds"]
        sums = torch.tensor([state.sums["loss"], state.sums["correct"]], dtype=self.sum_type).to(self.device)
        stops = False
        for images, targets in self._training_batches(state.epoch, state.step):
            loss, correct = self._step(images, targets)
            sums += torch.stack([loss * len(images), correct]).to(sums.dtype)
            look = (state.step + 1) % self.look_every == 0 or state.step + 1 == self.steps
            value = self._checked(self.ranks.total(loss)) if look else None
            self.averaging.step(self._step_of_stage, last=state.step + 1 == self.steps)
            state.step += 1
            state.sums["images"] += len(images)
            watcher.step(state.epoch, state.step, value)
            # several processes stop at the same step, at which the host waits anyway
            stops = wish.asked if self.ranks.count == 1 else look and self.ranks.any(wish.asked, self.device)
            if stops:
                break
        state.sums["loss"], state.sums["correct"] = self.ranks.total(sums).tolist()
        state.sums["seconds"] = before + time.perf_counter() - started
        if stops:
            self._stop()

    def _step(self, images: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """One optimizer step; gives the loss and the number of right images, still on the device."""
        number = self.state.epoch * self.steps + self.state.step
        seed = step_seed(self.recipe.seed, number, self.ranks.rank)  # dropout: from the step alone
        if self.device.type == "cpu":  # torch.manual_seed notes the call stack for devices not in use: 0.3 ms
            torch.random.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.state.step) * group["share"]
        try:
            loss, correct = self._backward(images, targets)
            if self.recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_norm)
            self.optimizer.step()
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not any(words in str(error) for words in _NO_MEMORY):
                raise
            raise FailedError(
                f"the memory of {self.device} does not hold a step of {self.part} images of "
                f"{shape_text(self.data.input_shape)}; take a smaller recipe.batch (with recipe.accumulate a step has as many "
                "images), smaller images or a smaller network"
            ) from error
        self.optimizer.zero_grad()
        return loss, correct

    def _backward(self, images: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Adds up the gradient of a step's mean loss, part by part; gives loss and number of right images, as `_step`."""
        key = (self.recipe.seed, self.state.epoch, self.state.step)
        images = resized(images, self.recipe, self._step_of_stage, self.steps)
        images, mixed = mix(images, targets, self.recipe.mixup, self.recipe.cutmix, key)
        loss, correct = images.new_zeros(()), images.new_zeros(())
        for first in range(0, len(images), self.part):
            end = min(first + self.part, len(images))
            rows = self.ranks.rows(first, end)
            with self.ranks.summing(self.forward, now=end == len(images)):
                outputs = self._outputs(self.forward, images[rows], are_features=self._on_features)
                losses = [share * self._loss(outputs, mixed_targets, rows) for share, mixed_targets in mixed]
                part_loss = torch.stack(losses).sum()
                self.ranks.backward(part_loss)
            loss += part_loss.detach()
            correct += self.task.correct(outputs.detach(), _rows(mixed[0][1], rows)).sum()
        return loss, correct

    def _loss(self, outputs: Tensor, targets: dict[str, Tensor], rows: slice) -> Tensor:
        """What the outputs for some rows of a step's images add to its loss."""
        whole = targets if len(outputs) < self.batch else None
        own = _rows(targets, rows)
        return self.task.loss(outputs.float(), own, self.recipe.label_smoothing, self.class_weights, whole)

    def _rate(self, step: int) -> float:
        """The learning rate of a step of this epoch."""
        return rate_at(self.recipe, self._epoch_of_stage * self.steps + step, self.steps)

    @property
    def _step_of_stage(self) -> int:
        return self._epoch_of_stage * self.steps + self.state.step

    def _end_epoch(self) -> None:
        """Measures the epoch, and writes history and checkpoint."""
        state, sums = self.state, self.state.sums
        train_loss = sums["loss"] / sums["images"]
        with self.averaging.applied():
            self._measure_epoch(train_loss)
        state.begin_epoch()
        self.run.check_there()
        self.run.write_history(state.history)
        save_state(self.run, state, self.net, self.optimizer)

    def _measure_epoch(self, train_loss: float) -> None:
        """Validates, adds the epoch's row to the history, and keeps the weights where they are the best so far."""
        state, sums = self.state, self.state.sums
        val_loss, val_accuracy = self.validate(self.val_set)
        if not math.isfinite(train_loss + val_loss):
            raise self._diverged(val_loss if math.isfinite(train_loss) else train_loss, self.steps - 1)
        state.history.append({
            "epoch": state.epoch + 1, **({"stage": self._stage_name} if self._stage_name else {}),
            "train_loss": train_loss, "train_accuracy": sums["correct"] / sums["images"],
            "val_loss": val_loss, "val_accuracy": val_accuracy,
            "rate": self._rate(0),
            "seconds": sums["seconds"], "images_per_s": sums["images"] / sums["seconds"],
        })  # fmt: skip
        self._keep_best()

    @torch.no_grad()
    def validate(self, images: ImageSet) -> tuple[float, float]:
        """Mean loss (without label smoothing and class weights) and accuracy over a set, in evaluation mode."""
        self.net.eval()
        self.ranks.share(self.net.buffers())
        sums = torch.zeros(2, dtype=self.sum_type, device=self.device)
        size = evaluation_batch(images.pixels.shape[1:], self.device, self.part)
        all_batches = batches(images, size, device=self.device)
        for batch in islice(all_batches, self.ranks.rank, None, self.ranks.count):
            outputs = self._outputs(self.part_that_runs, batch.images, are_features=self._on_features)
            loss = self.task.loss(outputs.float(), batch.targets) * len(batch.index)
            sums += torch.stack([loss, self.task.correct(outputs, batch.targets).sum()]).to(sums.dtype)
        loss, correct = (self.ranks.total(sums) / max(1, len(images))).tolist()
        return loss, correct

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

    def _checked(self, loss: Tensor) -> float:
        value = float(loss)
        chance = sum(head.weight * math.log(len(head.classes)) for head in self.task.heads)
        if not math.isfinite(value) or value > _CHANCE_MULTIPLE * chance:
            raise self._diverged(value, self.state.step)
        return value

    def _diverged(self, loss: float, step: int) -> DivergedError:
        epoch = self.state.epoch
        rate = self._rate(step)
        key = f"recipe.stages.{self.state.stage}.rate" if self.whole.stages else "recipe.rate"
        good = "there is no good checkpoint yet"
        if epoch:
            good = f"the last good checkpoint is that of epoch {epoch} (the course is in {HISTORY})"
        clip = ", or recipe.clip_norm=1" if self.recipe.clip_norm is None else ""
        return DivergedError(
            f"{self.run.path}: the loss is {loss:.4g} in epoch {epoch + 1}, step {step + 1}, at rate {rate:.3g}; {good}; "
            f"try a lower {key}{clip}"
        )

    def _stop(self) -> None:
        self.run.check_there()
        save_state(self.run, self.state, self.net, self.optimizer)
        command = self.run.command("train --resume")
        if self.run.spec.net.name == GIVEN:
            command = f"cs.train(net, data, recipe, out={str(self.run.path)!r}, resume=True)"
        raise StoppedError(
            f"stopped in epoch {self.state.epoch + 1} of {self.whole.epochs} after step {self.state.step} of {self.steps}; "
            f"all is saved: go on with {command}"
        )


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """32 well-mixed bits of (seed, step, rank): PyTorch's CPU generator looks at no more than 32 bits of a seed."""
    return int(np.random.SeedSequence((seed, step, rank) if rank else (seed, step)).generate_state(1)[0])


def _rows(targets: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: values[rows] for name, values in targets.items()}
