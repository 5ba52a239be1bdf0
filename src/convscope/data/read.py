"""Images as people have them (tensors, arrays, PIL images, files), as a network takes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from convscope.base.words import shape_text
from convscope.data.images import UnreadableError, of_depth, pixels_of
from convscope.data.sets import in_unit_range
from convscope.errors import DataError, RequestError

ImageFile = str | os.PathLike[str] | Image.Image
ImageLike = Tensor | np.ndarray | ImageFile
ImagesLike = ImageLike | Sequence[ImageLike]
"""What `as_images` makes a batch of."""

_SLACK = 0.01  # what resizing with a sharp filter may overshoot


def as_images(images: ImagesLike, input_shape: tuple[int, ...], bits: int = 8) -> Float[Tensor, "N C H W"]:
    """A batch of floats in [0, 1], before normalisation, of the given shape.

    Args:
        images: one of these, or a list of them:
            a tensor (C, H, W) or (N, C, H, W), floats in [0, 1];
            a NumPy array (H, W, C), (N, H, W, C), or (H, W) where the network takes grey: uint8, uint16, or floats in [0, 1];
            a PIL image, or the path of an image file: see `read_image`.
            Files and PIL images are scaled and change their channels as the shape asks for; tensors and arrays are
            pixels that are taken as they are, and must have it.
        input_shape: (C, H, W), as a network takes it.
        bits: to which files, PIL images and whole numbers are brought, as `DataSpec.bits`.

    Raises:
        RequestError: pixels have another shape or type, or are not in [0, 1]; or there are no images.
        DataError: a file is missing, or is no image.

    Example:
        >>> as_images([np.zeros((32, 32, 3), "uint8"), torch.ones(3, 32, 32)], (3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """
    if isinstance(images, Tensor):
        return _of_tensor(images, input_shape)
    if isinstance(images, np.ndarray):
        return _of_tensor(_of_array(images, input_shape, bits), input_shape)
    if isinstance(images, str | os.PathLike | Image.Image):
        return read_image(images, input_shape, bits)[None]
    if not isinstance(images, Sequence) or isinstance(images, bytes):
        kind = type(images).__name__
        raise RequestError(f"images: a {kind} is no image; give a tensor, an array, a PIL image, a path, or a list")
    if not images:
        raise RequestError("images: the list is empty; give one at least")
    parts = [as_images(one, input_shape, bits) for one in images]
    return torch.cat([part.to(parts[0].device) for part in parts])


def read_image(image: ImageFile | bytes, input_shape: tuple[int, ...], bits: int = 8) -> Float[Tensor, "C H W"]:
    """An image file, or a PIL image, as a float tensor in [0, 1] of the given shape.

    As in `load_data` the camera's orientation (Exif) is applied, the image is scaled until it covers the shape and the
    centre cut out, and a grey image becomes colour or a colour one grey where the shape asks for it.

    Args:
        image: the path of a PNG, JPEG or whatever Pillow reads; what such a file holds; or an image that Pillow has opened or
            made.
        input_shape: (C, H, W), as a network takes it; with C other than 1 or 3 the file is a TIFF of so many bands.
        bits: as `DataSpec.bits`.
    Raises:
        DataError: the file is missing, is no image, or cannot be brought to that shape.
    """
    channels, height, width = input_shape
    name = "the bytes"
    if isinstance(image, Image.Image):
        name = getattr(image, "filename", "") or "a PIL image"
    elif not isinstance(image, bytes):
        image = Path(image)
        name = str(image)
        if not os.path.isfile(image):
            raise DataError(f"{name}: there is no such file; give an image file")
    try:
        pixels = pixels_of(image, channels, (height, width), bits)
    except UnreadableError as error:
        raise DataError(f"{name}: {error}; give another image") from None
    return in_unit_range(torch.tensor(pixels))


def _of_tensor(images: Tensor, input_shape: tuple[int, ...]) -> Float[Tensor, "N C H W"]:
    if images.is_meta or images.layout != torch.strided:
        kind = "on the meta device, without values" if images.is_meta else f"a {images.layout} tensor"
        raise RequestError(f"images are {kind}; expected a dense tensor of pixels in [0, 1]")
    batch = images.unsqueeze(0) if images.ndim == 3 else images
    if batch.ndim != 4 or tuple(batch.shape[1:]) != input_shape or not len(batch):
        raise _wrong_shape(images.shape, input_shape)
    if not images.is_floating_point():
        raise RequestError(f"images are {images.dtype}; expected floats in [0, 1]: divide whole numbers by 255")
    low, high = (float(v) for v in images.aminmax())
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # also when they are NaN
        raise RequestError(
            f"pixels run from {low:.4g} to {high:.4g}; expected [0, 1] before normalisation: "
            "divide by 255, or leave out your own normalisation"
        )
    return batch


def _of_array(images: np.ndarray, input_shape: tuple[int, ...], bits: int) -> Float[Tensor, "N C H W"]:
    """A copy of the pixels, channels first; whole ones divided by the largest value."""
    channels, height, width = input_shape
    batch = images[..., None] if images.ndim == 2 else images
    batch = batch[None] if batch.ndim == 3 else batch
    if batch.shape[1:] != (height, width, channels) or not len(batch):
        raise _wrong_shape(images.shape, (height, width, channels))
    batch, scalar = batch.transpose(0, 3, 1, 2), images.dtype.type  # which a foreign byte order leaves
    if images.dtype.kind == "f":
        return torch.from_numpy(np.array(batch, np.float64 if scalar == np.float64 else np.float32, order="C"))
    if scalar not in (np.uint8, np.uint16):
        raise RequestError(f"images are {images.dtype}; expected uint8, uint16, or floats in [0, 1]")
    return in_unit_range(torch.from_numpy(of_depth(np.array(batch, scalar, order="C"), bits)))


def _wrong_shape(given: Sequence[int], wanted: Sequence[int]) -> RequestError:
    got, want = (shape_text(shape) for shape in (given, wanted))
    return RequestError(f"images have the shape {got}; this network takes {want} or N×{want}: resize them first")
