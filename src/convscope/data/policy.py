"""TrivialAugment and RandAugment: operations drawn for each image from a table.

TrivialAugment (Müller & Hutter 2021, arXiv 2103.10158) with its wide ranges, RandAugment (Cubuk et al. 2020, arXiv 1909.13719)
with the ranges of AutoAugment (Cubuk et al. 2018, arXiv 1805.09501). Otherwise than there, geometry is bilinear, what
comes in from outside follows `padding`, and values are not rounded to 8 bits where the operation does not ask for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from convscope.data import operations as op
from convscope.data.seeds import generator

_STRENGTHS = 31


class Range(NamedTuple):
    """The values of an operation at strength 0 and 1; where it is signed, the difference is negative for half the images."""

    start: float = 0.0
    end: float = 0.0
    signed: bool = False


_OPERATIONS: dict[str, Callable[[op.Images, op.Values, op.Padding], op.Images]] = {
    "identity": lambda images, values, padding: images,
    "shear_x": op.shear_x,
    "shear_y": op.shear_y,
    "translate_x": op.translate_x,
    "translate_y": op.translate_y,
    "rotate": op.rotate,
    "brightness": lambda images, values, padding: op.brightness(images, values),
    "color": lambda images, values, padding: op.saturation(images, values),
    "contrast": lambda images, values, padding: op.contrast(images, values),
    "sharpness": lambda images, values, padding: op.sharpness(images, values),
    "posterize": lambda images, values, padding: op.posterize(images, values),
    "solarize": lambda images, values, padding: op.solarize(images, values),
    "autocontrast": lambda images, values, padding: op.autocontrast(images),
    "equalize": lambda images, values, padding: op.equalize(images),
}


def ranges(policy: Literal["trivial", "rand"], height: int, width: int) -> dict[str, Range]:
    """The table of a policy for images of that size: shear as a slope, translations in pixels, rotation in degrees, factors of
    brightness, colour, contrast and sharpness, bits of posterize, and the threshold of solarize in [0, 1]."""
    if policy == "trivial":
        slope, right, down, degrees, factor, bits = 0.99, 32.0, 32.0, 135.0, 0.99, 2
    else:
        slope, right, down, degrees, factor, bits = 0.3, 150 / 331 * width, 150 / 331 * height, 30.0, 0.9, 4
    return {
        "identity": Range(),
        "shear_x": Range(0, slope, True),
        "shear_y": Range(0, slope, True),
        "translate_x": Range(0, right, True),
        "translate_y": Range(0, down, True),
        "rotate": Range(0, degrees, True),
        **{name: Range(1, 1 + factor, True) for name in ("brightness", "color", "contrast", "sharpness")},
        "posterize": Range(8, bits),
        "solarize": Range(1, 0),
        "autocontrast": Range(),
        "equalize": Range(),
    }


def apply_policy(
    images: op.Images,
    policy: Literal["trivial", "rand"],
    n_ops: int,
    strength: float | None,
    padding: op.Padding,
    key: tuple[int, ...],
) -> op.Images:
    """The images after so many operations each, in place.

    Args:
        images: floats in [0, 1]; changed.
        policy: whose table.
        n_ops: operations that follow each other, each drawn evenly from the table.
        strength: of all operations, in [0, 1]; None draws one of 0, 1/30, …, 1 for each.
        padding: what comes in from outside.
        key: decides all that is random.
    """
    table = ranges(policy, *images.shape[2:])
    # on the CPU each operation's images are known without waiting for the device
    for which, strong, sign in generator("policy", *key).random((n_ops, 3, len(images))):
        chosen = (which * len(table)).astype(int)
        strengths = (
            np.floor(strong * _STRENGTHS) / (_STRENGTHS - 1) if strength is None else np.full_like(strong, strength)
        )
        for place, (name, (start, end, signed)) in enumerate(table.items()):
            rows = np.flatnonzero(chosen == place)
            if not len(rows) or name == "identity":
                continue
            ways = np.where(signed & (sign[rows] < 0.5), -1, 1)
            values = _on(images, (start + ways * strengths[rows] * (end - start)).astype(np.float32))
            index = _on(images, rows)
            images[index] = _OPERATIONS[name](images[index], values, padding)
    return images


def _on(images: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(images.device, non_blocking=True)
