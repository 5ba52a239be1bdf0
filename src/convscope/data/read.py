"""One image from a file, as a network takes it."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from convscope.data.images import UnreadableError, pixels_of
from convscope.errors import DataError


def read_image(path: str | Path, input_shape: tuple[int, int, int]) -> Float[Tensor, "C H W"]:
    """An image file as a float tensor in [0, 1] of the given shape.

    As in `load_data` the shorter side is scaled and the centre cut out, and a grey image becomes colour or a
    colour one grey where the shape asks for it.

    Args:
        path: PNG, JPEG or whatever Pillow reads.
        input_shape: (C, H, W) with C 1 or 3 and H = W, as a network takes it.
    Raises:
        DataError: the file is missing, is no image, or cannot be brought to that shape.
    """
    channels, height, width = input_shape
    if channels not in (1, 3) or height != width:
        shape = "×".join(map(str, input_shape))
        raise DataError(
            f"{path}: files are read as square grey or colour images; the network takes {shape}: use an index"
        )
    if not Path(path).is_file():
        raise DataError(f"{path}: there is no such file; give an image file, or the index of a test image")
    try:
        pixels = pixels_of(Path(path), channels, height)
    except UnreadableError as error:
        raise DataError(f"{path}: {error}; give another image") from None
    return torch.tensor(pixels).float().div_(255)
