"""What is checked before a training writes anything: that network, images and processes fit each other and the recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from convscope.data import DataBundle
from convscope.errors import NetworkError, SettingError, first_line
from convscope.graph import unwrapped
from convscope.nets import Task, outputs_of
from convscope.runs import Card, Recipe
from convscope.training.device import autocast, number_format, undone
from convscope.training.ranks import Ranks
from convscope.training.resizing import check_sizes
from convscope.training.stages import Stages


def check_fit(net: nn.Module, card: Card, task: Task, recipe: Recipe) -> None:
    """Passes of two blank images, in evaluation mode and as each stage of the recipe trains: each must give (2, outputs).

    Raises:
        NetworkError: one does not; or a part of the network's state is nothing that a run folder can keep.
        UnknownNameError, SettingError: see Stages.
    """
    parameters = list(net.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise NetworkError("this network has no parameters to train, or all are frozen: set requires_grad on some")
    if any(tensor.is_inference() for tensor in (*parameters, *net.buffers())):
        raise NetworkError("this network was made under torch.inference_mode(), and cannot learn; build it outside")
    wrong = [one.dtype for one in parameters if one.is_floating_point() and one.dtype != torch.float32]
    if wrong:
        raise NetworkError(
            f"the weights of this network are {wrong[0]}; training keeps them in float32: give net.float()"
        )
    if others := [name for name, value in net.state_dict().items() if not isinstance(value, Tensor)]:
        raise NetworkError(
            f"{others[0]} of this network is no tensor, and a run folder keeps tensors alone: let get_extra_state return one"
        )
    images = torch.zeros(2, *card.input_shape, device=parameters[0].device, dtype=torch.float32)
    _check_outputs(outputs_of(net, images), task, "")
    stages = Stages(net, recipe, card.input_shape)
    with undone(net), torch.enable_grad():
        for number in range(len(recipe.parts)):
            stages.begin(number)
            stages.train()
            outputs = _trained_on(net, images, recipe)
            _check_outputs(outputs, task, " in training mode")
            if not outputs.requires_grad:
                raise NetworkError(
                    "no gradient reaches what is to learn: does the output depend on it, without torch.no_grad() or detach()?"
                )


def _trained_on(net: nn.Module, images: Tensor, recipe: Recipe) -> Any:
    """The outputs of a pass as in a step; what is compiled is not compiled for this."""
    dtype = number_format(recipe, images.device)
    try:
        with autocast(images.device, dtype):
            return unwrapped(net)(images)
    except Exception as error:  # a forward may fail in any way
        mode = "training mode" if dtype is torch.float32 else "training mode and bf16 (recipe.precision)"
        raise NetworkError(f"the network fails in {mode}: {first_line(error)}") from error


def _check_outputs(outputs: object, task: Task, mode: str) -> None:
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if shape != (2, task.outputs):
        advice = (
            "give the logits alone (of torchvision's networks with aux_logits=False)" if mode else "check net.classes"
        )
        raise NetworkError(
            f"for 2 images the network gives {shape}{mode}; the task needs (2, {task.outputs}): {advice}"
        )


def check_images(net: nn.Module, data: DataBundle, recipe: Recipe) -> None:
    """What would otherwise show only in the first step or at the end of the first epoch."""
    if len(data.train) < 2 or len(data.val) < 1:
        counts = f"{len(data.train)} training and {len(data.val)} validation images"
        raise SettingError(f"data: there are {counts}; 2 and 1 are needed at least: check data.split and data.limit")
    if recipe.batch == 1 and _has_batch_norm(net):
        raise SettingError("recipe.batch: 1 image has no spread for batch norm to measure; take 2 or more")
    side = min(data.input_shape[1:])
    for part in recipe.parts:
        augmentation = part.augmentation
        if augmentation.padding == "reflect" and augmentation.crop >= side:
            raise SettingError(
                f"recipe.augmentation.crop: {augmentation.crop} with padding reflect needs images larger than "
                f"that; these have {side} px"
            )
    check_sizes(net, recipe, data.input_shape)


def check_shares(net: nn.Module, recipe: Recipe, ranks: Ranks, device: torch.device) -> None:
    """Whether each of several processes has something to do in a step."""
    if ranks.count == 1:
        return
    least = 2 if _has_batch_norm(net) and not recipe.sync_batch_norm else 1
    if recipe.batch < least * ranks.count:
        raise SettingError(
            f"recipe.batch: {recipe.batch} for {ranks.count} processes; each needs {least} or more of its images"
        )
    if recipe.sync_batch_norm and device.type != "cuda":
        raise SettingError("recipe.sync_batch_norm: PyTorch has it for several GPUs alone; leave it out on a CPU")


def _has_batch_norm(net: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
