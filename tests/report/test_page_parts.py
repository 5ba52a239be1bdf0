"""What pages share: the script that draws charts is put together once, and kept where the user's cache is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from convscope import draw
from convscope.data import ImageSet
from convscope.report import page
from convscope.report.page import Photo
from convscope.report.subject import thumbnail

SCRIPT = "var vega = '</script>'"


@pytest.fixture
def put_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """How often the script was put together; the cache is empty."""
    made: list[str] = []
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(draw, "vega_script", lambda: made.append("") or SCRIPT)
    return made


def test_numbers_are_short_whatever_they_are_rounded_to() -> None:
    written = {-0.0: "0", 999.4: "999", 999.7: "1,000", -999.7: "−1,000", 1000: "1,000", 12345: "12,300"}
    assert {value: page._short(value) for value in written} == written
    assert [page._short(value) for value in (9_994_000, 9_999_999, 0.00012344)] == ["9,990,000", "1e+07", "0.000123"]


def test_a_large_image_is_shown_smaller_as_a_photograph_and_a_small_one_pixel_by_pixel() -> None:
    def images(height: int, width: int) -> ImageSet:
        pixels = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        return ImageSet(pixels, torch.arange(1), {"class": torch.zeros(1, dtype=torch.int64)}, {"class": ("a", "b")})

    large = thumbnail(images(200, 400), 0)
    assert isinstance(large, Photo)
    assert large.picture.shape == (80, 160, 3)
    assert thumbnail(images(8, 16), 0).shape == (32, 64, 3)


def test_what_is_rounded_to_0_has_no_sign() -> None:
    assert [page._figure(value) for value in (-0.006, -0.004, 0.0, None)] == ["−0.01", "0.00", "0.00", "–"]
    points = {-0.0006: "−0.1", -0.0004: "0.0", 0: "0.0", 0.0004: "0.0", 0.0006: "+0.1", 0.1: "+10.0", None: "–"}
    assert {value: page._points(value) for value in points} == points


def test_the_script_is_put_together_once(put_together: list[str], tmp_path: Path) -> None:
    assert [page.vega(), page.vega()] == ["var vega = '<\\/script>'"] * 2
    assert len(put_together) == 1
    [kept] = (tmp_path / "cache" / "charts").iterdir()
    assert json.loads(kept.read_text())["script"] == SCRIPT


def test_of_another_release_anew(put_together: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page.vega()
    monkeypatch.setattr(page, "version", lambda package: f"{package} of tomorrow")
    page.vega()
    assert len(put_together) == 2


def test_damaged_it_is_put_together_again(put_together: list[str], tmp_path: Path) -> None:
    page.vega()
    [kept] = (tmp_path / "cache" / "charts").iterdir()
    kept.write_text(kept.read_text().replace("vega =", "evil ="))
    assert page.vega() == "var vega = '<\\/script>'"
    assert len(put_together) == 2


def test_where_nothing_can_be_kept_it_is_put_together_each_time(put_together: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert [page.vega(), page.vega()] == ["var vega = '<\\/script>'"] * 2
    assert len(put_together) == 2
