"""The page of every filter: its figures are the scans', and a reader can open, sort and link to what is there."""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convscope.data import DataBundle, ImageSet, load_data
from convscope.nets import build_net
from convscope.report import Subject, sprites, write_report
from convscope.report.filters import filters, filters_page, has_filters
from convscope.runs import FILTERS, REPORT, Recipe, Run, open_run
from convscope.scans import evaluate
from convscope.scope import Scope
from convscope.training import Silent, train
from tests.conftest import write_spots

DEAD, COPY = 2, 5


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two convolutions; unit 2 of the first is made dead, unit 5 a copy of unit 1."""
    folder = tmp_path_factory.mktemp("planted")
    data = load_data(str(write_spots(folder / "spots.npz", 360)))
    torch.manual_seed(0)
    net = build_net("c8 M c6 M f8", classes=3, channels=3, image_size=8)
    first = next(module for module in net.modules() if isinstance(module, torch.nn.Conv2d))
    run = train(net, data, Recipe(epochs=1, batch=30, rate=0.001), folder / "run", device="cpu", watcher=Silent())
    with torch.no_grad():
        first.weight[DEAD], first.bias[DEAD] = 0, -1
        first.weight[COPY], first.bias[COPY] = first.weight[1].clone(), first.bias[1].clone()
    weights = run.path / "model.safetensors"
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(weights, framework="pt") as file:
        card = file.metadata()
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, weights, card)
    run = open_run(run.path)
    evaluate(run, data)
    write_report(run, data)
    return run


def _found(run: Run) -> dict[str, Any]:
    """What the page holds."""
    text = (run.path / FILTERS).read_text()
    return json.loads(re.search(r'id="found">(.*?)</script>', text, re.S)[1])


def test_figures_are_those_of_the_scans(planted: Run) -> None:
    found, scope, test = _found(planted), Scope(planted), planted.load_data().test
    patches = scope.top_patches(test, ["conv"], top=20, score="max")
    statistics = scope.statistics(test, ["conv"])
    assert [layer["name"] for layer in found["layers"]] == list(patches)
    rows = torch.tensor(found["images"]["row"])
    assert torch.equal(torch.tensor(found["images"]["class"]), test.targets_of("class")[rows])
    for layer in found["layers"]:
        ranked, figures = patches[layer["name"]], statistics[layer["name"]]
        for unit in range(layer["units"]):
            n = int(ranked.count[unit])
            assert rows[layer["image"][unit]].tolist() == ranked.index[unit, :n].tolist()
            assert layer["response"][unit] == pytest.approx(ranked.response[unit, :n].tolist(), rel=1e-3)
            assert list(zip(layer["row"][unit], layer["column"][unit], strict=True)) == [
                (row, column) for row, column in ranked.position[unit, :n].tolist()
            ]
            assert layer["box"][unit] == ranked.box[unit, : min(n, 12)].flatten().tolist()
        for name in ("mean", "deviation", "low", "zeros", "peak", "selectivity"):
            assert layer[name] == pytest.approx(getattr(figures, name).tolist(), rel=1e-3, abs=1e-9)
        assert layer["response_mean"] == pytest.approx(ranked.mean.tolist(), rel=1e-3)
        assert layer["response_max"] == pytest.approx(ranked.largest.tolist(), rel=1e-3)
        assert layer["field"] == list(scope.receptive_field(layer["name"]).size)


def test_dead_and_double_units_are_named(planted: Run) -> None:
    first = _found(planted)["layers"][0]
    assert DEAD in first["dead"]
    assert first["image"][DEAD] == []
    assert first["twins"]["1"] == [COPY, 1.0]
    assert first["twins"][str(COPY)] == [1, 1.0]
    words = " ".join(first["words"])
    assert re.search(rf"never fires? on the 36 test images.*\b{DEAD}\b|Unit {DEAD} never fires", words)
    assert f"1 and {COPY} (1.00)" in words


def test_what_excites_the_units_is_kept(planted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(planted, planted.load_data())
    monkeypatch.setattr(Scope, "maximize", lambda *asked, **settings: pytest.fail("made again"))
    found = filters(subject)
    assert [layer["climbed"]["units"] for layer in found["layers"]] == [8, 6]


def test_an_image_is_found_in_its_sheet(planted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    test, rows = planted.load_data().test, list(range(20, 0, -1))
    monkeypatch.setattr(sprites, "_SHEET_PX", 24)  # nine on each
    sheet = sprites.image_sheets(test, rows, 10**6)
    assert (sheet["columns"], sheet["per"], len(sheet["src"])) == (3, 9, 3)
    parts = [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB") for source in sheet["src"]]
    for n, row in enumerate(rows):
        part, at = divmod(n, sheet["per"])
        left, top = (at % 3) * sheet["pitch"][0], (at // 3) * sheet["pitch"][1]
        shown = np.asarray(parts[part].crop((left, top, left + 8, top + 8)), dtype=float)
        assert np.abs(shown - 255 * test[row][0].permute(1, 2, 0).numpy()).mean() < 12


def test_large_images_become_smaller_and_boxes_with_them() -> None:
    pixels, index = torch.zeros(3, 3, 100, 200, dtype=torch.uint8), torch.arange(3)
    images = ImageSet(pixels, index, {"class": torch.zeros(3, dtype=torch.int64)}, {"class": ("a",)})
    sheet = sprites.image_sheets(images, [0, 1, 2], 10**6)
    assert (sheet["width"], sheet["height"], sheet["pitch"], sheet["scale"]) == (96, 48, [96, 48], [0.48, 0.48])


def test_text_from_outside_cannot_become_markup(planted: Run) -> None:
    data = planted.load_data()
    data.test.classes["class"] = ("</script><script>alert(1)</script>", *data.test.classes["class"][1:])
    assert "<script>alert(1)" not in filters_page(Subject(planted, data))


def test_the_page_is_one_small_file_linked_from_the_report(planted: Run) -> None:
    text = (planted.path / FILTERS).read_text()
    links = re.findall(r'(?:src|href)="([^"]*)"', text.split('id="found"')[0])
    assert set(links) <= {"data:,", REPORT, *(link for link in links if link.startswith("#"))}
    assert "@import" not in text
    assert len(text) < 300_000
    assert f'href="{FILTERS}"' in (planted.path / REPORT).read_text()


def test_a_network_without_convolutions_has_no_page(spots: Callable[..., DataBundle], tmp_path: Path) -> None:
    data = spots(120)
    run = train(build_net("f8", classes=3, channels=3, image_size=8), data, Recipe(epochs=1, batch=24), tmp_path / "run",
                device="cpu", watcher=Silent())  # fmt: skip
    evaluate(run, data, "cpu")
    assert not has_filters(Subject(run, data))
    write_report(run, data)
    assert not (run.path / FILTERS).exists()
    assert FILTERS not in (run.path / REPORT).read_text()


# ---- in a browser ----


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["laptop light", "phone dark"])
def page(request: pytest.FixtureRequest, browser: Any, planted: Run) -> Any:
    yield from _open(browser, (planted.path / FILTERS).resolve().as_uri(), *request.param)


def _open(browser: Any, address: str, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
    """The page, failing on any error in it and on any request that leaves the file."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: wrong.append(request.url) if request.url[:5] not in {"file:", "data:"} else None)
    page.goto(address)
    page.wait_for_selector(".units a")
    yield page
    context.close()
    assert wrong == []


