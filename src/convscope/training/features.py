"""Features: where the frozen part of a network comes first, what reaches the rest is computed once and kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from convscope.base.unfinished import UNFINISHED, mark
from convscope.data import ImageSet, batches

MEMORY = 2**30
"""Bytes of a set's features that are kept in memory; more lie in a file of the run folder, which goes with the process."""

_APART = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""How far outputs may be from the whole network's, relative to the largest: batches of other sizes add up in another order."""


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
    tail = _from_first(inner, learning)
    if set(net.parameters()) <= set(tail.module.parameters()):
        raise NoFeaturesError("what learns is no end of the network that runs by itself")
    return tail


def _from_first(module: nn.Module, learning: list[nn.Module]) -> Tail:
    """A module from its first child that learns on, where its children follow each other; else all of it."""
    if module in learning or type(module).forward is not nn.Sequential.forward:
        return Tail(module, module)
    children = list(module.children())
    first = next(place for place, child in enumerate(children) if not set(learning).isdisjoint(child.modules()))
    return Tail(nn.Sequential(*children[first:]), children[first])


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


class Features:
    """What reaches the tail of a network, of every image of some sets.

    Args:
        logits: of a batch of images in [0, 1], by the whole network in its number format.
        logits_by_tail: of a batch of features, by the tail.
        tail: of the network.
        dtype: the number format, which says how far the tail's outputs may be from the whole network's.
    """

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        logits_by_tail: Callable[[Tensor], Tensor],
        tail: Tail,
        dtype: torch.dtype,
    ) -> None:
        self.logits, self.logits_by_tail, self.tail, self.dtype = logits, logits_by_tail, tail, dtype
        self._kept: dict[ImageSet, Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        return sum(features.nbytes for features in self._kept.values())

    @property
    def shape(self) -> torch.Size:
        """Of an image's features."""
        return next(iter(self._kept.values())).shape[1:]

    @torch.no_grad()
    def keep(
        self, images: ImageSet, batch: int, device: torch.device, folder: Path, stopping: Callable[[], bool]
    ) -> None:
        """Computes the features of a set.

        Args:
            images: the set.
            batch: images at once.
            device: where the network is; there they stay if they are small.
            folder: of the file for large ones.
            stopping: is asked after each batch whether to leave off.
        """
        features: Tensor | None = None
        for chunk in batches(images, batch, device=device):
            reached = self._reach(chunk.images)
            if features is None:
                features = _room((len(images), *reached.shape[1:]), device, folder)
            features[chunk.index.to(features.device)] = reached.to(features)
            if stopping():
                return
        if features is not None:
            self._kept[images] = features

    @torch.no_grad()
    def check(self, images: ImageSet, batch: int, device: torch.device) -> None:
        """Compares the tail on features with the whole network, on every other of some images.

        Raises:
            NoFeaturesError: they differ by more than rounding.
        """
        rows = torch.arange(0, min(len(images), 2 * batch), 2)[:batch]
        whole = self.logits(next(batches(images.subset(rows), len(rows), device=device)).images).float()
        by_tail = self.logits_by_tail(self._at(images, rows, device)).float()
        same = whole.shape == by_tail.shape
        if not same or (whole - by_tail).abs().max() > _APART[self.dtype] * whole.abs().max().clamp(min=1):
            raise NoFeaturesError("the part that learns gives something else by itself")

    def batches(
        self, images: ImageSet, size: int, *, device: torch.device, **order: int | bool | str | None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """As `convscope.data.batches`, with features in the place of images: pairs of features and targets."""
        blank = replace(images, pixels=images.pixels.new_zeros(len(images.pixels), 1, 1, 1))
        for batch in batches(blank, size, device=device, **order):  # type: ignore[arg-type]
            yield self._at(images, batch.index, device), batch.targets

    def _at(self, images: ImageSet, index: Tensor, device: torch.device) -> Tensor:
        features = self._kept[images]
        return features[index.to(features.device)].to(device)

    def _reach(self, images: Tensor) -> Tensor:
        """What reaches the tail; the pass ends there."""

        def end(module: nn.Module, inputs: tuple[object, ...]) -> None:
            raise _ReachedError(*inputs)

        hook = self.tail.first.register_forward_pre_hook(end)
        try:
            self.logits(images)
        except _ReachedError as error:
            if len(error.args) == 1 and isinstance(error.args[0], Tensor):
                return error.args[0]
        finally:
            hook.remove()
        raise NoFeaturesError("the part that learns does not take one tensor")


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
