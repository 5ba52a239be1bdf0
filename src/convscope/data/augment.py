"""Random distortions of a whole batch, as tensors on the batch's device.

All random numbers of a step are drawn on the CPU by generators seeded with the step's key, twelve for each
image whether used or not, and apart from them those of a policy: the same key gives the same distortions on
every device, and switching one on changes no other. Distortions follow each other in the order of the fields of
`Augmentation`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from pydantic import ConfigDict, Field
from torch import Tensor

from convscope.base.settings import Settings
from convscope.data import operations as op
from convscope.data.policy import apply_policy
from convscope.data.seeds import generator
from convscope.errors import SettingError

# new ones come last, so that those before them stay the same
_DRAWS = (
    *("row", "column", "flip", "angle", "brightness", "contrast", "saturation", "cut_row", "cut_column"),
    *("shear_x", "shear_y", "hue"),
)


class Augmentation(Settings):
    """Which distortions the training images get; each is off at its default.

    The factors f of brightness, contrast and saturation are drawn for each image, evenly, and never below 0;
    values are clamped to [0, 1] after each of the three. Luma is 0.299 R + 0.587 G + 0.114 B.

    Args:
        crop: shift by up to so many pixels up, down, left and right: the same as a random crop after padding
            by so much.
        padding: what comes in from outside. "zero" is black; "reflect" mirrors the image at its edge, about
            the middle of the outermost pixels for a shift, about their outer side for a rotation.
        flip: mirror left and right. "random": each image with probability ½ at each step. "alternate": a
            random half of the images in the first epoch, the other half in the second, and so on, so that in
            two epochs each is seen both ways (Jordan 2024, arXiv 2404.00498). Where images are drawn with
            replacement (`batches` with `balance`), a random half of the draws.
        rotation: turn about the centre by up to so many degrees either way, bilinear.
        shear: move each pixel along a row by up to so much of its distance from the middle row, either way, and along
            its column likewise, bilinear.
        brightness: multiply by a factor from 1 − b to 1 + b: `f·x`.
        contrast: the same with the distance to the mean luma m of the image: `f·x + (1 − f)·m`.
        saturation: the same with the distance to each pixel's luma g: `f·x + (1 − f)·g`; nothing for grey
            images.
        hue: turn the hue by up to so much of the colour circle either way; nothing for grey images.
        policy: operations drawn anew for each image: identity, shear and translation along either axis, rotation,
            brightness, colour (saturation), contrast, sharpness, posterize, solarize, autocontrast, equalize, each
            equally likely. "trivial": one of them, with one of 31 strengths drawn evenly, in wide ranges: slope
            0.99, 32 pixels, 135°, factors 0.01 to 1.99, 8 to 2 bits (TrivialAugment, Müller & Hutter 2021, arXiv
            2103.10158). "rand": `rand_ops` of them, one after the other, all with `rand_strength`: up to slope
            0.3, 150/331 of the side, 30°, factors 0.1 to 1.9, 8 to 4 bits (RandAugment, Cubuk et al. 2020, arXiv
            1909.13719). The sign is drawn where there is one.
        rand_ops: N of RandAugment.
        rand_strength: share of the full range, in [0, 1]: M / 30 of RandAugment, whose M counts to 30.
        cutout: side in pixels of a square painted in the mean colour of its image, about any pixel; what
            sticks out over the edge is lost (DeVries & Taylor 2017, arXiv 1708.04552).

    Example:
        >>> Augmentation(crop=4, flip="random").padding
        'zero'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop: int = Field(default=0, ge=0)
    padding: Literal["zero", "reflect"] = "zero"
    flip: Literal["none", "random", "alternate"] = "none"
    rotation: float = Field(default=0.0, ge=0, le=180)
    shear: float = Field(default=0.0, ge=0, le=1)
    brightness: float = Field(default=0.0, ge=0)
    contrast: float = Field(default=0.0, ge=0)
    saturation: float = Field(default=0.0, ge=0)
    hue: float = Field(default=0.0, ge=0, le=0.5)
    policy: Literal["none", "trivial", "rand"] = "none"
    rand_ops: int = Field(default=2, ge=1, le=14)
    rand_strength: float = Field(default=0.3, ge=0, le=1)
    cutout: int = Field(default=0, ge=0)

    @property
    def is_off(self) -> bool:
        """Whether all images stay as they are."""
        settings = {name: getattr(self, name) for name in ("padding", "rand_ops", "rand_strength")}
        return self == Augmentation(**settings)


