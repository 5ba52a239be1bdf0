"""The explorer in Chromium: what a person does, on a laptop and on a phone."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from convscope.runs import Run, open_run, read_review
from tests.app.serving import get, served
from tests.planted import answer_with, chosen_logits

pytestmark = pytest.mark.browser

PAGES = ("/runs", "/overview", "/lab?image=3", "/units", "/unit/conv1/0", "/images", "/map", "/mistakes", "/api")

Explorer = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def address(reported: Run) -> Iterator[str]:
    with served(reported.path) as found:
        yield found


@pytest.fixture
def explore(address: str, browser: Any) -> Explorer:
    """``with explore("/lab?image=3") as page``; errors, warnings, and requests to others than the server fail."""

    @contextmanager
    def opened(path: str, width: int = 1360, scheme: str = "light") -> Iterator[Any]:
        wrong: list[str] = []
        with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
            page = context.new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda one: wrong.append(one.text) if one.type in {"error", "warning"} else None)
            page.on("request", lambda one: wrong.append(one.url) if not _is_own(one.url, address) else None)
            page.goto(f"http://{address}{path}")
            yield page
        assert wrong == []

    return opened


def _is_own(url: str, address: str) -> bool:
    return url.startswith((f"http://{address}/", f"ws://{address}/", "data:", "blob:"))


def settled(page: Any) -> None:
    """Until the lab has answered its newest request."""
    page.wait_for_timeout(60)  # for a change to be sent
    page.locator("body[data-answered]").wait_for()
    until(page, "document.body.dataset.answered === document.body.dataset.asked")


def until(page: Any, condition: str) -> None:
    """Playwright's own wait is against the page's policy, which allows no eval. The page may load itself again meanwhile."""
    from playwright.sync_api import Error

    for _ in range(300):
        with suppress(Error):
            if page.evaluate(condition):
                return
        page.wait_for_timeout(100)
    raise AssertionError(f"never: {condition}")


def percents(page: Any) -> list[str]:
    return page.locator("#bars output").all_text_contents()


def stroke(page: Any, *points: tuple[float, float]) -> None:
    """Drawn on the image with the mouse; points as shares of its width and height."""
    box = page.locator("#picture").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def test_a_stroke_moves_the_bars_and_undo_takes_it_back(explore: Explorer) -> None:
    with explore("/lab?image=3") as page:
        settled(page)
        before = percents(page)
        maps = page.locator("[data-layer] canvas").count()
        assert maps >= 8
        stroke(page, (0.2, 0.2), (0.8, 0.3), (0.5, 0.8))
        settled(page)
        assert percents(page) != before
        assert "paint" in page.locator("#edit-words").inner_text()
        assert page.locator("#versions button").count() == 2
        page.keyboard.press("z")
        settled(page)
        assert percents(page) == before
        page.keyboard.press("y")
        settled(page)
        assert percents(page) != before


def test_a_link_shows_the_same_state(explore: Explorer) -> None:
    with explore("/lab?image=5") as page:
        settled(page)
        page.locator("label:has-text('rotate') input").fill("40")
        stroke(page, (0.5, 0.5))
        page.select_option("#show", "value")
        settled(page)
        page.wait_for_timeout(500)  # the address is written some times a second
        address, shown, words = page.url, percents(page), page.locator("#edit-words").inner_text()
        units = page.locator("[data-layer] .units a span").all_text_contents()
        page.goto("about:blank")
        page.goto(address)
        settled(page)
        assert (percents(page), page.locator("#edit-words").inner_text()) == (shown, words)
        assert page.locator("[data-layer] .units a span").all_text_contents() == units


def test_after_hundreds_of_changes_the_address_holds_the_newest(explore: Explorer) -> None:
    with explore("/lab?image=5") as page:
        settled(page)
        page.wait_for_timeout(500)
        page.evaluate(_COUNT)
        page.evaluate(_ROTATE)
        settled(page)
        until(page, "decodeURIComponent(location.href).includes('[[\"rotate\",-180]]')")
        assert page.evaluate("window.written") <= 3  # Safari refuses more than 100 in 30 s


_COUNT = """(() => {
  const write = history.replaceState.bind(history);
  window.written = 0;
  history.replaceState = (...values) => { window.written += 1; write(...values); };
})()"""
_ROTATE = """(() => {
  const labels = [...document.querySelectorAll("#sliders label")];
  const input = labels.find((label) => label.textContent.startsWith("rotate")).control;
  for (let degrees = 1; degrees <= 720; degrees++) {
    input.value = String(degrees % 2 ? degrees % 180 : -180);
    input.dispatchEvent(new Event("input"));
  }
})()"""


def test_images_gone_through_quickly_end_with_the_newest(explore: Explorer) -> None:
    with explore("/lab?image=3") as page:
        settled(page)
        until(page, "document.querySelector('#matter a') !== null")
        questions: list[str] = []
        page.on("request", lambda one: questions.append(one.url) if "unit_effects" in one.url else None)
        page.evaluate("for (let k = 0; k < 45; k++) document.body.dispatchEvent(new KeyboardEvent('keydown', "
                      "{key: 'n', bubbles: true}))")  # fmt: skip
        settled(page)
        until(page, "document.querySelector('#matter a') !== null")
        assert page.locator("#image").input_value() == str((3 + 45) % 24)
        assert len(questions) == 2


@pytest.mark.parametrize("edits", ["nonsense", "[null]", '{"a": 1}', "[[]]", '[["rotate"]]', "7", "[[[[1]]]]"])
def test_a_link_with_damaged_edits_says_so_and_can_be_reset(explore: Explorer, edits: str) -> None:
    with explore(f"/lab?image=3&layers=gone&edits={quote(edits)}") as page:
        until(page, "document.querySelector('#verdict').textContent.startsWith('edit 1')")
        page.click("#reset")
        settled(page)
        assert page.locator("#verdict").inner_text() == "Edit the image to see the answer change."
        assert page.locator("[data-layer]").count() >= 1


def test_another_run_is_chosen_on_every_page(grid: Path, browser: Any) -> None:
    with served(grid) as address, browser.new_context() as context:
        page = context.new_page()
        for path in ("lab?layers=conv1", "units?layer=conv1", "compare?with=1", "overview?off=conv1:1"):
            page.goto(f"http://{address}/{path}")
            page.select_option("#which-run", "1")
            page.wait_for_url("**run=1**")
            assert "This cannot be shown" not in page.locator("main").inner_text()


def test_who_goes_back_finds_the_controls_of_the_page(explore: Explorer) -> None:
    with explore("/map") as page:
        until(page, "document.querySelector('#points')?.dataset.drawn > 0")
        page.select_option("#layer", "conv1")
        page.wait_for_url("**layer=conv1**")
        page.go_back()
        until(page, "document.querySelector('#points')?.dataset.drawn > 0")
        assert page.locator("#layer").input_value() == ""


def test_an_image_that_comes_late_is_not_shown_as_the_original_of_the_next(explore: Explorer) -> None:
    with explore("/lab?image=3") as page:
        settled(page)
        page.route("**/images/4.png*", lambda route: (page.wait_for_timeout(400), route.continue_()))
        page.keyboard.press("n")
        page.wait_for_timeout(100)
        page.keyboard.press("n")
        settled(page)
        page.wait_for_timeout(600)
        page.locator("label:has-text('rotate') input").fill("40")
        settled(page)
        shown = page.evaluate(_AS_IT_IS)
        page.goto(page.url)
        settled(page)
        page.wait_for_timeout(100)
        assert page.evaluate(_AS_IT_IS) == shown


_AS_IT_IS = "document.querySelector('#attribution canvas').toDataURL()"


def test_a_file_that_is_too_large_is_refused_in_words(
    address: str, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convscope.app.guard.LARGEST_BODY", 1_000)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://{address}/lab?image=3")
        settled(page)
        page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": bytes(2_000)})
        until(page, "document.querySelector('#about-image').textContent.endsWith('the body has more than 0 MB')")


def test_a_comparison_goes_on_where_the_server_was_away(grid: Path, browser: Any) -> None:
    with served(grid) as address, browser.new_context() as context:
        page, closed = context.new_page(), list[int]()

        def first_closed(socket: Any) -> None:
            socket.connect_to_server()
            if len(closed) < 2:
                closed.append(1)
                socket.close()

        page.route_web_socket("**/lab/socket", first_closed)
        page.goto(f"http://{address}/compare?run=0&with=1")
        until(page, "document.querySelector('#both').textContent.includes('does not answer')")
        until(
            page, "[...document.querySelectorAll('#both figcaption')].every((e) => e.textContent.includes('evidence'))"
        )


def test_the_table_of_runs_stays_sorted_as_it_follows_a_training(grid: Path, browser: Any) -> None:
    going = grid / "runs" / "0000-s0"
    for name in ("model.safetensors", "metrics.json", "predictions.safetensors"):
        (going / name).unlink()
    (going / "checkpoint.safetensors").touch()
    with served(grid / "runs") as address, browser.new_context() as context:
        page = context.new_page()
        page.clock.install()
        page.goto(f"http://{address}/runs")
        page.click("#runs-table th button:text('test accuracy')")
        page.click("#runs-table th button:text('test accuracy')")
        with page.expect_response("**/runs"):
            page.clock.fast_forward(3000)
        page.wait_for_timeout(300)
        assert page.locator("#runs-table [aria-sort=ascending]").inner_text().startswith("test accuracy")
        assert page.evaluate("document.activeElement.textContent") == "test accuracy"
        page.goto(f"http://{address}/compare?run=1")
        assert page.locator("[data-goes=with] option").count() == 6  # of eight one is at work, and one is the other


def test_the_keyboard_draws(explore: Explorer) -> None:
    with explore("/lab?image=3") as page:
        settled(page)
        before = percents(page)
        page.locator("#picture").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        settled(page)
        assert percents(page) != before


def test_what_this_image_rests_on_leads_to_units(explore: Explorer) -> None:
    with explore("/lab?image=3") as page:
        page.locator("#matter a").first.click()
        page.wait_for_url("**/unit/**")
        assert page.locator("h1").inner_text().startswith("Unit ")


def test_questions_are_answered_beside_the_lab(explore: Explorer) -> None:
    with explore("/lab?image=3") as page:
        settled(page)
        page.click("#smallest")
        until(page, "/pixels/.test(document.querySelector('#question').textContent)")
        stroke(page, (0.2, 0.2), (0.7, 0.4))
        settled(page)
        page.click("#thousand")
        until(page, "/accuracy/.test(document.querySelector('#question').textContent)")


def test_a_unit_is_switched_off_and_on(explore: Explorer) -> None:
    with explore("/lab?image=3") as page:
        settled(page)
        before = percents(page)
        page.locator("nav >> text=Units").click()
        page.locator(".unit-card").first.click()
        page.click("#switch")
        page.wait_for_url("**off=**")
        assert "Switched off" in page.locator(".banner").first.inner_text()
        page.locator("nav >> text=Image lab").click()
        settled(page)
        page.locator("#image").fill("3")
        page.keyboard.press("Enter")
        settled(page)
        until(page, "document.querySelector('#about-image').textContent.includes('image 3')")
        assert "Still" in page.locator("#verdict").inner_text() or "Now" in page.locator("#verdict").inner_text()
        page.click("text=Switch on again")
        page.wait_for_url(lambda url: "off=" not in url)
        until(page, "document.querySelector('#about-image').textContent.includes('image 3')")  # it stays
        settled(page)
        assert percents(page) == before


def test_a_cell_of_the_matrix_opens_its_images(explore: Explorer) -> None:
    with explore("/overview") as page:
        matrix = page.locator("[data-matrix] canvas")
        matrix.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_url("**/images?true=0&predicted=1")


@pytest.mark.parametrize(
    "path", ["/runs", "/overview", "/lab?image=3", "/units", "/unit/conv1/0", "/images", "/api", "/map", "/mistakes"]
)
def test_pages_are_accessible_and_fit_a_phone(explore: Explorer, path: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with explore(path, width=390) as page:
        page.wait_for_timeout(600)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            found = [one for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
            assert found == [], [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]
        smallest = page.evaluate(
            "Math.min(...[...document.querySelectorAll('body *')].filter((e) => e.childNodes.length && [...e.childNodes]"
            ".some((n) => n.nodeType === 3 && n.textContent.trim()) && e.offsetParent).map((e) => parseFloat("
            "getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 12


def test_ten_mistakes_are_judged_by_the_keyboard(reported: Run, tmp_path: Path, browser: Any) -> None:
    run = open_run(shutil.copytree(reported.path, tmp_path / "judged"))
    data = run.load_data()
    answer_with(run, data, chosen_logits(data, range(12)))
    with served(run.path) as address, browser.new_context(viewport={"width": 1360, "height": 900}) as context:
        page = context.new_page()
        page.goto(f"http://{address}/mistakes")
        for n, key in enumerate("lamlamlaml", 1):
            page.keyboard.press(key)
            until(page, f"document.querySelector('#reviewed').textContent === '{n}'")
        assert page.locator("[aria-current=true] small").inner_text() == ""
        page.keyboard.press("p")
        page.keyboard.press("u")
        until(page, "document.querySelector('#reviewed').textContent === '9'")
        assert "%" in page.locator("#without-doubtful").inner_text()
    assert read_review(run)["verdict"].value_counts().to_dict() == {"label": 3, "ambiguous": 3, "model": 3}


def points_of(page: Any, address: str) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """What the map was given, and where on the page its points are, by its rule: the whole picture, 14 px from the edge."""
    until(page, "document.querySelector('#points')?.dataset.drawn > 0")
    found = json.loads(get(address, "/api/projection")[1])
    box = page.locator("#points").bounding_box()
    width, height = (box[side] - 2 for side in ("width", "height"))  # without its border
    (left, right), (low, high) = ((min(found[axis]), max(found[axis])) for axis in "xy")
    scale = min((width - 28) / (right - left), (height - 28) / (high - low))
    centre_x, centre_y = box["x"] + 1 + width / 2, box["y"] + 1 + height / 2
    return found, [
        (centre_x + (x - (left + right) / 2) * scale, centre_y - (y - (low + high) / 2) * scale)
        for x, y in zip(found["x"], found["y"], strict=True)
    ]


def drag(page: Any, *places: tuple[float, float]) -> None:
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def selected(page: Any) -> list[int]:
    return sorted(int(re.findall(r"image=(\d+)", link)[0]) for link in page.evaluate(
        "[...document.querySelectorAll('#images a')].map((each) => each.getAttribute('href'))"
    ))  # fmt: skip


def test_points_are_drawn_in_the_colours_of_their_classes(explore: Explorer, address: str) -> None:
    with explore("/map") as page:
        found, places = points_of(page, address)
        assert page.evaluate("Number(document.querySelector('#points').dataset.drawn)") == len(found["row"])
        assert f"keeps {100 * found['kept']:.1f} %" in page.locator("#kept").inner_text()
        box = page.locator("#points").bounding_box()
        alone = max(
            range(len(places)), key=lambda i: min(math.dist(places[i], p) for k, p in enumerate(places) if k != i)
        )
        x, y = (place - box[side] - 1 for place, side in zip(places[alone], "xy", strict=True))
        pixel = page.evaluate(
            f"[...document.querySelector('#points').getContext('2d').getImageData({round(x)}, {round(y)}, 1, 1).data]"
        )
        colour = page.evaluate(
            f"getComputedStyle(document.documentElement).getPropertyValue('--class-{found['class'][alone]}').trim()"
        )
        assert pixel[:3] == pytest.approx(
            [int(colour[k : k + 2], 16) for k in (1, 3, 5)], abs=4
        )  # drawn half transparent


@pytest.mark.parametrize("tool", ["lasso", "rectangle"])
def test_what_is_drawn_around_is_selected(explore: Explorer, address: str, tool: str) -> None:
    with explore("/map") as page:
        found, places = points_of(page, address)
        page.locator(f"label:has-text('{tool}')").click()
        box = page.locator("#points").bounding_box()
        x, y = next(
            (x, y) for x, y in places
            if box["x"] + 50 < x < box["x"] + box["width"] - 70 and box["y"] + 60 < y < box["y"] + box["height"] - 40
        )  # fmt: skip
        top, right, low, left = y - 50.4, x + 60.3, y + 30.2, x - 40.6
        corners = [(left, top), (right, top), (right, low), (left, low)]
        drag(page, *(corners if tool == "lasso" else corners[::2]))
        inside = [found["row"][i] for i, (x, y) in enumerate(places) if left < x < right and top < y < low]
        assert 0 < len(inside) < len(places)
        assert page.locator("#selected").inner_text().startswith(f"{len(inside)} image")
        assert selected(page) == sorted(inside)[:60]
        counts = {
            found["classes"][k]: sum(found["class"][row] == k for row in inside)
            for k in {found["class"][row] for row in inside}
        }
        shown = page.evaluate(
            "[...document.querySelectorAll('#counts .map-row')].map((each) => [each.children[0].textContent, "
            "parseInt(each.children[2].textContent)])"
        )
        assert dict(shown) == counts
        assert page.evaluate("Number(document.querySelector('#points').dataset.lassoMs)") < 50
        page.locator("#images a").first.click()
        page.wait_for_url(f"**/lab?image={min(inside)}")


def test_the_map_by_the_keyboard_and_its_state_in_the_address(explore: Explorer, address: str) -> None:
    with explore("/map") as page:
        places = points_of(page, address)[1]
        box = page.locator("#points").bounding_box()
        page.locator("#points").focus()
        for key in ("+", "Enter"):
            page.keyboard.press(key)
        centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        reach = [(box[side] - 2) / 2 / 1.3 for side in ("width", "height")]
        inside = [i for i, place in enumerate(places) if all(abs(place[k] - centre[k]) < reach[k] for k in (0, 1))]
        assert 0 < len(inside) < len(places)
        assert page.locator("#selected").inner_text().startswith(f"{len(inside)} image")
        page.keyboard.press("Escape")
        assert page.locator("#selected").inner_text() == "No selection"
        page.select_option("#colour", "error")
        page.select_option("#layer", "conv1")
        page.wait_for_url("**/map?layer=conv1&colour=error")
        until(page, "document.querySelector('#points')?.dataset.drawn > 0")
        assert page.locator("#colour").input_value() == "error"
        assert "misclassified" in page.locator("#legend").inner_text()
        assert "conv1" in page.locator("#kept").inner_text()


def test_names_that_are_read_from_the_right_keep_their_places_in_a_sentence(explore: Explorer) -> None:
    places = """async () => {
      const { isolated } = await import("/static/common.js"), line = document.createElement("p");
      line.textContent = `${isolated("שלום")} → ${isolated("ערבית")}`;
      document.body.append(line);
      const left = (letter) => {
        const range = document.createRange(), at = line.textContent.indexOf(letter);
        range.setStart(line.firstChild, at);
        range.setEnd(line.firstChild, at + 1);
        return range.getBoundingClientRect().left;
      };
      return [left("ש"), left("→"), left("ע")];
    }"""
    with explore("/runs") as page:
        true, arrow, predicted = page.evaluate(places)
        assert true < arrow < predicted
