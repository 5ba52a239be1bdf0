"""A scan looks at a data set: a reducer that is fed batches, merged with others of its kind, and asked for its result.

Merging is exact and does not depend on order or on how the data was cut: counts are integers, sums of real numbers are kept
as integers too (in fixed point), and what is kept of each image is sorted by its index at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from convscope.console import progress_bar
from convscope.data import ImageSet, batches
from convscope.training import EVALUATION_BATCH, Normalizer

_UNIT = 2**24
"""Steps of fixed-point sums per whole number: 6e-8, about what a float32 in [0.5, 1) resolves."""


@dataclass(frozen=True)
class Seen:
    """What scans are shown of a batch.

    Attributes:
        index: of each image in its set, (N,).
        outputs: the network's, (N, U).
        targets: class indices by target, (N,) each.
    """

    index: Int[Tensor, " N"]
    outputs: Float[Tensor, "N U"]
    targets: dict[str, Tensor]


class Scan(Protocol):
    """A reducer over the batches of a data set."""

    def update(self, seen: Seen) -> None:
        """Takes a batch in."""

    def merge(self, other: Self) -> None:
        """Takes in all that another scan of the same kind has seen; the images must be others."""

    def result(self) -> Any:
        """What the data seen so far comes to; may be asked at any time."""


class ExactSum:
    """A sum of real numbers that does not depend on their order: they are rounded to 2⁻²⁴ and added as integers."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, values: Float[Tensor, " N"]) -> None:
        """Adds the values, which must be finite and below 10⁸ or so."""
        self.total += int((values.double() * _UNIT).round().to(torch.int64).sum())

    def merge(self, other: ExactSum) -> None:
        self.total += other.total

    @property
    def value(self) -> float:
        return self.total / _UNIT


@torch.no_grad()
def feed(net: nn.Module, images: ImageSet, normalize: Normalizer, scans: Sequence[Scan], device: torch.device) -> None:
    """Shows every image of a set to all scans, in one pass of the network, in fp32, in evaluation mode.

    The network is moved to the device and left there; its mode is as before.
    """
    modes = [(module, module.training) for module in net.modules()]
    net = net.to(device).eval()
    try:
        with progress_bar("evaluating", len(images)) as advance:
            for batch in batches(images, EVALUATION_BATCH, device=device):
                seen = Seen(batch.index, net(normalize(batch.images)).float(), batch.targets)
                for scan in scans:
                    scan.update(seen)
                advance(len(batch.images))
    finally:
        for module, mode in modes:
            module.training = mode


def feed_stored(seen: Seen, scans: Iterable[Scan]) -> None:
    """Shows predictions that were made before to all scans."""
    for scan in scans:
        scan.update(seen)
