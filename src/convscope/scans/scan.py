"""A scan looks at a data set: a reducer that is fed batches, merged with others of its kind, and asked for its result.

Merging is exact and does not depend on order or on how the data was cut: counts are integers, sums of real numbers are kept
as integers too, and what is kept of each image is sorted by its index at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from convscope.console import progress_bar
from convscope.data import ImageSet, batches
from convscope.errors import FailedError
from convscope.training import Normalizer, evaluation_batch

_POINT = 1100
"""Binary places of exact sums beyond a double's own 53: the smallest double is 2^-1074."""


@dataclass(frozen=True)
class Seen:
    """What scans are shown of a batch, on the CPU.

    Attributes:
        index: of each image in its set, (N,).
        outputs: the network's, (N, U).
        targets: class indices by target, (N,) each.
    """

    index: Int[Tensor, " N"]
    outputs: Float[Tensor, "N U"]
    targets: dict[str, Tensor]


@runtime_checkable
class Scan(Protocol):
    """A reducer over the batches of a data set."""

    def update(self, seen: Seen) -> None:
        """Takes a batch in."""

    def merge(self, other: Any) -> None:
        """Takes in all that another scan of the same kind has seen; the images must be others."""

    def result(self) -> Any:
        """What the data seen so far comes to; may be asked at any time."""


class ExactSum:
    """The exact sum of doubles, kept as one long integer, so that it depends neither on order nor on how data was cut."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, values: Float[Tensor, " N"]) -> None:
        """Adds the values, which must be finite."""
        share, exponents = np.frexp(values.double().numpy())
        mantissas = (share * 2**53).astype(np.int64)
        for exponent in np.unique(exponents).tolist():
            chosen = mantissas[exponents == exponent]
            high, low = chosen >> 27, chosen & (2**27 - 1)  # in halves, so that no sum leaves 64 bits
            self.total += ((int(high.sum()) << 27) + int(low.sum())) << (exponent + _POINT)

    def merge(self, other: ExactSum) -> None:
        self.total += other.total

    @property
    def value(self) -> float:
        return self.total / (1 << (53 + _POINT))


@torch.no_grad()
def feed(
    net: nn.Module,
    images: ImageSet,
    normalize: Normalizer,
    scans: Sequence[Scan],
    device: torch.device,
    batch_size: int = 1,
) -> None:
    """Shows every image of a set to all scans, in one pass of the network, in fp32, in evaluation mode.

    The network is moved to the device and left there; its mode is as before.

    Args:
        batch_size: images at once that surely fit the memory (those of a training step).
    Raises:
        FailedError: the network's outputs are no numbers.
    """
    modes = [(module, module.training) for module in net.modules()]
    net = net.to(device).eval()
    try:
        with progress_bar("evaluating", len(images)) as advance:
            for batch in batches(images, evaluation_batch(images, batch_size), device=device):
                outputs = net(normalize(batch.images)).float().cpu()
                targets = {name: target.cpu() for name, target in batch.targets.items()}
                seen = checked(Seen(batch.index.cpu(), outputs, targets))
                for scan in scans:
                    scan.update(seen)
                advance(len(batch.images))
    finally:
        for module, mode in modes:
            module.training = mode


def checked(seen: Seen) -> Seen:
    """The same, if every output is a finite number.

    Raises:
        FailedError: there is one that is not; figures of such a network would be nonsense.
    """
    if not bool(seen.outputs.isfinite().all()):
        raise FailedError("the network answers with NaN or infinity; its weights are broken: train it again")
    return seen


def feed_stored(seen: Seen, scans: Iterable[Scan]) -> None:
    """Shows predictions that were made before to all scans."""
    for scan in scans:
        scan.update(seen)
