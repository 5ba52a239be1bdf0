"""What a part of an image is covered with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.data import operations
from convscope.errors import RequestError

Fill = str | float | int | Tensor
"""What covers a part of an image; see `fill_images`."""


def fill_images(images: Float[Tensor, "N C H W"], fill: Fill) -> Float[Tensor, "F C H W"]:
    """What to cover images with, as images of their own; only what lies under the square is used.

    Args:
        images: in [0, 1], before normalisation.
        fill: "grey" for 0.5 in all channels; "mean" for each image's own colour, channel by channel; "zero" for
            black; "blur" for the image under a Gaussian whose deviation is a 16th of its shorter side; a number
            for that value in all channels; or a tensor: a colour (C,) or an image (C, H, W) for all, or one for
            each (N, C, H, W). Numbers and tensors in [0, 1].

    Returns:
        One image for all, or one for each.

    Raises:
        RequestError: the fill is none of these.

    Example:
        >>> fill_images(torch.rand(2, 3, 32, 32), "mean").shape
        torch.Size([2, 3, 32, 32])
    """
    if isinstance(fill, Tensor):
        return _image_like(fill, images)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if fill == "blur":
        return operations.blur(images, min(images.shape[2:]) / 16)
    value = {"grey": 0.5, "zero": 0.0}.get(fill, fill) if isinstance(fill, str) else fill
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RequestError(
            f"fill: {fill!r}; expected 'grey', 'mean', 'zero', 'blur', a number in [0, 1], or a tensor of pixels"
        )
    return torch.full_like(images[:1], value)


def _image_like(fill: Tensor, images: Tensor) -> Tensor:
    """A colour or images as images; those of `images` tell the shape."""
    n, channels, height, width = images.shape
    if fill.is_meta or fill.layout != torch.strided:
        raise RequestError(
            "fill: a sparse tensor, or one of the meta device; expected a dense tensor of pixels in [0, 1]"
        )
    if fill.shape not in ((channels,), (channels, height, width), (n, channels, height, width)):
        raise RequestError(
            f"fill: a tensor of shape {tuple(fill.shape)} for images {tuple(images.shape)}; expected a colour (C,), an "
            "image (C, H, W), or one for each (N, C, H, W)"
        )
    as_images = fill.view(1, -1, 1, 1) if fill.ndim == 1 else fill.reshape(-1, channels, height, width)
    return as_images.to(images).expand(-1, -1, height, width)
