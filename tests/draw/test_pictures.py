import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from convscope.draw import (
    enlarge,
    filter_picture,
    map_picture,
    picture,
    png,
    sheet,
    signed_picture,
    tinted_picture,
)


def test_an_image_keeps_its_colours() -> None:
    image = torch.tensor([[[1.0, 0.0]], [[0.0, 0.5]], [[0.0, 2.0]]])  # red, and a blue out of range
    assert picture(image).tolist() == [[[255, 0, 0], [0, 128, 255]]]
    assert picture(torch.full((1, 1, 1), 0.2)).tolist() == [[[51, 51, 51]]]


def test_a_map_is_black_where_a_unit_is_silent() -> None:
    assert map_picture(torch.tensor([[-3.0, 0.0, 1.0, 2.0]]))[0, :, 0].tolist() == [0, 0, 128, 255]
    assert map_picture(torch.tensor([[1.0, 4.0]]), top=2.0)[0, :, 0].tolist() == [128, 255]
    assert not map_picture(torch.full((2, 2), -1.0)).any()


def test_a_tinted_map_is_the_image_where_the_unit_is_active() -> None:
    image = torch.zeros(3, 4, 4)
    image[0] = 1.0
    shown = tinted_picture(torch.tensor([[0.0, 1.0], [0.5, 0.0]]), image)
    assert shown[:, :, 1:].sum() == 0
    assert shown[0, :, 0].tolist() == [0, 0, 255, 255]
    assert shown[3, :, 0].tolist() == [128, 128, 0, 0]


def test_each_position_of_an_oblong_map_lights_its_own_part_of_the_image() -> None:
    """A map of 3 × 2 on an image of 6 × 8: each position is 2 pixels high and 4 wide."""
    feature_map = torch.tensor([[0.0, 0.2], [0.4, 0.6], [0.8, 1.0]])
    shown = tinted_picture(feature_map, torch.ones(1, 6, 8))[..., 0]
    expected = (feature_map * 255).round().repeat_interleave(2, 0).repeat_interleave(4, 1)
    assert shown.tolist() == expected.tolist()


@pytest.mark.parametrize(("h", "w"), [(5, 3), (7, 7)])
def test_a_tinted_map_of_any_size_fits_any_image(h: int, w: int) -> None:
    assert tinted_picture(torch.rand(h, w), torch.rand(1, 16, 11)).shape == (16, 11, 3)


def test_a_filter_is_grey_at_zero_and_symmetric() -> None:
    weights = torch.tensor([[[0.0, 2.0]], [[0.0, -2.0]], [[0.0, 1.0]]])
    assert filter_picture(weights).tolist() == [[[128, 128, 128], [255, 0, 191]]]
    assert (filter_picture(torch.zeros(3, 2, 2)) == 128).all()


def test_signed_values_are_blue_white_red() -> None:
    low, zero, high = signed_picture(torch.tensor([[-1.0, 0.0, 1.0]]))[0].tolist()
    assert zero == [255, 255, 255]
    assert low[2] == 255
    assert low[0] == 0
    assert high[0] == 255
    assert high[2] == 0


def test_what_is_no_number_is_black_and_the_others_keep_their_colours() -> None:
    values = torch.tensor([[1.0, math.nan, 2.0, 0.5]])
    for draw in (map_picture, signed_picture, lambda one: filter_picture(one[None])):
        shown = draw(values)
        assert shown[0, 1].tolist() == [0, 0, 0]
        assert (shown[:, [0, 2, 3]] == draw(values[:, [0, 2, 3]])).all()


def test_a_sheet_has_rows_and_gaps() -> None:
    pictures = [np.full((2, 3, 3), level, np.uint8) for level in (10, 20, 30)]
    shown = sheet(pictures, columns=2, gap=1, ground=255)
    assert shown.shape == (5, 7, 3)
    assert shown[0, :, 0].tolist() == [10, 10, 10, 255, 20, 20, 20]
    assert shown[4, :, 0].tolist() == [30, 30, 30, 255, 255, 255, 255]
    assert sheet(pictures[:1]).shape == (2, 3, 3)


def test_enlarging_repeats_pixels() -> None:
    small = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = enlarge(small, 3)
    assert (large[::3, ::3] == small).all()
    assert (large[2, 2] == small[0, 0]).all()


def test_a_png_reads_back() -> None:
    shown = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png(shown)))) == shown).all()
