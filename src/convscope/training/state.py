"""The state of a training between two steps: what a checkpoint holds, no more and no less.

Order of images, augmentation and dropout follow from (seed, epoch, step), and the rate from the step; so a checkpoint needs
no random state, and going on from one gives the same bits as never having stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import RunFolderError
from convscope.runs import CHECKPOINT, Run, load_weights, read_tensors

_CARD = ("epoch", "step", "sums", "history", "best_epoch", "stage", "first_epoch")


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes:
        epoch, step: the step to do next; step counts within the epoch.
        sums: loss × images, right images, images and seconds of the epoch so far.
        history: the rows of the finished epochs.
        best_epoch, best: the stage's epoch with the best `watch` and its weights, where the recipe has patience.
        average: of the weights over the stage's steps, where the recipe averages them.
        stage, first_epoch: the stage of the recipe, and the epoch in which it began.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("loss", "correct", "images", "seconds"), 0.0))
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    stage: int = 0
    first_epoch: int = 0

    def begin_epoch(self) -> None:
        """Moves to the next epoch's first step."""
        self.epoch, self.step = self.epoch + 1, 0
        self.sums = dict.fromkeys(self.sums, 0.0)

    def begin_stage(self) -> None:
        """Moves to the next stage, which has no best epoch and no average yet."""
        self.stage, self.first_epoch = self.stage + 1, self.epoch
        self.best_epoch, self.best, self.average = None, {}, {}


def save_state(run: Run, state: TrainingState, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Writes the checkpoint, whole or not at all."""
    parts = {"net": net.state_dict(), "best": state.best, "average": state.average}
    packed = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    for number, slots in optimizer.state_dict()["state"].items():
        packed |= {f"optimizer.{number}.{key}": value for key, value in slots.items() if isinstance(value, Tensor)}
    card = {key: getattr(state, key) for key in _CARD}
    run.write_tensors(CHECKPOINT, packed, card)


def load_state(run: Run, net: nn.Module) -> tuple[TrainingState, dict[str, Tensor]]:
    """Reads the checkpoint's weights into the network; gives the state, and what `load_optimizer` takes.

    Raises:
        RunFolderError: the checkpoint is damaged or belongs to another network.
    """
    path = run.path / CHECKPOINT
    tensors, card = read_tensors(path)
    if not {"epoch"} <= set(card) <= set(_CARD):
        raise RunFolderError(f"{path} is no checkpoint of this convscope")
    load_weights(net, _under("net.", tensors), path)
    state = TrainingState(**card, best=_under("best.", tensors), average=_under("average.", tensors))
    return state, _under("optimizer.", tensors)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Fills the optimizer's slots, each laid out in memory like its parameter, as the optimizer itself would have."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape and tensor.ndim > 0:
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        slots.setdefault(int(number), {})[key] = tensor
    # PyTorch's own loading knows on which device each optimizer wants its step counter
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
