"""The report as a reader has it: in a browser, at laptop and phone width, light and dark, without a network."""

from typing import Any

import pytest

from convscope.runs import REPORT, Run

pytestmark = pytest.mark.browser


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["laptop light", "phone dark"])
def page(request: pytest.FixtureRequest, browser: Any, reported: Run) -> Any:
    yield from _open(browser, reported, *request.param)


@pytest.fixture
def page_96(browser: Any, reported_96: Run) -> Any:
    yield from _open(browser, reported_96, 1280, "light")


def _open(browser: Any, run: Run, width: int, scheme: str) -> Any:
    """The page, failing on any error in it and on any request that leaves the file."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: wrong.append(request.url) if request.url[:5] not in {"file:", "data:"} else None)
    page.goto((run.path / REPORT).resolve().as_uri())
    page.wait_for_selector("[data-chart] svg")
    yield page
    context.close()
    assert wrong == []


def test_nothing_is_wider_than_the_screen(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_all_charts_and_pictures_are_drawn(page: Any) -> None:
    assert page.locator("[data-chart] svg").count() == page.locator("[data-chart]").count() == 3
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    small = page.evaluate("[...document.images].map((image) => getComputedStyle(image).imageRendering)")
    assert set(small) == {"pixelated"}


def test_pointing_at_the_matrix_reads_a_cell(page: Any, reported: Run) -> None:
    canvas = page.locator(".confusion canvas")
    canvas.scroll_into_view_if_needed()
    canvas.focus()
    page.keyboard.press("ArrowUp")  # the first cell
    n = reported.metrics["heads"]["class"]["confusion"][0][0]
    assert f"recognised: {n} of" in page.locator(".readout").inner_text()
    page.keyboard.press("ArrowRight")
    assert "taken for" in page.locator(".readout").inner_text()


def test_the_mouse_finds_every_cell_of_96_classes(page_96: Any, reported_96: Run) -> None:
    canvas = page_96.locator(".confusion canvas")
    canvas.scroll_into_view_if_needed()
    side = canvas.bounding_box()["width"]
    canvas.hover(position={"x": side - 4, "y": side - 4})  # the last cell
    text = page_96.locator(".readout").inner_text()
    last = reported_96.metrics["heads"]["class"]
    assert text.startswith(f"“{last['classes'][-1]}” recognised: {last['confusion'][-1][-1]} of")


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
