"""Images shifted, rotated and scaled about their centre, bilinearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Change:
    """One change of an image, about its centre.

    Attributes:
        kind: "shift", "rotate" or "scale".
        amount: of a shift (down, right) in px; of a rotation degrees, anticlockwise as seen; of a scaling the factor, above
            1 for a larger picture.
    """

    kind: str
    amount: float | tuple[float, float]

    def __str__(self) -> str:
        amount = self.amount
        if isinstance(amount, tuple):
            return f"shift {amount[0]:g}, {amount[1]:g} px"
        return f"rotate {amount:g}°" if self.kind == "rotate" else f"scale ×{amount:g}"

    def source(self, down: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Where in the image each pixel of the result comes from; all in px from the centre."""
        if isinstance(self.amount, tuple):
            return down - self.amount[0], right - self.amount[1]
        if self.kind == "scale":
            return down / self.amount, right / self.amount
        c, s = cos(radians(self.amount)), sin(radians(self.amount))
        return down * c + right * s, right * c - down * s


def transform(
    images: Float[Tensor, "N C H W"], cover: Float[Tensor, ...], changes: Sequence[Change]
) -> Float[Tensor, "T C H W"]:
    """One image after each of T changes, or T images after one change, interpolated bilinearly; `cover`, which is broadcast,
    shows where nothing of an image comes to lie."""
    height, width = images.shape[2:]
    axes = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in (height, width))
    down, right = torch.meshgrid(*axes, indexing="ij")
    sources = [change.source(down, right) for change in changes]
    # grid_sample counts from the centre in halves of the image, the column first.
    grid = torch.stack([torch.stack([2 * x / width, 2 * y / height], -1) for y, x in sources]).to(images)
    n = max(len(images), len(changes))
    whole = images.new_ones(len(changes), 1, height, width)
    seen, moved = (
        F.grid_sample(each.expand(len(at), -1, -1, -1), at, mode="bilinear", padding_mode="zeros", align_corners=False)
        for each, at in ((whole, grid), (images, grid.expand(n, -1, -1, -1)))
    )
    return moved + (1 - seen) * cover
