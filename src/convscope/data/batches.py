"""Batches of an image set, on the device where they are needed.

There are no worker processes: a batch is one gather from memory and a few tensor operations, a few
milliseconds. On CUDA the pixels of a data set move to the device once, where they fit, and batches are made
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from convscope.data.augment import Augmentation, augment
from convscope.data.seeds import generator
from convscope.data.sets import ImageSet, in_unit_range, rows_of
from convscope.errors import SettingError

RESIDENT_SHARE = 0.5  # of the device's free memory that pixels may take, before the network is there
_resident: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # pixels → device → their copy there, or None


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of a set with their targets, on one device.

    Args:
        images: floats in [0, 1], before normalization; of a set of features these.
        targets: for each target of the set its indices.
        index: the position of each image in the set.
    """

    images: Float[Tensor, "N ..."]
    targets: dict[str, Int64[Tensor, " N"]]
    index: Int64[Tensor, " N"]


def batches(
    image_set: ImageSet,
    size: int,
    *,
    device: str | torch.device = "cpu",
    seed: int | None = None,
    epoch: int = 0,
    first_step: int = 0,
    augmentation: Augmentation | None = None,
    drop_last: bool = False,
    balance: str | None = None,
) -> Iterator[Batch]:
    """The batches of one epoch, in their order.

    Args:
        image_set: where the images come from.
        size: images in a batch; the last one may have fewer.
        device: where the batches are to be.
        seed: fixes, with `epoch`, the order of the images and the augmentation. None: the order of the set.
        epoch: counted from 0.
        first_step: begin with this batch; those before it cost nothing, and the rest are as if they had been
            made.
        augmentation: distortions; None for none.
        drop_last: leave out a last batch that is not full.
        balance: a target of the set: as many images as it has are drawn with replacement, each class of that
            target that has images equally likely, and within it each image; needs a seed. None: each image
            once.

    Raises:
        SettingError: size, epoch, first_step or seed is out of range, or `balance` has no seed.
        UnknownNameError: the set has no such target.

    Example:
        >>> data = load_data("lines", limit=960)
        >>> [len(batch.index) for batch in batches(data.test, 128)]
        [128, 128, 128]
    """
    for name, value, least in (
        ("size", size, 1),
        ("epoch", epoch, 0),
        ("first_step", first_step, 0),
        ("seed", seed or 0, 0),
    ):
        if value < least:
            raise SettingError(f"{name}: {value} is out of range; give {least} or more")
    if balance is not None and seed is None:
        raise SettingError(f"balance: {balance} needs a seed to draw images by; give one")
    stop = len(image_set) // size if drop_last else -(-len(image_set) // size)
    order = _order(image_set, seed, epoch, balance)
    # how augmentation tells images apart: with balance, where one may be drawn twice, by the place of the draw
    instance_ids = order if balance is None else np.arange(len(order))
    where = torch.device(device)

    def made() -> Iterator[Batch]:
        pixels = _on_device(image_set.pixels, where)
        rows = image_set.index.to(pixels.device)
        targets = {name: values.to(pixels.device) for name, values in image_set.targets.items()}
        places, ids = (torch.from_numpy(values).to(pixels.device) for values in (order, instance_ids))
        for step in range(first_step, stop):
            part, key = slice(step * size, (step + 1) * size), (seed or 0, epoch, step)
            index = places[part]
            chosen = rows[index]
            images = _moved(rows_of(pixels, chosen), where)
            yield Batch(
                in_unit_range(images) if augmentation is None else augment(images, augmentation, key, ids[part]),
                {name: _moved(values[chosen], where) for name, values in targets.items()},
                _moved(index, where),
            )

    return made()


def _order(image_set: ImageSet, seed: int | None, epoch: int, balance: str | None) -> Int64[np.ndarray, " N"]:
    """The places of an epoch's images in their set."""
    n = len(image_set)
    if seed is None:
        return np.arange(n)
    if balance is None or not n:
        return generator("order", seed, epoch).permutation(n)
    targets, draws = image_set.targets_of(balance).numpy(), generator("balanced", seed, epoch)
    counts = np.bincount(targets)
    present = np.flatnonzero(counts)
    first = np.cumsum(counts) - counts  # of each class among the images sorted by class
    chosen = present[draws.integers(len(present), size=n)]
    return np.argsort(targets, kind="stable")[first[chosen] + draws.integers(counts[chosen])]


def _moved(values: Tensor, device: torch.device) -> Tensor:
    if values.device.type == "cpu" and device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def _on_device(pixels: Num[Tensor, "M ..."], device: torch.device) -> Num[Tensor, "M ..."]:
    """The pixels on a CUDA device where they fit, copied once for all sets over them; else as they are."""
    if device.type != "cuda" or pixels.is_cuda:
        return pixels
    copies = _resident.setdefault(pixels, {})
    if device not in copies:
        free, _ = torch.cuda.mem_get_info(device)
        copies[device] = pixels.to(device) if pixels.nbytes <= RESIDENT_SHARE * free else None
    return pixels if copies[device] is None else copies[device]


class Normalizer:
    """Images in [0, 1] → (image - mean) / std of each channel, on one device."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return (images - self.mean).div_(self.std)
