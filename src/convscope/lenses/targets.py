"""Which output of the network a lens asks about, for each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from convscope.errors import RequestError

Target = int | Sequence[int] | Int[Tensor, " N"] | None
"""What lenses take as `target`: one output for all images, one for each, or None for the most probable of each."""


def choose_targets(logits: Float[Tensor, "N K"], target: Target) -> Int[Tensor, " N"]:
    """The output to ask about for each image, on the logits' device.

    Args:
        logits: the network's outputs.
        target: see `Target`. With a single output (a sigmoid) it is always that one.
    Raises:
        RequestError: a target is not one of the outputs, or there is another number of them than of images.

    Example:
        >>> choose_targets(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), None)
        tensor([1, 0])
    """
    n, k = logits.shape
    if target is None:
        return logits.argmax(1)
    given = torch.as_tensor(target, device=logits.device)
    if given.is_floating_point() or given.ndim > 1:
        raise RequestError(f"target: {target!r} is no class index; expected a whole number, or one for each image")
    if given.ndim == 1 and len(given) != n:
        raise RequestError(f"target: {len(given)} targets for {n} images; give one for all, or one for each")
    outside = given[(given < 0) | (given >= k)].flatten().tolist()
    if outside:
        raise RequestError(f"target: {outside[0]} is not an output of this network; it has 0 to {k - 1}")
    return given.expand(n).long()
