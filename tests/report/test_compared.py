"""The page of a comparison, as a reader has it: in a browser, without a network."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from playwright.sync_api import expect

from convscope.data import DataBundle
from convscope.errors import RequestError
from convscope.report import comparison_page, write_comparison
from convscope.report.compared import axis_ticks
from convscope.runs import Run
from convscope.study import Compared, compare
from tests.planted import Plant, answer_with, chosen_logits


@pytest.fixture
def compared(plant: Plant) -> Compared:
    """Two widths, two seeds each; names that are long."""
    wrong = {("narrow", 0): 40, ("narrow", 1): 44, ("wide", 0): 6, ("wide", 1): 9}
    runs = [
        plant(f"{name}-network-with-seed-{seed}", wrong=range(n), width=4 if name == "narrow" else 8, seed=seed)
        for (name, seed), n in wrong.items()
    ]
    return compare(runs)


@pytest.fixture
def page_file(compared: Compared, tmp_path: Path) -> Path:
    return write_comparison(compared, tmp_path / "compared.html")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_fits_the_screen_and_says_first_what_matters(
    page_file: Path, compared: Compared, open_page: Callable[..., Any], width: int, scheme: str
) -> None:
    with open_page(page_file, width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        parts = page.locator("section").evaluate_all("(found) => found.map((one) => one.id)")
        assert parts == ["verdicts", "settings", "figures", "pairs", "alone", "confusion"]
        expect(page.locator(".verdicts li").first).to_contain_text(compared.over_seeds[0].verdict)
        expect(page.locator(".verdicts li")).to_have_count(1 + 6)
        expect(page.locator(".pairs tbody tr")).to_have_count(1 + 6)


@pytest.mark.browser
def test_dots_stand_where_their_figures_are(page_file: Path, compared: Compared, open_page: Callable[..., Any]) -> None:
    """Measured on the screen against the ticks and their numbers."""
    with open_page(page_file) as page:
        panel = page.locator(".dots").filter(has_text="test accuracy").last
        box = "(found) => found.map((one) => { const b = one.getBoundingClientRect(); return [b.left, b.right]; })"
        dots = [sum(b) / 2 for b in panel.locator(".dot").evaluate_all(box)]
        bars = panel.locator(".reach").evaluate_all(box)
        ticks = [sum(b) / 2 for b in panel.locator(".axis i").evaluate_all(box)]
        numbers = [float(text.replace("−", "-")) for text in panel.locator(".axis i").all_inner_texts()]
    per_px = (numbers[-1] - numbers[0]) / (ticks[-1] - ticks[0])
    for run, dot, (left, right) in zip(compared.runs, dots, bars, strict=True):
        figure = run.run.metrics["accuracy"]
        shown = [numbers[0] + per_px * (x - ticks[0]) for x in (left, dot, right)]
        assert shown == pytest.approx([100 * figure[key] for key in ("low", "value", "high")], abs=1.5 * per_px)


@pytest.mark.browser
def test_a_cell_of_the_difference_is_read_with_both_counts(
    page_file: Path, compared: Compared, open_page: Callable[..., Any]
) -> None:
    a, b = (run.run.metrics["heads"]["class"]["confusion"] for run in compared.runs[:2])
    with open_page(page_file) as page:
        canvas = page.locator(".confusion canvas")
        canvas.scroll_into_view_if_needed()
        canvas.focus()
        page.keyboard.press("ArrowUp")  # the first cell
        counts = f"{a[0][0]} by {compared.names[0]}, {b[0][0]} by {compared.names[1]}; of {sum(a[0])} images."
        expect(page.locator(".readout")).to_contain_text(f"predicted correctly: {counts}")
        before = canvas.evaluate("(c) => c.toDataURL()")
        page.locator(".view").select_option(f"{compared.names[1]} alone")
        assert canvas.evaluate("(c) => c.toDataURL()") != before
        page.keyboard.press("Tab")
        canvas.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".readout")).to_contain_text(f": {b[0][1]} of {sum(b[0])} images")


def _matrices(page: str) -> list[dict[str, Any]]:
    return json.loads(re.search(r'id="matrices">(.*?)</script>', page, re.S)[1])


def test_views_of_the_matrix_are_each_runs_and_the_firsts_less_the_others(
    compared: Compared, spotted: tuple[Run, DataBundle]
) -> None:
    [found] = _matrices(comparison_page(compared, spotted[1].test))
    own = [run.run.metrics["heads"]["class"]["confusion"] for run in compared.runs]
    for place, name in enumerate(compared.names[1:], start=1):
        expected = [[x - y for x, y in zip(*rows, strict=True)] for rows in zip(own[0], own[place], strict=True)]
        assert found["views"][f"{compared.names[0]} less {name}"]["matrix"] == expected
    assert [found["views"][f"{name} alone"]["matrix"] for name in compared.names] == own


def test_the_sheets_name_the_answers_of_both_sides(plant: Plant, spotted: tuple[Run, DataBundle]) -> None:
    data = spotted[1]
    a, b = plant("a"), plant("b", width=4)
    answer_with(b, data, chosen_logits(data, [7], sure=2.0))
    page = comparison_page(compare([a.path, b.path]), data.test)
    true = int(data.test.targets_of()[7])
    names = data.classes
    part = page[page.index('id="alone"') : page.index('id="confusion"')]
    assert "a alone: 1 image<" in part
    assert "b alone: 0 images<" in part
    assert re.search(rf"<b>{names[true]}</b> 96 %<br>\s*<span class=\"faint\">{names[(true + 1) % 3]} 79 %", part)
    assert part.count("<img") == 1
    assert 'title="test image 7,' in part


def test_text_from_outside_cannot_become_markup(plant: Plant, spotted: tuple[Run, DataBundle]) -> None:
    bad = "<script>alert(1)<"
    found = compare([plant(bad), plant("b", wrong=[1])])
    page = comparison_page(found, spotted[1].test)
    assert bad not in page
    assert "&lt;script&gt;alert(1)&lt;" in page


def test_runs_on_other_images_have_a_page_without_pictures_and_no_picture(
    plant: Plant, elsewhere: Run, tmp_path: Path
) -> None:
    found = compare([plant("a"), elsewhere])
    text = write_comparison(found, tmp_path / "page.html").read_text()
    assert "cannot be compared on the same test images" in text
    assert 'id="alone"' not in text
    with pytest.raises(RequestError, match=r"nothing to show; give an \.html file"):
        write_comparison(found, tmp_path / "page.png")


@given(st.floats(-1e4, 1e4), st.floats(1e-6, 1e4))
def test_ticks_are_round_and_enclose_what_is_shown(low: float, width: float) -> None:
    high = low + width
    ticks = axis_ticks(low, high)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step
    assert ticks[-1] >= high - 1e-6 * step
    assert 2 <= len(ticks) <= 6
    assert f"{step:.0e}"[0] in "125"
    assert step == pytest.approx(float(f"{step:.0e}"), abs=4 * math.ulp(max(map(abs, ticks))))  # the subtraction rounds
