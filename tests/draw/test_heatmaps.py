import math

import numpy as np
import pandas as pd
import pytest
import torch

from convscope.draw import (
    Scale,
    chart_picture,
    coloured,
    framed,
    on_image,
    overlay,
    panel,
    picture,
    points,
    remarked,
    scale_of,
)

Capture = pytest.CaptureFixture[str]


def test_a_map_with_negatives_has_a_scale_about_zero_and_white_there() -> None:
    values = torch.tensor([[-1.0, 0.0, 3.0]])
    scale = scale_of(values, "logits")
    assert (scale.low, scale.high, scale.signed) == (-3.0, 3.0, True)
    low, zero, high = coloured(values, scale)[0].astype(int)
    assert zero.min() > 240
    assert low[2] > low[0]  # bluish
    assert high[0] > high[2]  # reddish


def test_a_map_without_negatives_rises_in_lightness_from_zero() -> None:
    values = torch.linspace(0, 2, 50)[None]
    scale = scale_of(values, "probability")
    assert (scale.low, scale.high) == (0.0, 2.0)
    red, green, blue = (coloured(values, scale)[0, :, c].astype(float) for c in range(3))
    assert (np.diff(0.2126 * red + 0.7152 * green + 0.0722 * blue) > 0).all()
    assert scale_of(torch.zeros(2, 2), "").high == 1.0


@pytest.mark.parametrize("signed", [False, True])
def test_what_is_no_number_is_grey_and_does_not_change_the_scale(signed: bool) -> None:
    values = torch.tensor([[math.nan, 2.0, 0.0, math.inf]])
    scale = scale_of(values, "", signed)
    assert scale == Scale(-2.0 if signed else 0.0, 2.0, "", open=True)
    shown = coloured(values, scale)
    assert shown[0, 0].tolist() == [128, 128, 128]
    assert (shown[0, 3] == shown[0, 1]).all()
    assert (shown[0, 1:3] == coloured(values[:, 1:3], scale)[0]).all()
    assert overlay(torch.zeros(1, 1, 4), values, scale, strength=1.0)[0, 0].tolist() == [128, 128, 128]
    assert scale_of(torch.full((2, 2), math.nan), "", signed) == scale_of(torch.zeros(2, 2), "", signed)


def test_an_overlay_is_the_grey_image_where_the_map_is_zero() -> None:
    image = torch.rand(3, 6, 6)
    assert (overlay(image, torch.zeros(3, 3), Scale(0, 1, "")) == picture(image.mean(0, keepdim=True))).all()
    assert overlay(image, torch.ones(3, 3), Scale(0, 1, ""), strength=1.0)[0, 0].tolist() == [250, 250, 200]


def test_enlarging_keeps_a_constant_and_the_mean() -> None:
    torch.testing.assert_close(on_image(torch.full((2, 3), 0.7), 8, 9), torch.full((8, 9), 0.7))
    values = torch.rand(4, 4)
    torch.testing.assert_close(on_image(values, 32, 32).mean(), values.mean())


def test_a_panel_holds_its_parts_unblurred_and_is_wide_enough_for_its_words() -> None:
    one = picture(torch.rand(3, 4, 4))
    shown = panel([("a", one), ("b" * 200, one)], "heading", Scale(0, 1, "unit"), side=64, note="note")
    assert shown.shape[1] > 1000
    assert (shown[40 : 40 + 64 : 16, 16 : 16 + 64 : 16] == one).all()


def test_a_frame_is_drawn_inside_its_box() -> None:
    shown = np.zeros((6, 6, 3), np.uint8)
    marked = framed(shown, (1, 2, 5, 6)).any(-1)
    expected = np.zeros((6, 6), bool)
    expected[1:5, 2:6] = True
    expected[2:4, 3:5] = False
    assert (marked == expected).all()
    assert not shown.any()


def test_the_colour_bar_has_the_highest_value_and_its_colour_at_the_top() -> None:
    """The label at the foot of two scales from 0 is the same, the one at the head is not."""
    parts = [("", np.full((100, 100, 3), 255, np.uint8))]
    one, seven = (panel(parts, "", Scale(0, high, ""), side=100) for high in (1, 7))
    differs = (one != seven).any((1, 2)).nonzero()[0]
    assert differs.min() < 40 + 20  # the bar's rows are 40 to 140; half of the way the labels are 0.5 and 3.5
    assert differs.max() < 40 + 80
    pale, dark = one[40, 138].astype(int).sum(), one[139, 138].astype(int).sum()
    assert pale > 600 > 100 > dark


def test_a_panel_breaks_into_rows_and_draws_names_of_any_alphabet() -> None:
    parts = [(name, np.full((8, 8, 3), 100, np.uint8)) for name in ("été", "Straße", "жук", "3×3")]
    wide, high = panel(parts, "names", side=64), panel(parts, "names", side=64, columns=2)
    assert wide.shape[1] > 4 * 64
    assert high.shape[0] > 2 * 64 > high.shape[1] - 64
    drawn = [panel([(name, parts[0][1])], "") for name in ("é", "e", "×", "ж")]
    assert len({one.tobytes() for one in drawn}) == 4


def test_letters_that_source_sans_lacks_come_from_another_font_and_a_box_is_said_once(capsys: Capture) -> None:
    """Hebrew is in the fonts that vl-convert brings; signs of the Mro are in hardly any."""
    one = np.zeros((4, 4, 3), np.uint8)
    boxes, hebrew, _, broken = (panel([("", one)], name) for name in ("𖩀𖩀𖩀𖩀", "שלום", "𖩀", "\udcff <&>"))
    assert boxes.tobytes() != hebrew.tobytes()
    assert panel([("", one)], "שלום" * 20).shape[1] > panel([("", one)], "שלום").shape[1] + 100
    assert (broken[:40] != 255).any()
    chart_picture(points(pd.DataFrame({"x": [0.0], "y": [0.0], "class": ["𖩀 𖩁"]}), ["𖩀 𖩁"]))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("note: no font on this machine has the letters 𖩀, so pictures show boxes")
    assert "letters 𖩁," in second


@pytest.mark.parametrize("broken", ["two\nlines", "two\r\nlines", "two\x85lines", "two\u2029lines"])
def test_a_line_break_in_a_name_is_drawn_as_a_space(broken: str) -> None:
    one = np.zeros((4, 4, 3), np.uint8)
    expected = panel([("two lines", one)], "two lines", note="two lines")
    assert (panel([(broken, one)], broken, note=broken) == expected).all()
    assert (remarked(one, broken) == remarked(one, "two lines")).all()


def test_long_ticks_have_room_beside_the_label() -> None:
    """-0.000123 is wider than the usual room: the panel grows, and the label stands behind it."""
    values = torch.tensor([[1.23e-4, -1.23e-4]])
    short, long = (
        panel([("", np.zeros((100, 40, 3), np.uint8))], "", scale_of(values * by, "logits", signed=True), side=100)
        for by in (1e4, 1)
    )
    assert long.shape[1] > short.shape[1]


def test_beside_a_low_picture_the_colour_bar_has_room_for_its_words() -> None:
    """Of an image of 8 rows: as much is written as beside one of 300."""
    low, high = (
        panel([("", np.full((rows, 100, 3), 255, np.uint8))], "", Scale(-1, 1, "a label of the colours"), side=100)
        for rows in (8, 300)
    )
    ticks, label = slice(150, -24), slice(-24, None)
    for columns in (ticks, label):
        assert (low[:, columns] < 200).any(2).sum() == (high[:, columns] < 200).any(2).sum() > 0
