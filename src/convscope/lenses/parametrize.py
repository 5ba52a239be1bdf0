"""What gradient ascent turns: the numbers that stand for a picture.

Both kinds can make every picture. They differ in which comes first: a step on pixels changes each alone, a step
on waves changes large forms before fine grain. `maximize` makes a picture in [0, 1] of the unbounded image that
they give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Size = tuple[int, ...]  # of one image: C, H, W


@runtime_checkable
class Parametrization(Protocol):
    """How numbers become an image. Standard normal numbers give pixels of deviation 1."""

    def shape(self, size: Size) -> tuple[int, ...]:
        """The shape of the numbers for one image of that size."""
        ...

    def image(self, numbers: Float[Tensor, "N ..."], size: Size) -> Float[Tensor, "N C H W"]:
        """The images that the numbers stand for, unbounded and linear in them."""
        ...


@dataclass(frozen=True)
class Pixels:
    """One number a pixel."""

    def shape(self, size: Size) -> tuple[int, ...]:
        return size

    def image(self, numbers: Float[Tensor, "N C H W"], size: Size) -> Float[Tensor, "N C H W"]:
        return numbers


@dataclass(frozen=True)
class Fourier:
    """Two numbers a wave, scaled by 1 / frequency^decay, so that all waves are as strong as in photographs.

    The wave that does not swing (the mean) counts as the longest that does.

    Args:
        decay: 1 is the fall of amplitudes in natural images; 0 treats all waves alike; above 1 is smoother.

    Source: Olah, Mordvintsev & Schubert 2017, "Feature Visualization", section "Preconditioning and
        Parameterization", doi 10.23915/distill.00007. They also decorrelate colours by statistics of
        ImageNet; that is left out here, since images may have any channels.
    """

    decay: float = 1.0

    def shape(self, size: Size) -> tuple[int, ...]:
        channels, height, width = size
        return channels, height, width // 2 + 1, 2

    def image(self, numbers: Float[Tensor, "N C H half 2"], size: Size) -> Float[Tensor, "N C H W"]:
        waves = torch.view_as_complex(numbers) * self._scale(size).to(numbers)
        return torch.fft.irfft2(waves, s=size[1:], norm="ortho")

    def _scale(self, size: Size) -> Float[Tensor, "H half"]:
        _, height, width = size
        down = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
        across = torch.fft.rfftfreq(width, dtype=torch.float64)
        frequency = torch.hypot(down, across).clamp_min(1 / max(height, width))
        amplitude = frequency**-self.decay
        # The power of each column: it stands for itself and its mirror image, with two numbers a wave. The columns
        # that are their own mirror image are made symmetric, which takes half of their power.
        power = torch.full((width // 2 + 1,), 4.0, dtype=torch.float64)
        power[0] = 1
        if width % 2 == 0:
            power[-1] = 1
        return amplitude / (power * amplitude.square()).sum().div(height * width).sqrt()