def augment(
    images: op.Images | UInt8[Tensor, "N C H W"],
    augmentation: Augmentation,
    key: tuple[int, ...],
    index: Int[Tensor, " N"] | None = None,
) -> op.Images:
    """The distorted images, floats in [0, 1], before normalization; the given ones are untouched.

    Args:
        images: floats in [0, 1], or uint8 from 0 to 255, which is faster.
        augmentation: which distortions.
        key: (seed, epoch, step), each from 0 up; decides all that is random.
        index: the position of each image in its set, by which flip "alternate" knows it again in the next
            epoch; None takes the position in the batch.

    Raises:
        SettingError: padding "reflect" with a crop as large as the image: there is nothing left to mirror.

    Example:
        >>> augment(torch.rand(8, 3, 32, 32), Augmentation(crop=4, flip="random"), key=(0, 0, 0)).shape
        torch.Size([8, 3, 32, 32])
    """
    height, width = images.shape[2:]
    if augmentation.padding == "reflect" and augmentation.crop >= min(height, width):
        raise SettingError(
            f"crop: {augmentation.crop} px with padding reflect needs larger images than {height}×{width}"
        )
    drawn = torch.from_numpy(generator("augment", *key).random((len(_DRAWS), len(images)), dtype="float32"))
    draws = dict(zip(_DRAWS, drawn.to(images.device, non_blocking=True), strict=True))
    images = _shift_and_flip(images, augmentation, draws, _flipped(augmentation, draws, key, index))
    images = images.float().div_(255) if images.dtype == torch.uint8 else images.clone()
    if augmentation.rotation:
        images = op.rotate(images, (2 * draws["angle"] - 1) * augmentation.rotation, augmentation.padding)
    if augmentation.shear:
        across, down = ((2 * draws[name] - 1) * augmentation.shear for name in ("shear_x", "shear_y"))
        images = op.shear(images, across, down, augmentation.padding)
    images = _jitter(images, augmentation, draws)
    if augmentation.policy != "none":
        is_rand = augmentation.policy == "rand"
        n_ops, strength = (augmentation.rand_ops, augmentation.rand_strength) if is_rand else (1, None)
        images = apply_policy(images, augmentation.policy, n_ops, strength, augmentation.padding, key)
    return _cut_out(images, augmentation.cutout, draws) if augmentation.cutout else images


def _flipped(
    augmentation: Augmentation, draws: dict[str, Tensor], key: tuple[int, ...], index: Tensor | None
) -> Tensor:
    draw = draws["flip"]
    if augmentation.flip != "alternate":
        return draw < (0.5 if augmentation.flip == "random" else 0)
    seed, epoch = (*key, 0)[:2]
    positions = torch.arange(len(draw)) if index is None else index
    # 0 or 1 for each image, fixed by its position and the seed (mixed as in SplitMix64, wrapping)
    mixed = positions.to(draw.device).long() + int(generator("alternate", seed).integers(2**62))
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return ((mixed >> 31 & 1) + epoch) % 2 == 1


def _shift_and_flip(
    images: Shaped[Tensor, "N C H W"], augmentation: Augmentation, draws: dict[str, Tensor], flipped: Tensor
) -> Shaped[Tensor, "N C H W"]:
    """One gather: for each pixel of the result, where it comes from."""
    if not augmentation.crop and augmentation.flip == "none":
        return images
    n, channels, height, width = images.shape
    rows, row_inside = _origins(height, draws["row"], augmentation)
    columns, column_inside = _origins(width, draws["column"], augmentation)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    column_inside = torch.where(flipped[:, None], column_inside.flip(1), column_inside)
    origin = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, height * width)
    moved = images.reshape(n, channels, -1).gather(2, origin.expand(n, channels, -1)).view_as(images)
    if augmentation.crop and augmentation.padding == "zero":
        moved.mul_((row_inside[:, None, :, None] & column_inside[:, None, None, :]).to(moved.dtype))
    return moved