def _narrow(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.browser
def test_a_click_opens_a_card_and_escape_closes_it(page: Any, planted: Run) -> None:
    assert _narrow(page)
    assert page.locator(".units a").count() == 8
    page.locator(".units a").nth(1).click()
    card = page.locator("dialog")
    assert card.locator("h2").inner_text().endswith(", unit 1")
    assert page.url.endswith("-1")
    layer = _found(planted)["layers"][0]
    assert card.locator(".strongest figure").count() == 12
    assert card.locator(".responses tbody tr").count() == len(layer["image"][1]) == 20
    assert "nearly the same as unit 5" in card.inner_text()
    assert _narrow(page)
    assert card.evaluate("(d) => d.scrollWidth <= d.clientWidth")
    page.keyboard.press("ArrowRight")
    assert card.locator("h2").inner_text().endswith(", unit 2")
    assert "This unit is dead" in card.inner_text()
    page.keyboard.press("Escape")
    assert not card.is_visible()
    assert page.evaluate("document.activeElement.getAttribute('href')").endswith("-2")


@pytest.mark.browser
def test_the_keyboard_opens_a_card(page: Any) -> None:
    page.locator(".units a").nth(3).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.locator("dialog h2").inner_text().endswith(", unit 3")


@pytest.mark.browser
def test_an_address_opens_a_layer_and_a_unit(browser: Any, planted: Run) -> None:
    second = _found(planted)["layers"][1]["name"]
    address = f"{(planted.path / FILTERS).resolve().as_uri()}#{second}"
    for page in _open(browser, f"{address}-4"):
        assert page.locator("dialog h2").inner_text() == f"{second}, unit 4"
        page.locator("dialog .close").click()
        assert page.url == address
        assert page.locator(".units a").count() == 6
    for page in _open(browser, f"{address}-99"):  # there is none
        assert not page.locator("dialog").is_visible()


@pytest.mark.browser
def test_pictures_are_drawn(page: Any) -> None:
    page.locator(".units a").first.click()
    page.wait_for_function("""[...document.querySelectorAll("dialog canvas, .units > :first-child canvas")].every((canvas) =>
        new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size > 2)""")
    named = page.evaluate("[...document.querySelectorAll('dialog canvas')].every((c) => c.getAttribute('aria-label'))")
    assert named


@pytest.mark.browser
def test_units_and_tables_sort(page: Any, planted: Run) -> None:
    layer = _found(planted)["layers"][0]
    page.locator(".sort").select_option("share of zeros")
    shown = [int(text) for text in page.locator(".units .name b").all_inner_texts()]
    assert [layer["zeros"][unit] for unit in shown] == sorted(layer["zeros"], reverse=True)
    page.locator(".living").check()
    assert page.locator(".units a").count() == 8 - len(layer["dead"])
    heading = page.locator("#part-figures thead th", has_text="mean response")
    values = "[...document.querySelectorAll('#part-figures tbody tr')].map((row) => +row.cells[1].dataset.value)"
    heading.locator("button").click()
    assert page.evaluate(values) == sorted(layer["response_mean"], reverse=True)
    heading.locator("button").press("Enter")
    assert page.evaluate(values) == sorted(layer["response_mean"])
    assert heading.get_attribute("aria-sort") == "ascending"


@pytest.mark.browser
def test_a_dead_unit_says_so_on_the_sheet(page: Any) -> None:
    link = page.locator(".units a").nth(DEAD)
    assert "never fires" in link.inner_text()
    assert "dead" in link.get_attribute("aria-label")
    assert "≈ 5" in page.locator(".units a").nth(1).inner_text()


@pytest.mark.browser
def test_effects_are_shown_where_they_are_known(browser: Any, planted: Run, tmp_path: Path) -> None:
    subject = Subject(planted, planted.load_data())
    name = _found(planted)["layers"][0]["name"]
    known = {
        "accuracy": -0.0312,
        "low": -0.05,
        "high": -0.01,
        "class": "1",
        "class_accuracy": -0.2,
        "lost": 5,
        "gained": 2,
    }
    (tmp_path / FILTERS).write_text(filters_page(subject, {name: [None, known, *[None] * 6]}))
    for page in _open(browser, f"{(tmp_path / FILTERS).as_uri()}#{name}-1"):
        text = page.locator("dialog .effect").inner_text()
        assert "−3.12 points (95 %: −5.00 to −1.00)" in text
        assert "5 images become wrong, 2 right" in text
        page.keyboard.press("ArrowLeft")
        assert page.locator("dialog .effect").count() == 0
        page.keyboard.press("Escape")
        assert "effect, points" in page.locator("#part-figures thead").inner_text()
