"""Progressive resizing: the images of a training are smaller in its first steps."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from convscope.base.words import shape_text
from convscope.errors import NetworkError, SettingError
from convscope.nets import outputs_of
from convscope.runs import Recipe

_GRAIN_PX, _SMALLER_SIZES = 4, 4  # each size is planned for anew by the libraries of convolutions, so there are few

_CURE = "take a larger start_px, or a network that pools its last maps globally"


def sizes(recipe: Recipe, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The sizes (height, width) of the training images in the order of a training; the last is the full one.

    Args:
        recipe: see convscope.runs.Resize.
        shape: full size.
    """
    if recipe.resize is None:
        return [shape]
    short, start = min(shape), recipe.resize.start_px
    growth = _GRAIN_PX * math.ceil((short - start) / (_GRAIN_PX * _SMALLER_SIZES))
    return [*(tuple(round(side * px / short) for side in shape) for px in range(start, short, growth)), shape]


def resized(images: Float[Tensor, "N ..."], recipe: Recipe, step: int, steps_per_epoch: int) -> Float[Tensor, "N ..."]:
    """The images in the size of a step, which follows from its number alone.

    Args:
        images: (N, C, H, W) in full size; without resizing, anything.
        recipe: see convscope.runs.Resize.
        step: counted from 0 over the whole training.
        steps_per_epoch: length of an epoch.
    """
    if recipe.resize is None:
        return images
    course = sizes(recipe, tuple(images.shape[2:]))
    smaller = len(course) - 1
    place = int(smaller * step / (recipe.resize.until * recipe.epochs * steps_per_epoch))
    if place >= smaller:
        return images
    return interpolate(images, size=course[place], mode="bilinear", antialias=True)


def check_sizes(net: nn.Module, recipe: Recipe, input_shape: tuple[int, int, int]) -> None:
    """Refuses a network that cannot take each size that the training images will have, by passes of two blank images.

    Raises:
        SettingError: the first size is not below the full one.
        NetworkError: the network fails on a size, or gives another number of outputs.
    """
    if recipe.resize is None:
        return
    channels, *shape = input_shape
    if recipe.resize.start_px >= min(shape):
        raise SettingError(
            f"recipe.resize.start_px: {recipe.resize.start_px} px; expected less than the {min(shape)} px of the images"
        )
    like = next(net.parameters())
    shapes = {}
    for size in sizes(recipe, tuple(shape)):
        try:
            shapes[size] = tuple(outputs_of(net, like.new_zeros(2, channels, *size)).shape)
        except NetworkError as error:
            raise NetworkError(f"recipe.resize: {error}; {_CURE}") from None
    if len(set(shapes.values())) > 1:
        results = ", ".join(f"{output_shape} for {shape_text(size)}" for size, output_shape in shapes.items())
        raise NetworkError(f"recipe.resize: two images give {results} px; {_CURE}")
