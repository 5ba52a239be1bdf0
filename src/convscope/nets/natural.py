"""What a network was made for: the number of classes, and the size and normalisation of its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SHAPE_OPTIONS = ("classes", "channels", "image_size")
Normalization = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class NaturalInput:
    """What a network was made for. The default is CIFAR-10's.

    Attributes:
        classes: number of its outputs.
        channels: of its images.
        height, width: of its images, in pixels.
        normalize: (means, deviations) by channel for pixels in [0, 1]; None where it takes pixels as they are.
        class_names: of its trained weights, where they are known; empty otherwise.

    Example:
        >>> natural_input("net4").shape
        (3, 32, 32)
    """

    classes: int = 10
    channels: int = 3
    height: int = 32
    width: int = 32
    normalize: Normalization | None = None
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width

    def example(self) -> Float[Tensor, "1 C H W"]:
        """A blank image, for `Scope` and `anatomy`."""
        return torch.zeros(1, *self.shape)

    def options(self) -> dict[str, int]:
        """As a builder takes it: `classes`, `channels`, `image_size` (the height)."""
        return {"classes": self.classes, "channels": self.channels, "image_size": self.height}

    def resized(self, channels: int, height: int, width: int) -> NaturalInput:
        """The same for other images; where the channels are other ones, each is normalised by the mean over the old ones."""
        normalize = self.normalize
        if normalize is not None and channels != self.channels:
            mean, deviation = ((sum(values) / len(values),) * channels for values in normalize)
            normalize = mean, deviation
        return replace(self, channels=channels, height=height, width=width, normalize=normalize)


def from_pretrained_cfg(config: Any, classes: int) -> NaturalInput:
    """From timm's record of a network, which other libraries' networks carry too, as `pretrained_cfg`.

    Args:
        config: with `input_size` (C, H, W), `mean` and `std`, and where it is known `num_classes`.
        classes: where it is not.
    """
    channels, height, width = config["input_size"]
    normalize = tuple(config["mean"]), tuple(config["std"])
    return NaturalInput(config.get("num_classes", classes), channels, height, width, normalize)