def _origins(size: int, draw: op.Values, augmentation: Augmentation) -> tuple[Int[Tensor, "N S"], Tensor]:
    """For each place along one axis the place it comes from, and whether that lies inside the image."""
    shift = (draw * (2 * augmentation.crop + 1)).long().clamp_(max=2 * augmentation.crop) - augmentation.crop
    place = torch.arange(size, device=draw.device) + shift[:, None]
    inside = (place >= 0) & (place < size)
    if augmentation.padding == "zero":
        return place.clamp(0, size - 1), inside
    mirrored = place.abs()
    return (size - 1) - ((size - 1) - mirrored).abs(), inside


def _jitter(images: op.Images, augmentation: Augmentation, draws: dict[str, Tensor]) -> op.Images:
    for name, change in (("brightness", op.brightness), ("contrast", op.contrast), ("saturation", op.saturation)):
        if share := getattr(augmentation, name):
            low = max(0.0, 1 - share)
            images = change(images, low + draws[name] * (1 + share - low))
    return op.turn_hue(images, (2 * draws["hue"] - 1) * augmentation.hue) if augmentation.hue else images


def _cut_out(images: op.Images, side: int, draws: dict[str, Tensor]) -> op.Images:
    height, width = images.shape[2:]
    rows = _within(height, side, draws["cut_row"])[:, None, :, None]
    columns = _within(width, side, draws["cut_column"])[:, None, None, :]
    return torch.where(rows & columns, images.mean(dim=(2, 3), keepdim=True), images)


def _within(size: int, side: int, draw: op.Values) -> Tensor:
    """Which places along one axis the square covers; its centre is any pixel."""
    start = (draw * size).long().clamp_(max=size - 1) - side // 2
    distance = torch.arange(size, device=draw.device) - start[:, None]
    return (distance >= 0) & (distance < side)


Targets = dict[str, Tensor]


def mix(
    images: Float[Tensor, "N ..."], targets: Targets, mixup: float, cutmix: float, key: tuple[int, ...]
) -> tuple[Float[Tensor, "N ..."], list[tuple[float, Targets]]]:
    """The mixed images, and the shares of the targets in them, which sum to 1, the largest first.

    λ is drawn for the batch from the Beta distribution (α, α), and each image mixed with that at its place in a permutation
    of the batch. Mixup: λ·a + (1 − λ)·b (Zhang et al. 2018, arXiv 1710.09412). CutMix: in a, a rectangle of b in
    the image's proportions, of 1 − λ of its area, about any pixel; what sticks out over the edge is lost, and λ is then the
    share of a that is left (Yun et al. 2019, arXiv 1905.04899).

    Args:
        images: (N, C, H, W), before or after normalization; without mixing, anything.
        targets: of each image, by name.
        mixup, cutmix: α of each; 0 for none. With both, one of the two is drawn, evenly.
        key: decides all that is random.
    """
    if not (mixup or cutmix):
        return images, [(1.0, targets)]
    draws = generator("mix", *key)
    cuts = bool(cutmix) and (not mixup or draws.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(draws.beta(alpha, alpha))
    partner = torch.from_numpy(draws.permutation(len(images))).to(images.device)
    others = images[partner]
    if cuts:
        height, width = images.shape[2:]
        rows, columns = (_cut(side, share, draws.random()) for side in (height, width))
        images = images.clone()
        images[:, :, rows, columns] = others[:, :, rows, columns]
        share = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    else:
        images = others.lerp(images, share)
    shares = [(share, targets), (1 - share, {name: values[partner] for name, values in targets.items()})]
    return images, sorted(shares, key=lambda pair: -pair[0])


def _cut(side: int, share: float, draw: float) -> slice:
    """Which places along one axis the rectangle covers; its centre is any pixel."""
    length = int(side * math.sqrt(1 - share))
    start = int(draw * side) - length // 2
    return slice(max(0, start), min(side, start + length))
