"""A trained network with all that stands around it: from raw pixels of any size to probabilities."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from convscope.runs import Run

_LUMA = (19595, 38470, 7471)  # 65536ths of red, green and blue in a grey image (ITU-R BT.601), as Pillow's


class Deployed(nn.Module):
    """A run's network as others use it, in evaluation mode.

    It takes pixels as they are read from a file, uint8 (N, height, width, 3) of any size, and does with them what was done with
    the training images: makes them grey where the run is, scales them until they cover the run's size and cuts out the centre
    (see `convscope.data.read_image`; rounded to whole numbers as Pillow does), normalises. It gives the probability of each of
    `run.task.classes`, (N, classes); those of each head sum to 1.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.net, self.task = run.net, run.task
        self.channels, self.height, self.width = run.input_shape
        buffers = {"mean": run.card.mean, "std": run.card.std, "luma": _LUMA}
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.eval()

    def forward(self, images: UInt8[Tensor, "N height width 3"]) -> Float[Tensor, "N classes"]:
        """Probabilities of the classes."""
        shown = self.pixels(images) / 255
        return self.task.probabilities(self.net((shown - self.mean) / self.std))

    def pixels(self, images: UInt8[Tensor, "N height width 3"]) -> Float[Tensor, "N C H W"]:
        """The images as the network sees them, before normalisation: whole numbers from 0 to 255, Pillow's or one beside."""
        pixels = images.permute(0, 3, 1, 2).float()
        if self.channels == 1:
            pixels = _rounded((pixels * self.luma).sum(1, keepdim=True) / 65536)
        return self._fitted(pixels)

    def _fitted(self, pixels: Tensor) -> Tensor:
        """Scaled and cut by one matrix for the columns and one for the rows, as Pillow's bilinear filter does it."""
        rows, columns = pixels.shape[2:]
        height, width = (torch.full((), n, dtype=torch.float32, device=pixels.device) for n in (rows, columns))
        ratio = self.width / self.height
        across = _weights(columns, width, torch.minimum(width, height * ratio), self.width)
        down = _weights(rows, height, torch.minimum(height, width / ratio), self.height)
        return _rounded(down @ _rounded(pixels @ across.T))


def _weights(n: Any, length: Tensor, kept: Tensor, out: int) -> Float[Tensor, "out n"]:
    """What each of `n` pixels in a row adds to each of `out` pixels, which share out the middle `kept` of its length."""
    scale = kept / out
    centre = (length - kept) / 2 + (torch.arange(out, device=length.device) + 0.5) * scale
    distance = (torch.arange(n, device=length.device) + 0.5 - centre[:, None]).abs()
    weights = (1 - distance / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def _rounded(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).floor()
