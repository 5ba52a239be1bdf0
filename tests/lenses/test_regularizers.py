from __future__ import annotations

from math import prod

import pytest
import torch
from torch.nn import functional as F

from convscope.lenses.parametrize import Fourier, Parametrization, Pixels
from convscope.lenses.regularizers import L2, Blur, Jitter, Regularizer, TotalVariation

PICTURES = torch.rand(2, 3, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_penalties_by_hand() -> None:
    picture = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    assert TotalVariation(2.0).penalty(picture).item() == pytest.approx(2 * ((0.5 + 0.5) / 2 + (1 + 0) / 2))
    assert L2(2.0).penalty(picture).item() == pytest.approx(2 * (0.25 + 0.25) / 4)
    assert L2(2.0, level=0.0).penalty(picture).item() == pytest.approx(2 * (1 + 0.25 + 0.25) / 4)
    assert TotalVariation(1.0).penalty(torch.rand(2, 1, 1, 1)).tolist() == [0, 0]


def test_noise_costs_two_thirds_of_the_weight() -> None:
    """|a − b| of two uniform numbers is 1/3 in the mean, once down and once across; 10⁵ of them fix it to 0.01."""
    noise = torch.rand(1, 1, 320, 320, generator=seeded())
    assert TotalVariation(3.0).penalty(noise).item() == pytest.approx(2, abs=0.01)


def test_jitter_rolls_all_pictures_alike() -> None:
    moved = [Jitter(2).transform(PICTURES, seeded(seed)) for seed in range(40)]
    shifts = {(down, across): PICTURES.roll((down, across), (2, 3)) for down in range(-2, 3) for across in range(-2, 3)}
    found = [next(shift for shift, rolled in shifts.items() if torch.equal(rolled, one)) for one in moved]
    assert {d for d, _ in found} == {a for _, a in found} == {-2, -1, 0, 1, 2}
    assert torch.equal(Jitter(0).transform(PICTURES, seeded()), PICTURES)


def test_blur_is_a_gaussian_of_the_continued_picture() -> None:
    """Against a plain 2-D convolution; to rounding."""
    places = torch.arange(-4, 5, dtype=torch.float64)  # three deviations of 1.2, rounded up
    bell = torch.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.2**2))
    wide = F.pad(PICTURES, (4, 4, 4, 4), mode="replicate").flatten(0, 1)[:, None]
    expected = F.conv2d(wide, (bell / bell.sum())[None, None]).view_as(PICTURES)
    torch.testing.assert_close(Blur(1.2).transform(PICTURES, seeded()), expected)
    plain = torch.full((1, 3, 5, 5), 0.3)
    torch.testing.assert_close(Blur(2.0).transform(plain, seeded()), plain)


@pytest.mark.parametrize("piece", [Regularizer(), Jitter(1), Blur(1.0), TotalVariation(1.0), L2(1.0)])
def test_each_does_one_of_the_two_and_knows_no_other_picture(piece: Regularizer) -> None:
    shown, costs = piece.transform(PICTURES, seeded(1)), piece.penalty(PICTURES)
    assert torch.equal(shown, PICTURES) or not costs.any()
    assert (shown.shape, costs.shape) == (PICTURES.shape, (2,))
    torch.testing.assert_close(piece.transform(PICTURES[1:], seeded(1)), shown[1:])
    torch.testing.assert_close(piece.penalty(PICTURES[1:]), costs[1:])


@pytest.mark.parametrize("kind", [Pixels(), Fourier(), Fourier(decay=0.0), Fourier(decay=2.0)])
@pytest.mark.parametrize("size", [(3, 32, 32), (1, 9, 14), (2, 1, 5), (1, 5, 1), (1, 4, 2)])
def test_normal_numbers_give_pixels_of_deviation_one(kind: Parametrization, size: tuple[int, ...]) -> None:
    """In the mean over 2000 images; strong long waves make it the least certain, to some 3 %."""
    numbers = torch.randn(2000, *kind.shape(size), generator=seeded())
    image = kind.image(numbers, size)
    assert image.shape == (2000, *size)
    assert float(image.square().mean().sqrt()) == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(kind.image(2 * numbers, size), 2 * image)


def test_waves_make_every_picture() -> None:
    """The map from numbers to pixels has full rank, for even and odd sides."""
    for size in ((1, 4, 4), (1, 5, 3), (1, 3, 6)):
        shape = Fourier().shape(size)
        each = torch.eye(prod(shape), dtype=torch.float64).view(-1, *shape)
        made = Fourier().image(each, size).flatten(1)
        assert torch.linalg.matrix_rank(made) == prod(size)


def test_waves_fall_with_their_frequency() -> None:
    """A wave of frequency (1, 2) / 8 against one of (0, 1) / 8: amplitudes as 1 to √5."""
    numbers = torch.zeros(2, 1, 8, 5, 2, dtype=torch.float64)
    numbers[0, 0, 0, 1, 0] = numbers[1, 0, 1, 2, 0] = 1
    long, short = Fourier().image(numbers, (1, 8, 8)).square().mean((1, 2, 3)).sqrt()
    assert float(long / short) == pytest.approx(5**0.5)
