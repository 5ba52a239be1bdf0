"""Winograd's convolution against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from convscope.graph import winograd
from convscope.graph.winograd import TILES, best_side, convolve, evaluated

SIZES = [(1, 1), (1, 7), (9, 1), (4, 4), (5, 3), (8, 12), (13, 6)]


sides = pytest.mark.parametrize("side", TILES)


@sides
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("n", "n_inputs", "n_outputs"), [(1, 1, 1), (3, 5, 2), (2, 32, 48)])
def test_as_conv2d(size: tuple[int, int], n: int, n_inputs: int, n_outputs: int, side: int) -> None:
    """Outputs are of the order of 1: the points cost some tens of roundings."""
    x = torch.randn(n, n_inputs, *size, dtype=torch.float64)
    weight = torch.randn(n_outputs, n_inputs, 3, 3, dtype=torch.float64) / (9 * n_inputs) ** 0.5
    expected = F.conv2d(x, weight, padding=2)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = convolve(x.contiguous(memory_format=layout), evaluated(weight, side))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@sides
def test_by_hand(side: int) -> None:
    """One pixel gives the filter turned; a tile of ones and a filter of ones count the shared places."""
    weight = torch.arange(9.0, dtype=torch.float64).view(1, 1, 3, 3)
    pixel = convolve(torch.ones(1, 1, 1, 1, dtype=torch.float64), evaluated(weight, side))
    torch.testing.assert_close(pixel, weight.flip(2, 3), rtol=0, atol=1e-13)
    row = torch.tensor([1, 2, 3, 3, 2, 1], dtype=torch.float64)
    ones = torch.ones(1, 1, 4, 4, dtype=torch.float64), torch.ones(1, 1, 3, 3, dtype=torch.float64)
    found = convolve(ones[0], evaluated(ones[1], side))[0, 0]
    torch.testing.assert_close(found, torch.outer(row, row), rtol=0, atol=1e-13)


@sides
def test_float32_is_near_enough(side: int) -> None:
    """Sums of 9 · 256 products: 3e-6 and 6e-6 of the largest output were measured; a probability may be off by 1e-5."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 256, 10, 11, generator=generator)
    weight = torch.randn(64, 256, 3, 3, generator=generator) / 48
    expected = F.conv2d(x.double(), weight.double(), padding=2)
    found = convolve(x, evaluated(weight, side)).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(5, 3, 6, 5, dtype=torch.float64), evaluated(torch.randn(4, 3, 3, 3, dtype=torch.float64), 4)
    whole = convolve(x, weight)
    monkeypatch.setattr(winograd, "LARGEST", 2 * 36 * 4 * 4 * 8)
    torch.testing.assert_close(convolve(x, weight), whole, rtol=0, atol=1e-12)


@sides
def test_nothing_stays_nothing(side: int) -> None:
    """A change of 0 changes nothing, to the last bit."""
    assert not convolve(torch.zeros(1, 3, 5, 6), evaluated(torch.randn(4, 3, 3, 3), side)).any()


def test_tiles_suit_the_map() -> None:
    assert [best_side(side, side) for side in (4, 5, 7, 8, 9, 10, 12, 16)] == [4, 5, 4, 4, 5, 5, 4, 4]
    assert best_side(5, 9) == 5
