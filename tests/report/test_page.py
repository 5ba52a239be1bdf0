"""The report as a reader has it: in a browser, at laptop and phone width, light and dark, without a network."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from convscope.report import static
from convscope.runs import REPORT, Run

pytestmark = pytest.mark.browser


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["laptop light", "phone dark"])
def page(request: pytest.FixtureRequest, open_page: Callable[..., Any], reported: Run) -> Any:
    width, scheme = request.param
    with open_page(reported.path / REPORT, width=width, scheme=scheme) as page:
        yield page


@pytest.fixture
def page_96(open_page: Callable[..., Any], reported_96: Run) -> Any:
    with open_page(reported_96.path / REPORT) as page:
        yield page


def test_nothing_is_wider_than_the_screen(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_all_charts_and_pictures_are_drawn(page: Any) -> None:
    expect(page.locator("[data-chart]")).to_have_count(3)
    expect(page.locator("[data-chart] svg")).to_have_count(3)
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    small = page.evaluate("[...document.images].map((image) => getComputedStyle(image).imageRendering)")
    assert set(small) == {"pixelated"}


def test_pointing_at_the_matrix_reads_a_cell(page: Any, reported: Run) -> None:
    canvas = page.locator(".confusion canvas")
    canvas.scroll_into_view_if_needed()
    canvas.focus()
    page.keyboard.press("ArrowUp")  # the first cell
    n = reported.metrics["heads"]["class"]["confusion"][0][0]
    expect(page.locator(".readout")).to_contain_text(f"predicted correctly: {n} of")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".readout")).to_contain_text("predicted as")


def test_the_mouse_finds_every_cell_of_96_classes(page_96: Any, reported_96: Run) -> None:
    canvas = page_96.locator(".confusion canvas")
    canvas.scroll_into_view_if_needed()
    side = canvas.bounding_box()["width"]
    canvas.hover(position={"x": side - 4, "y": side - 4})  # the last cell
    last = reported_96.metrics["heads"]["class"]
    said = f"“{last['classes'][-1]}” predicted correctly: {last['confusion'][-1][-1]} of"
    expect(page_96.locator(".readout")).to_have_text(re.compile(f"^{re.escape(said)}"))


def test_on_paper_a_long_table_is_whole(page_96: Any) -> None:
    page_96.emulate_media(media="print")
    shown, whole = page_96.locator("#classes .tall").evaluate("box => [box.clientHeight, box.scrollHeight]")
    page_96.emulate_media(media="screen")
    assert shown == whole


def test_the_order_of_classes_can_be_chosen(page_96: Any) -> None:
    canvas = page_96.locator(".confusion canvas")
    before = canvas.evaluate("(c) => c.toDataURL()")
    page_96.locator(".order").select_option("hardest first")
    after = canvas.evaluate("(c) => c.toDataURL()")
    assert before != after
    page_96.locator(".errors").check()
    assert canvas.evaluate("(c) => c.toDataURL()") != after


def test_a_click_sorts_the_classes(page_96: Any) -> None:
    heading = page_96.locator("#classes thead th", has_text="recall")
    values = "[...document.querySelectorAll('#classes tbody tr')].map((row) => +row.cells[2].dataset.value)"
    heading.click()
    down = page_96.evaluate(values)
    assert down == sorted(down, reverse=True)
    heading.click()
    up = page_96.evaluate(values)
    assert up == sorted(up)


def test_a_long_file_name_is_cut_in_front(browser: Any) -> None:
    """Its end tells it from the others of its folder."""
    with browser.new_context() as context:
        page = context.new_page()
        name = '<span class="file" style="width: 120px"><bdi>/a/long/way/to/the/photographs/IMG_1234.jpg</bdi></span>'
        page.set_content(f"<style>{static('report.css')}</style>{name}")
        box, text = (page.locator(part).bounding_box() for part in (".file", ".file bdi"))
        assert text["x"] < box["x"] - 20
        assert text["x"] + text["width"] <= box["x"] + box["width"] + 1
