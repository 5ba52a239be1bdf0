"""Features: where the frozen part of a network comes first, what reaches the rest is computed once and kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.base.unfinished import UNFINISHED, mark
from convscope.data import ImageSet, batches

MEMORY = 2**30
"""Bytes of a set's features that are kept in memory; more lie in a file of the run folder, which goes with the process."""

_APART = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""How far outputs may be from the whole network's, relative to the largest: batches of other sizes add up in another order."""


Outputs = Callable[[Tensor], Tensor]


class NoFeaturesError(Exception):
    """Features cannot be kept; the message says why."""


class _ReachedError(Exception):
    """Ends a pass at the tail."""


@dataclass(frozen=True)
class Tail:
    """The end of a network that runs by itself on what reaches its first module.

    Attributes:
        module: gives the network's output for what reaches `first`.
        first: a module of the network.
    """

    module: nn.Module
    first: nn.Module


def tail_of(net: nn.Module, learning: list[nn.Module], image: Tensor) -> Tail:
    """The smallest part of a network that holds all that learns, and after which nothing comes.

    It is a module whose output is the network's; of an nn.Sequential only the modules from the first that learns on.

    Args:
        net: in evaluation mode.
        learning: modules of it.
        image: (1, C, H, W), normalised.
    Raises:
        NoFeaturesError: only the whole network is such a part.
    """
    holding = [module for module in net.modules() if set(learning) <= set(module.modules())]
    inner = next(module for module in reversed(holding) if _ends(net, module, image))
    tail = Tail(inner, inner)
    if inner not in learning and type(inner).forward is nn.Sequential.forward:
        children = list(inner.children())
        first = next(place for place, child in enumerate(children) if not set(learning).isdisjoint(child.modules()))
        tail = Tail(nn.Sequential(*children[first:]), children[first])
    if set(net.parameters()) <= set(tail.module.parameters()):
        raise NoFeaturesError("what learns is no end of the network that runs by itself")
    return tail


@torch.no_grad()
def _ends(net: nn.Module, module: nn.Module, image: Tensor) -> bool:
    """Whether a module's only result is the network's."""
    results: list[object] = []
    hook = module.register_forward_hook(lambda *call: results.append(call[2]))
    try:
        outputs = net(image)
    finally:
        hook.remove()
    return len(results) == 1 and results[0] is outputs


@dataclass(frozen=True, eq=False, repr=False)
class FeatureSet(ImageSet):
    """A set of images with what reaches the tail, fp32, in the place of their pixels."""

    pixels: Float[Tensor, "M ..."]


@torch.no_grad()
def features_of(
    images: ImageSet,
    outputs: Outputs,
    tail: Tail,
    batch: int,
    device: torch.device,
    folder: Path,
    after_batch: Callable[[], object],
) -> FeatureSet:
    """What reaches the tail of a network, of every image of a set, which is not empty.

    Args:
        images: the set.
        outputs: of a batch of images in [0, 1], by the whole network in its number format.
        tail: of the network.
        batch: images at once.
        device: where the network is; there they stay if they are small.
        folder: of the file for large ones.
        after_batch: may leave off by an exception.
    Raises:
        NoFeaturesError: the tail does not take one tensor, or there is no room.
    """
    features = None
    for chunk in batches(images, batch, device=device):
        reached = _reach(outputs, tail, chunk.images)
        if features is None:
            features = _room((len(images), *reached.shape[1:]), device, folder)
        features[chunk.index.to(features.device)] = reached.to(features)
        after_batch()
    assert features is not None
    targets = {name: images.targets_of(name) for name in images.targets}
    return FeatureSet(features, torch.arange(len(images)), targets, images.classes)


def _reach(outputs: Outputs, tail: Tail, images: Tensor) -> Tensor:
    """What reaches the tail; the pass ends there."""

    def end(module: nn.Module, inputs: tuple[object, ...]) -> None:
        raise _ReachedError(*inputs)

    hook = tail.first.register_forward_pre_hook(end)
    try:
        outputs(images)
    except _ReachedError as error:
        if len(error.args) == 1 and isinstance(error.args[0], Tensor):
            return error.args[0]
    finally:
        hook.remove()
    raise NoFeaturesError("the part that learns does not take one tensor")


@torch.no_grad()
def check_tail(
    images: ImageSet,
    outputs: Outputs,
    features: FeatureSet,
    outputs_by_tail: Outputs,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Compares the tail on features with the whole network, on every other of some images.

    Raises:
        NoFeaturesError: they differ by more than the rounding of the number format.
    """
    rows = torch.arange(0, min(len(images), 2 * batch), 2)[:batch]
    whole = outputs(next(batches(images.subset(rows), len(rows), device=device)).images).float()
    by_tail = outputs_by_tail(next(batches(features.subset(rows), len(rows), device=device)).images).float()
    same = whole.shape == by_tail.shape
    if not same or (whole - by_tail).abs().max() > _APART[dtype] * whole.abs().max().clamp(min=1):
        raise NoFeaturesError("the part that learns gives something else by itself")


def _room(shape: tuple[int, ...], device: torch.device, folder: Path) -> Tensor:
    """An fp32 tensor to be filled: on the device, or in a file where it is large."""
    n_bytes = 4 * torch.Size(shape).numel()
    if n_bytes <= MEMORY:
        return torch.empty(shape, device=device)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".features.{mark()}.", suffix=UNFINISHED) as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
            return torch.from_file(file.name, shared=True, size=n_bytes // 4).view(shape)
    except (OSError, AttributeError) as error:  # AttributeError: no such call on Windows
        reason = getattr(error, "strerror", None) or error
        raise NoFeaturesError(f"{n_bytes / 2**30:.1f} GiB of features have no room in {folder}: {reason}") from None
