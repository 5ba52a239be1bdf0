"""Operations on batches against Pillow's on each image by itself, and colorsys for the hue."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from convscope.data import operations as op

HEIGHT, WIDTH = 39, 43
STEP = 1 / 255


def sample(n: int = 8, channels: int = 3) -> torch.Tensor:
    """8-bit values with the gradients and the extremes of photographs: some images dark, some pale."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (n, channels, HEIGHT, WIDTH))
    ramp = np.linspace(0, 255, WIDTH)[None, None, None]
    scale, base = generator.uniform(0.3, 1, (n, 1, 1, 1)), generator.uniform(0, 80, (n, 1, 1, 1))
    pixels = np.clip(base + scale * (0.5 * noise + 0.5 * ramp), 0, 255).astype(np.uint8)
    return torch.from_numpy(pixels).float() / 255


def as_pillow(image: torch.Tensor) -> Image.Image:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels)


def from_pillow(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image)).float() / 255
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def values(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 8)


def solarized(image: Image.Image, threshold: float) -> Image.Image:
    return ImageOps.solarize(image, round(threshold * 255))


CASES = [
    # Pillow's blend rounds down; its luma is rounded to 8 bits, and so is the mean of contrast: 1 step, times up to |1 − f|
    (op.brightness, values(0.01, 1.99), lambda i, f: ImageEnhance.Brightness(i).enhance(f), 1.01),
    (op.contrast, values(0.01, 1.99), lambda i, f: ImageEnhance.Contrast(i).enhance(f), 2.01),
    (op.saturation, values(0.01, 1.99), lambda i, f: ImageEnhance.Color(i).enhance(f), 2.01),
    (op.sharpness, values(0.01, 1.99), lambda i, f: ImageEnhance.Sharpness(i).enhance(f), 2.01),
    # the same values, as floats
    (op.posterize, values(1, 8), lambda i, bits: ImageOps.posterize(i, int(bits)), 0.01),
    (op.solarize, values(0, 255).round() / 255, solarized, 0.01),
    (lambda i, _: op.equalize(i), values(0, 0), lambda i, _: ImageOps.equalize(i), 0.01),
    (lambda i, _: op.autocontrast(i), values(0, 0), lambda i, _: ImageOps.autocontrast(i), 1.01),  # rounded down
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("ours", "given", "pillows", "steps"), CASES)
def test_colours_are_pillows(
    ours: Callable[..., torch.Tensor],
    given: torch.Tensor,
    pillows: Callable[..., Image.Image],
    steps: float,
    channels: int,
) -> None:
    images = sample(channels=channels)
    found = ours(images.clone(), given)
    expected = torch.stack([from_pillow(pillows(as_pillow(i), float(v))) for i, v in zip(images, given, strict=True)])
    assert (found - expected).abs().max() <= steps * STEP
    grey_colour = channels == 1 and ours is op.saturation
    assert grey_colour or not torch.allclose(found, images, atol=3 * STEP)


@pytest.mark.parametrize("value", [0, 17, 255])
def test_images_of_one_value_stay(value: int) -> None:
    images = torch.full((2, 3, 20, 20), value / 255)
    assert torch.equal(op.equalize(images), images)
    assert torch.equal(op.autocontrast(images), images)


def test_equalize_of_few_pixels_does_nothing_as_pillows() -> None:
    images = sample()[:, :, :9, :9]
    assert torch.equal(op.equalize(images), images)
    assert torch.equal(from_pillow(ImageOps.equalize(as_pillow(images[0]))), images[0])


@pytest.mark.parametrize(("height", "width"), [(1, 5), (2, 2), (5, 1)])
def test_sharpness_of_images_that_are_all_edge_does_nothing(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    torch.testing.assert_close(op.sharpness(images.clone(), torch.tensor([0.1, 1.9])), images)


def test_hue_is_colorsys() -> None:
    images, turns = sample()[:, :, :5, :5], values(-0.5, 0.5)
    images[0, :, 0, 0] = 0.5  # grey has no hue
    found = op.turn_hue(images, turns).permute(0, 2, 3, 1).reshape(-1, 3)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).double().tolist()
    expected = []
    for rgb, turn in zip(pixels, turns.repeat_interleave(25).tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
        expected.append(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)  # float32 against float64
    grey = sample(channels=1)
    assert torch.equal(op.turn_hue(grey, turns), grey)


def about_the_centre(x: tuple[float, float], y: tuple[float, float]) -> tuple[float, ...]:
    """Pillow's six numbers, which count from the upper left corner."""
    middle = np.array([WIDTH, HEIGHT]) / 2
    offset = middle - np.array([x, y]) @ middle
    return (*x, offset[0], *y, offset[1])


def turned(degrees: float) -> tuple[float, ...]:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return about_the_centre((cosine, -sine), (sine, cosine))


@pytest.mark.parametrize(
    ("ours", "given", "matrix"),
    [
        (op.shear_x, values(-0.99, 0.99), lambda v: (1, v, 0, 0, 1, 0)),
        (op.shear_y, values(-0.99, 0.99), lambda v: (1, 0, 0, v, 1, 0)),
        (op.translate_x, values(-15.7, 15.7), lambda v: (1, 0, int(v), 0, 1, 0)),
        (op.translate_y, values(-15.7, 15.7), lambda v: (1, 0, 0, 0, 1, int(v))),
        (op.rotate, values(-135, 135), turned),
        (lambda i, v, p: op.shear(i, v, -v / 2, p), values(-0.9, 0.9), lambda v: about_the_centre((1, v), (-v / 2, 1))),
    ],
)
def test_geometry_is_pillows(
    ours: Callable[..., torch.Tensor], given: torch.Tensor, matrix: Callable[[float], tuple[float, ...]]
) -> None:
    """Where all four pixels are inside; where none is, black. (Between, Pillow repeats the edge, which we blend with black.)"""
    images = sample(channels=1)
    found = ours(images.clone(), given, "zero")
    n_inside = n_outside = 0
    for image, value, result in zip(images, given.tolist(), found, strict=True):
        numbers = matrix(value)
        pillows = Image.fromarray(image[0].numpy()).transform(
            (WIDTH, HEIGHT), Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR
        )
        x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
        at_x = numbers[0] * x + numbers[1] * y + numbers[2]
        at_y = numbers[3] * x + numbers[4] * y + numbers[5]
        room = np.minimum.reduce([at_x, WIDTH - at_x, at_y, HEIGHT - at_y])
        inside, outside = room >= 0.501, room <= -0.501
        assert np.allclose(result[0].numpy()[inside], np.array(pillows)[inside], atol=1e-4)  # float32 positions
        assert np.allclose(result[0].numpy()[outside], 0, atol=1e-6)
        n_inside, n_outside = n_inside + inside.sum(), n_outside + outside.sum()
    assert n_inside > 0.3 * found.numel()
    assert n_outside > 20


def test_translation_mirrors_where_it_is_told_to() -> None:
    images = sample(1)
    found = op.translate_x(images, torch.tensor([5.9]), "reflect")
    expected = torch.cat([images[..., 5:], images[..., -5:].flip(3)], 3)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
