"""Looking at a network without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any

import torch
from torch import nn


@contextmanager
def left_as_found(net: nn.Module) -> Iterator[None]:
    """Puts `net` back as it was, after an exception too: modes, attributes, hooks, buffers, random state.

    A module's whole state is its `__dict__`: the train/eval flag, the hooks, the tables of parameters and
    buffers, and whatever a forward assigns on the way (recurrent layers and weight norm do). Buffers may also
    be written in place, so their contents are kept beside.
    """
    # Each attribute with, for a dict or a list, a copy of what it holds.
    attributes = [
        (module, {k: (v, copy(v) if isinstance(v, dict | list) else None) for k, v in vars(module).items()})
        for module in net.modules()
    ]
    modes = [(module, module.training) for module in net.modules()]
    frozen = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in net.buffers()]
    gpus = {p.device for p in net.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        for module, contents in attributes:
            _restore(module, contents)
        for module, mode in modes:
            if module.training != mode:  # it is kept elsewhere, as in TorchScript
                module.training = mode
        for parameter, requires_grad in frozen:
            parameter.requires_grad_(requires_grad)
        with torch.no_grad():
            for buffer, version, content in buffers:
                if buffer._version != version:
                    buffer.copy_(content)


def evaluate(net: nn.Module) -> None:
    """Puts the network into evaluation mode; one that was exported has none, and is as it was exported."""
    with suppress(NotImplementedError):
        net.eval()


def _restore(module: nn.Module, contents: dict[str, tuple[Any, Any]]) -> None:
    attributes = vars(module)
    attributes.clear()
    for name, (value, saved) in contents.items():
        attributes[name] = value
        if saved is not None and not _same(value, saved):
            value.clear()
            value.update(saved) if isinstance(value, dict) else value.extend(saved)


def _same(value: dict | list, saved: dict | list) -> bool:
    """Whether the container still holds the very same objects, in the same order."""
    if isinstance(value, dict):
        return list(value) == list(saved) and all(value[k] is saved[k] for k in value)
    return len(value) == len(saved) and all(a is b for a, b in zip(value, saved, strict=True))
