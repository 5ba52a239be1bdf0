"""What the attribution lenses give back: how much each place of the image or of a layer speaks for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from convscope.base.shown import Shown
from convscope.errors import FailedError
from convscope.graph import is_finite

OVERFLOW = (
    "the network answers with NaN or infinity, though its weights are finite: numbers overflow on the way; "
    "compare the normalisation of the images with that of the training"
)
"""What is said of a network whose answer is no number."""


@dataclass(frozen=True, eq=False)
class Attribution(Shown):
    """Signed values for each image, with what was asked and how.

    Attributes:
        values: positive where a place speaks for the answer, negative where against it, zero where it does not
            matter. On the image for gradients (C its channels), on the layer for class-activation maps (C = 1).
            As they are computed: nothing is normalised, so images may be compared.
        method: the lens, such as "grad_cam".
        target: the class asked about; None where units of a layer were.
        probability: what the network gives that class, among those of its head.
        layer: the layer asked about, or that the class was followed back to; None means the whole way from the
            class to the image.
        unit: the unit asked about, if one was.
        position: row and column in the layer, if one was asked about.
        note: what a reader has to know, such as "3 rectifiers overridden: 3 relu"; None if nothing.
    """

    values: Float[Tensor, "N C H W"]
    method: str
    target: Int[Tensor, " N"] | None = None
    probability: Float[Tensor, " N"] | None = None
    layer: str | None = None
    unit: int | None = None
    position: Int[Tensor, "N 2"] | None = None
    note: str | None = None

    def on_image(self, height: int, width: int) -> Float[Tensor, "N C height width"]:
        """The values enlarged bilinearly to the size of the image; their magnitudes stay.

        Each position is taken to cover an equal share of the image (`align_corners=False`), as is usual. In a
        network without padding it lies a little off; `receptive_field(layer)` tells exactly where.
        """
        return F.interpolate(self.values, (height, width), mode="bilinear", align_corners=False)

    def saliency(self) -> Float[Tensor, "N 1 H W"]:
        """The largest absolute value over the channels: how much a place matters, for or against.

        Source: Simonyan et al. 2013, section 3.1, arXiv 1312.6034.
        """
        return self.values.abs().amax(1, keepdim=True)

    def noting(self, *remarks: str | None) -> Attribution:
        """The same with remarks added to the note; None adds nothing."""
        notes = [remark for remark in (self.note, *remarks) if remark]
        return replace(self, note="; ".join(notes) or None)


def join(parts: Sequence[Attribution]) -> Attribution:
    """One record of the images of all parts, in their order; the rest is that of the first.

    Raises:
        FailedError: a value or a probability is NaN or infinite.
    """
    fields: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("values", "target", "probability", "position")
        if getattr(parts[0], name) is not None
    }
    if "probability" in fields and not is_finite(fields["probability"]):
        raise FailedError(OVERFLOW)
    if not is_finite(fields["values"]):
        which = remark(~fields["values"].isfinite().flatten(1).all(1), "values that are NaN or infinite")
        raise FailedError(
            f"{parts[0].method} gives {which}: numbers overflow in the network, or its gradient is infinite there"
        )
    return replace(parts[0], **fields)


def remark(images: Bool[Tensor, " N"], text: str) -> str | None:
    """`text`, said of the images that it holds for; None where of none."""
    if not images.any():
        return None
    if len(images) == 1:
        return text
    which = images.nonzero().flatten().tolist()
    return f"image{'s' if len(which) > 1 else ''} {', '.join(map(str, which))}: {text}"
