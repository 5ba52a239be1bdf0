"""What keeps a maximizing picture away from noise: small pieces that `maximize` composes.

A regularizer either shows the network a changed picture (jitter, blur), or takes something off the activation
(total variation, L2). A new one overrides one of the two methods of `Regularizer`. All work before
normalisation, on pictures in [0, 1], and treat each picture of a batch alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.data import operations


class Regularizer:
    """The base: both methods change nothing unless overridden."""

    def transform(self, pictures: Float[Tensor, "N C H W"], generator: torch.Generator) -> Float[Tensor, "N C H W"]:
        """What the network is shown in this step; random numbers come from `generator`, which is on the CPU."""
        return pictures

    def penalty(self, pictures: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        """What is taken off the activation, in its unit."""
        return pictures.new_zeros(len(pictures))


@dataclass(frozen=True)
class Jitter(Regularizer):
    """The picture rolled by a few pixels, anew in each step; what leaves on one side comes in on the other.

    What remains is what activates the unit wherever it lies.

    Args:
        pixels: the most that it is moved down, up, left and right.

    Source: Mordvintsev, Olah & Tyka 2015, "Inceptionism"; Olah et al. 2017, doi 10.23915/distill.00007.
    """

    pixels: int

    def transform(self, pictures: Float[Tensor, "N C H W"], generator: torch.Generator) -> Float[Tensor, "N C H W"]:
        down, across = torch.randint(-self.pixels, self.pixels + 1, (2,), generator=generator).tolist()
        return pictures.roll((down, across), dims=(2, 3))


@dataclass(frozen=True)
class Blur(Regularizer):
    """The picture through a Gaussian, so that nothing is gained by fine grain. Borders are continued.

    Args:
        deviation_px: of the Gaussian, above 0; it is cut off at three deviations.

    Source: Yosinski et al. 2015, arXiv 1506.06579, who blur the picture itself every few steps; here the
        network sees it blurred.
    """

    deviation_px: float

    def transform(self, pictures: Float[Tensor, "N C H W"], generator: torch.Generator) -> Float[Tensor, "N C H W"]:
        return operations.blur(pictures, self.deviation_px)


@dataclass(frozen=True)
class TotalVariation(Regularizer):
    """Weight × the mean absolute step from a pixel to the one below, plus that to its right; 0 for a plain picture.

    Args:
        weight: in units of the activation; a picture of noise costs about 2/3 of it.

    Source: Rudin, Osher & Fatemi 1992, doi 10.1016/0167-2789(92)90242-F; for this purpose Mahendran & Vedaldi
        2015, arXiv 1412.0035. This is the anisotropic form.
    """

    weight: float

    def penalty(self, pictures: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        steps = [pictures.diff(dim=axis).abs().flatten(1) for axis in (2, 3) if pictures.shape[axis] > 1]
        return self.weight * sum((step.mean(1) for step in steps), start=pictures.new_zeros(len(pictures)))


@dataclass(frozen=True)
class L2(Regularizer):
    """Weight × the mean squared distance from one level of brightness; 0 for a picture that has it throughout.

    Args:
        weight: in units of the activation.
        level: in [0, 1]; by default mid-grey, from which a pixel is 0.25 away at most.

    Source: Simonyan, Vedaldi & Zisserman 2013, section 2, arXiv 1312.6034.
    """

    weight: float
    level: float = 0.5

    def penalty(self, pictures: Float[Tensor, "N C H W"]) -> Float[Tensor, " N"]:
        return self.weight * (pictures - self.level).square().flatten(1).mean(1)
