"""In which number format a training computes where its recipe leaves it open: bf16 where that is faster."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from convscope.compute import Entry, cache_folder, cached, entry_path
from convscope.data import DataBundle
from convscope.nets import Task
from convscope.runs import Recipe, Run, describe_environment
from convscope.training.device import number_format, undone
from convscope.training.loop import Trainer

FASTER = 0.8
"""bf16 is taken on a CPU where its step takes less than this share of fp32's time."""


def settled_precision(
    recipe: Recipe, net: nn.Module, data: DataBundle, task: Task, device: torch.device
) -> dict[str, Any]:
    """What environment.json says of the number format: {"format": "bf16"}.

    "auto" is bf16 on a GPU that has it. On a CPU that has it, some steps are timed in each format after one that is not, and
    `seconds_a_step` says what they took; the choice is cached, so that the same training on the same machine makes it again.
    Other devices compute in fp32. The network is left as it was.
    """
    if recipe.precision != "auto" or device.type != "cpu" or not has_bf16():
        return {"format": "bf16" if number_format(recipe, device) is torch.bfloat16 else "fp32"}
    environment = describe_environment()
    key = {
        "net": str(net),
        "recipe": timed_recipe(recipe, "auto").model_dump(mode="json", exclude={"seed", "epochs"}),
        "images": list(data.input_shape),
        **{name: environment[name] for name in ("processor", "threads", "packages")},
    }
    return cached(
        entry_path(cache_folder(), "steps", "precision", key),
        key,
        lambda: _measured(recipe, net, data, task),
        lambda precision: Entry({"found": precision}),
        lambda entry: entry.values["found"],
    )


def has_bf16() -> bool:
    """Whether the processor multiplies matrices of bf16 numbers by itself, and oneDNN is not told to leave that."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    capabilities = torch.cpu.get_capabilities()
    return (
        any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16"))
        and any(word in limit.upper() for word in ("DEFAULT", "ALL", "BF16", "FP16", "AMX"))
    )  # fmt: skip


def _measured(recipe: Recipe, net: nn.Module, data: DataBundle, task: Task) -> dict[str, Any]:
    seconds = {"fp32": _step_seconds(recipe, "fp32", net, data, task)}
    with suppress(Exception):  # not every operation has bf16, and a forward may fail in any way
        seconds["bf16"] = _step_seconds(recipe, "bf16", net, data, task)
    return {
        "format": "bf16" if seconds.get("bf16", math.inf) < FASTER * seconds["fp32"] else "fp32",
        "seconds_a_step": {name: round(value, 5) for name, value in seconds.items()},
    }


def _step_seconds(recipe: Recipe, precision: str, net: nn.Module, data: DataBundle, task: Task) -> float:
    """What a step of the network takes, which is then put back."""
    recipe = timed_recipe(recipe, precision)
    with undone(net):
        return step_seconds(Trainer(Run(Path()), net, data, task, recipe, torch.device("cpu")))


def timed_recipe(recipe: Recipe, precision: str) -> Recipe:
    """The recipe of the last stage, in which as a rule most learns, neither compiled nor on smaller images. What is frozen
    takes no memory for gradients: all of EfficientNet-Lite0 would take 13 GB for 128 images of 224 px, its head 1 GB."""
    change = {"precision": precision, "compile": False, "resize": None, "rate": 1e-3}
    return recipe.parts[-1].model_copy(update=change)


_STEPS, _LONG_S = 6, 3.0


def step_seconds(trainer: Trainer) -> float:
    """The median of some steps after the first, their images included; of a single one where they take long."""
    trainer.stages.train()
    times = [time.perf_counter()]
    for images, targets in islice(trainer.endless_batches(), _STEPS):
        trainer._step(images, targets)[0].item()  # waits for a GPU
        times.append(time.perf_counter())
        if len(times) > 2 and times[-1] - times[0] > _LONG_S:
            break
    return median(after - before for before, after in pairwise(times[1:]))
