"""augment against loops over single images and pixels, which share only its random numbers."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from convscope.data import Augmentation, augment, operations
from convscope.data.seeds import generator
from convscope.errors import SettingError

KEY = (1, 2, 3)


def sample(n: int = 16, channels: int = 3, height: int = 9, width: int = 7) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def draws(n: int) -> np.ndarray:
    """The twelve numbers of each image: row, column, flip, angle, three factors, cut row, cut column, two shears, hue."""
    return generator("augment", *KEY).random((12, n), dtype="float32").T


def pixel(image: np.ndarray, row: int, column: int, padding: str) -> np.ndarray:
    height, width = image.shape[1:]
    if padding == "reflect":
        row = -row if row < 0 else 2 * (height - 1) - row if row >= height else row
        column = -column if column < 0 else 2 * (width - 1) - column if column >= width else column
    inside = 0 <= row < height and 0 <= column < width
    return image[:, row, column] if inside else np.zeros(len(image), image.dtype)


@pytest.mark.parametrize("padding", ["zero", "reflect"])
@pytest.mark.parametrize("dtype", ["uint8", "float"])
def test_crop_and_flip(padding: str, dtype: str) -> None:
    images = sample(64)
    given_images = (images * 255).to(torch.uint8) if dtype == "uint8" else images
    plain = (given_images.float() / 255 if dtype == "uint8" else images).numpy()
    result = augment(given_images, Augmentation(crop=3, padding=padding, flip="random"), KEY).numpy()
    seen = set()
    for image, drawn, found in zip(plain, draws(len(plain)), result, strict=True):
        down, right = int(drawn[0] * 7) - 3, int(drawn[1] * 7) - 3
        seen |= {("down", down), ("right", right), ("flip", drawn[2] < 0.5)}
        for row in range(9):
            for column in range(7):
                from_column = 6 - column if drawn[2] < 0.5 else column
                assert np.array_equal(found[:, row, column], pixel(image, row + down, from_column + right, padding))
    assert {("flip", True), ("flip", False), ("down", 3), ("down", -3)} <= seen


def test_crop_is_a_window_of_the_padded_image() -> None:
    images = sample(40)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    found = augment(images, Augmentation(crop=2), KEY)
    for i in range(40):
        windows = [padded[i, :, r : r + 9, c : c + 7] for r in range(5) for c in range(5)]
        assert any(torch.equal(found[i], window) for window in windows)


def test_alternate_shows_each_image_both_ways() -> None:
    images, index = sample(64), torch.randperm(64, generator=torch.Generator().manual_seed(1))
    first = augment(images, Augmentation(flip="alternate"), (5, 0, 0), torch.arange(64))
    second = augment(images[index], Augmentation(flip="alternate"), (5, 1, 7), index)
    third = augment(images, Augmentation(flip="alternate"), (5, 2, 0), torch.arange(64))
    assert torch.equal(second, first.flip(3)[index])
    assert torch.equal(third, first)
    n_flipped = sum(not torch.equal(a, b) for a, b in zip(first, images, strict=True))
    assert 16 < n_flipped < 48


def factor(draw: float, share: float) -> float:
    low = max(0.0, 1 - share)
    return low + draw * (1 + share - low)


def test_colour_jitter_image_by_image() -> None:
    images = sample()
    result = augment(images, Augmentation(brightness=0.4, contrast=0.6, saturation=1.5), KEY).numpy()
    for image, drawn, found in zip(images.numpy().astype(np.float64), draws(len(images)), result, strict=True):
        bright = np.clip(image * factor(drawn[4], 0.4), 0, 1)
        mean = np.mean([0.299 * r + 0.587 * g + 0.114 * b for r, g, b in bright.reshape(3, -1).T])
        f = factor(drawn[5], 0.6)
        contrast = np.clip(f * bright + (1 - f) * mean, 0, 1)
        f = factor(drawn[6], 1.5)
        grey = 0.299 * contrast[0] + 0.587 * contrast[1] + 0.114 * contrast[2]
        assert np.allclose(found, np.clip(f * contrast + (1 - f) * grey, 0, 1), atol=2e-6)  # float32 against float64


def test_saturation_keeps_hue_and_leaves_grey_images() -> None:
    images = sample() * 0.2 + 0.4  # far from the bounds, so that nothing is clamped
    found = augment(images, Augmentation(saturation=0.5), KEY)
    before = [colorsys.rgb_to_hsv(*rgb)[0] for rgb in images.permute(0, 2, 3, 1).reshape(-1, 3).tolist()]
    after = [colorsys.rgb_to_hsv(*rgb)[0] for rgb in found.permute(0, 2, 3, 1).reshape(-1, 3).tolist()]
    assert np.allclose(before, after, atol=1e-3)
    grey = sample(channels=1)
    assert torch.equal(augment(grey, Augmentation(saturation=0.5), KEY), grey)


@pytest.mark.parametrize(("height", "width"), [(9, 9), (9, 7)])
def test_rotation_pixel_by_pixel(height: int, width: int) -> None:
    images = sample(6, 1, height, width)
    result = augment(images, Augmentation(rotation=90), KEY).numpy()
    for image, drawn, found in zip(images.numpy(), draws(6), result, strict=True):
        angle = math.radians((2 * float(drawn[3]) - 1) * 90)
        for row in range(height):
            for column in range(width):
                y, x = row - (height - 1) / 2, column - (width - 1) / 2
                at_x = math.cos(angle) * x - math.sin(angle) * y + (width - 1) / 2
                at_y = math.sin(angle) * x + math.cos(angle) * y + (height - 1) / 2
                top, left = math.floor(at_y), math.floor(at_x)
                expected = sum(
                    (1 - abs(at_y - r)) * (1 - abs(at_x - c)) * pixel(image, r, c, "zero")
                    for r in (top, top + 1)
                    for c in (left, left + 1)
                )
                assert found[:, row, column] == pytest.approx(expected, abs=2e-5)


def test_shear_and_hue_are_as_drawn() -> None:
    """The operations themselves are tested against Pillow and colorsys."""
    images, drawn = sample(), torch.from_numpy(draws(16)).T
    across, down, turns = (2 * drawn[9] - 1) * 0.3, (2 * drawn[10] - 1) * 0.3, (2 * drawn[11] - 1) * 0.2
    expected = operations.turn_hue(operations.shear(images, across, down, "reflect"), turns)
    found = augment(images, Augmentation(shear=0.3, hue=0.2, padding="reflect"), KEY)
    torch.testing.assert_close(found, expected)
    assert (found - images).abs().max() > 0.1


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout(side: int) -> None:
    images = sample()
    result = augment(images, Augmentation(cutout=side), KEY)
    for image, drawn, found in zip(images, draws(len(images)), result, strict=True):
        top, left = int(drawn[7] * 9) - side // 2, int(drawn[8] * 7) - side // 2
        expected = image.clone()
        expected[:, max(0, top) : top + side, max(0, left) : left + side] = image.mean((1, 2))[:, None, None]
        assert torch.allclose(found, expected)


@settings(max_examples=30, deadline=None)
@given(
    crop=st.integers(0, 6),
    padding=st.sampled_from(["zero", "reflect"]),
    flip=st.sampled_from(["none", "random", "alternate"]),
    shares=st.tuples(*[st.floats(0, 2)] * 3),
    rotation=st.floats(0, 180),
    more=st.fixed_dictionaries(
        {
            "shear": st.floats(0, 1),
            "hue": st.floats(0, 0.5),
            "policy": st.sampled_from(["none", "trivial", "rand"]),
            "rand_ops": st.integers(1, 4),
            "rand_strength": st.floats(0, 1),
        }
    ),
    cutout=st.integers(0, 20),
    channels=st.sampled_from([1, 3]),
)
def test_whatever_is_on(crop, padding, flip, shares, rotation, more, cutout, channels) -> None:  # type: ignore[no-untyped-def]
    images = sample(4, channels)
    kept, state = images.clone(), torch.get_rng_state()
    chosen = Augmentation(
        crop=crop,
        padding=padding,
        flip=flip,
        brightness=shares[0],
        contrast=shares[1],
        saturation=shares[2],
        rotation=rotation,
        cutout=cutout,
        **more,
    )
    result = augment(images, chosen, KEY)
    assert torch.equal(images, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert result.shape == images.shape
    assert result.isfinite().all()
    assert result.min() >= -1e-6
    assert result.max() <= 1 + 1e-6
    assert torch.equal(result, augment(images, chosen, KEY))


def test_nothing_on_changes_nothing_and_copies() -> None:
    images = sample()
    result = augment(images, Augmentation(), KEY)
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()


def test_keys_decide() -> None:
    images = sample()
    results = [augment(images, Augmentation(crop=3), key) for key in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))]
    assert not any(torch.equal(a, b) for i, a in enumerate(results) for b in results[:i])


def test_one_distortion_more_leaves_the_others() -> None:
    images = sample(channels=1)
    plain = augment(images, Augmentation(crop=3), KEY)
    assert torch.equal(augment(images, Augmentation(crop=3, saturation=0.5), KEY), plain)


def test_bad_settings() -> None:
    with pytest.raises(SettingError, match="crop: 7 px with padding reflect needs larger images than 9×7"):
        augment(sample(), Augmentation(crop=7, padding="reflect"), KEY)
    for wrong in (
        {"crop": -1},
        {"padding": "wrap"},
        {"flip": True},
        {"brightness": -0.1},
        {"hue": 1},
        {"policy": "auto"},
        {"rand_strength": 9},
    ):
        with pytest.raises(SettingError, match=f"Augmentation: {next(iter(wrong))}: "):
            Augmentation(**wrong)
