"""The page of every filter: its figures are the scans', and a reader can open, sort and link to what is there."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect

from convscope.compute import threads
from convscope.data import DataBundle, ImageSet, load_data
from convscope.draw import photo
from convscope.nets import build_net
from convscope.report import ReportedRun, filters as filters_module, sprites, visualization, write_report
from convscope.report.filters import effects_of, filters, filters_page, has_filters
from convscope.report.page import Photo
from convscope.report.visualization import Visualizations
from convscope.runs import FILTERS, REPORT, Recipe, Run, open_run
from convscope.scans import LayerEffects, evaluate
from convscope.scope import Scope
from convscope.training import Silent, train
from tests.conftest import write_spots
from tests.lenses.lens_networks import replaced

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


def test_of_a_convolution_without_a_relu_no_unit_is_called_dead() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.Flatten())
    with torch.no_grad():
        net[0].weight[:, 0, 0, 0], net[0].bias[:] = torch.tensor([1.0, -1.0]), torch.tensor([0.0, -1.0])
    images = torch.rand(6, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    scope = Scope(net, torch.zeros(1, 1, 4, 5))
    patches, statistics = scope.top_patches(images, "0")["0"], scope.statistics(images, "0")["0"]
    words = filters_module._words(filters_module._Layer("0", patches, statistics, 2))
    assert words == ["No two units correlate by 0.95 or more."]


def test_what_excites_the_units_is_kept(planted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = ReportedRun(planted, planted.load_data())
    monkeypatch.setattr(Scope, "maximize", lambda *asked, **settings: pytest.fail("made again"))
    found = filters(subject)
    assert [layer["visualization"]["units"] for layer in found["layers"]] == [8, 6]


@pytest.mark.slow
def test_visualizations_are_the_same_whatever_threads_share_them(planted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visualization, "_AT_ONCE", 3)
    subject, asked, used = ReportedRun(planted, planted.load_data()), {"conv1": 8, "conv2": 6}, []
    made = visualization._pictures

    def noted(subject: ReportedRun, layer: str, units: list[int]) -> Any:
        used.append((current_thread() is main_thread(), torch.get_num_threads()))
        return made(subject, layer, units)

    monkeypatch.setattr(visualization, "_pictures", noted)
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(visualization._visualize(subject, asked))
    assert used[5:] == [(True, 2), *[(False, 1)] * 4]  # of five parts the first alone
    for layer, n in asked.items():
        one, two = (each[layer] for each in found)
        assert torch.equal(one.pictures, two.pictures)
        assert len(one.pictures) == n
        assert torch.equal(one.activation, two.activation)


def test_an_image_is_found_in_its_sheet(planted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    test, rows = planted.load_data().test, list(range(20, 0, -1))
    monkeypatch.setattr(sprites, "_SHEET_PX", 24)  # nine on each
    sheet = sprites.image_sheets(test, rows, 10**6)
    assert (sheet["columns"], sheet["per"], len(sheet["src"])) == (3, 9, 3)
    parts = [Image.open(io.BytesIO(photo(source.picture))).convert("RGB") for source in sheet["src"]]
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


@pytest.mark.parametrize(("shape", "size"), [((224, 112), (128, 64)), ((128, 64), (128, 64)), ((28, 28), (28, 28))])
def test_visualizations_of_photographs_are_as_small_as_they_are_shown(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    grey = torch.arange(3, dtype=torch.uint8).mul(100)[:, None, None, None].expand(3, *shape, 3).contiguous()
    sheet = filters_module._visualization(Visualizations("conv1", "relu1", grey, torch.arange(3.0)))["sheet"]
    [source] = sheet["src"]
    assert (sheet["height"], sheet["width"], sheet["columns"]) == (*size, 3)
    assert isinstance(source, Photo) == (shape != size)
    whole = source.picture if isinstance(source, Photo) else source
    assert whole.shape == (size[0], 3 * size[1], 3)
    assert whole[:, :: size[1], 0].tolist() == [[0, 100, 200]] * size[0]


def test_of_many_units_the_first_of_each_layer_are_on_the_page(
    planted: Run, open_page: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters_module, "_MOST_UNITS", 12)  # of 14
    monkeypatch.setattr(filters_module, "_MOST_OF_A_LAYER", 5)
    (tmp_path / FILTERS).write_text(filters_page(ReportedRun(planted, planted.load_data())))
    with open_page(tmp_path / FILTERS) as page:
        expect(page.locator(".units a")).to_have_count(5)
        expect(page.locator(".facts")).to_contain_text("8 units")
        command = re.escape(f"convscope look {planted.path} top_patches --layer ")
        expect(page.locator(".facts")).to_contain_text(
            re.compile(rf"The first 5 units are on this page; {command}\S+ --unit N shows any\.")
        )


def test_text_from_outside_cannot_become_markup(planted: Run) -> None:
    data = planted.load_data()
    data.test.classes["class"] = ("</script><script>alert(1)</script>", *data.test.classes["class"][1:])
    assert "<script>alert(1)" not in filters_page(ReportedRun(planted, data))


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
    assert not has_filters(ReportedRun(run, data))
    write_report(run, data)
    assert not (run.path / FILTERS).exists()
    assert FILTERS not in (run.path / REPORT).read_text()


# ---- in a browser ----


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["laptop light", "phone dark"])
def page(request: pytest.FixtureRequest, open_page: Callable[..., Any], planted: Run) -> Any:
    width, scheme = request.param
    with open_page(planted.path / FILTERS, width=width, scheme=scheme) as page:
        yield page


def _narrow(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.browser
def test_a_click_opens_a_card_and_escape_closes_it(page: Any, planted: Run) -> None:
    assert _narrow(page)
    expect(page.locator(".units a")).to_have_count(8)
    page.locator(".units a").nth(1).click()
    card = page.locator("dialog")
    expect(card.locator("h2")).to_have_text(re.compile(", unit 1$"))
    expect(page).to_have_url(re.compile("-1$"))
    layer = _found(planted)["layers"][0]
    assert len(layer["image"][1]) == 20
    expect(card.locator(".strongest figure")).to_have_count(12)
    expect(card.locator(".responses tbody tr")).to_have_count(20)
    expect(card).to_contain_text("nearly the same as unit 5")
    assert _narrow(page)
    assert card.evaluate("(d) => d.scrollWidth <= d.clientWidth")
    page.keyboard.press("ArrowRight")
    expect(card.locator("h2")).to_have_text(re.compile(", unit 2$"))
    expect(card).to_contain_text("This unit is dead")
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(page.locator(".units a:focus")).to_have_attribute("href", re.compile("-2$"))


@pytest.mark.browser
def test_the_keyboard_opens_a_card(page: Any) -> None:
    page.locator(".units a").nth(3).focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog h2")).to_have_text(re.compile(", unit 3$"))


@pytest.mark.browser
def test_an_address_opens_a_layer_and_a_unit(open_page: Callable[..., Any], planted: Run) -> None:
    second = _found(planted)["layers"][1]["name"]
    with open_page(planted.path / FILTERS, f"#{second}-4") as page:
        expect(page.locator("dialog h2")).to_have_text(f"{second}, unit 4")
        page.locator("dialog .close").click()
        expect(page).to_have_url(re.compile(f"#{re.escape(second)}$"))
        expect(page.locator(".units a")).to_have_count(6)
    with open_page(planted.path / FILTERS, f"#{second}-99") as page:  # there is none
        expect(page.locator(".units a")).to_have_count(6)
        expect(page.locator("dialog")).to_be_hidden()


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
    expect(page.locator(".units a")).to_have_count(8 - len(layer["dead"]))
    heading = page.locator("#part-figures thead th", has_text="mean response")
    values = "[...document.querySelectorAll('#part-figures tbody tr')].map((row) => +row.cells[1].dataset.value)"
    heading.locator("button").click()
    assert page.evaluate(values) == sorted(layer["response_mean"], reverse=True)
    heading.locator("button").press("Enter")
    assert page.evaluate(values) == sorted(layer["response_mean"])
    expect(heading).to_have_attribute("aria-sort", "ascending")


@pytest.mark.browser
def test_a_dead_unit_says_so_on_the_sheet(page: Any) -> None:
    link = page.locator(".units a").nth(DEAD)
    expect(link).to_contain_text("never fires")
    expect(link).to_have_attribute("aria-label", re.compile("dead"))
    expect(page.locator(".units a").nth(1)).to_contain_text("≈ 5")


def test_effects_are_those_of_silence_behind_the_relu(reported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = ReportedRun(reported, reported.load_data())
    assert effects_of(subject) is None  # 24 images are too few
    monkeypatch.setattr(filters_module, "_FEWEST_EFFECT_IMAGES", 10)
    found, net, test = effects_of(subject), subject.scope.net, subject.data.test
    assert found is not None
    assert list(found) == ["conv1"]
    labels, images = test.targets_of("class"), subject.scope.prepare(test.images())
    before = net(images).argmax(1) == labels
    for unit, effect in enumerate(found["conv1"]):
        assert effect is not None
        with replaced(net, "relu1", {unit: 0}):
            after = net(images).argmax(1) == labels
        assert (effect["lost"], effect["gained"]) == (int((before & ~after).sum()), int((after & ~before).sum()))
        assert effect["accuracy"] == pytest.approx(float(after.float().mean() - before.float().mean()))
        assert effect["off"] == "0 behind the ReLU"


def test_an_effect_names_the_class_that_loses_most() -> None:
    """Without the unit 10 of 10 become 8, 3 of 20 become 9, and 6 of 10 become 1; a fourth class has no image."""
    found = LayerEffects(
        "conv2", "zero_weights", list("abcd"), torch.tensor([10, 20, 10, 0]), torch.tensor([10, 3, 6, 0]),
        torch.full((4,), 0.5, dtype=torch.float64), torch.tensor([[2, 0, 5, 0]]), torch.tensor([[0, 6, 0, 0]]),
        torch.full((1, 4), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), torch.zeros(0, 5).long(),
        torch.ones(1, dtype=torch.bool), None,
    )  # fmt: skip
    effect = filters_module._effect(found, 0, "0 behind the ReLU")
    assert (effect["class"], effect["class_accuracy"]) == ("c", pytest.approx(-0.5))
    assert (effect["lost"], effect["gained"], effect["images"]) == (7, 6, 40)
    assert effect["accuracy"] == pytest.approx(-1 / 40)


def test_a_class_without_images_is_not_the_one_that_loses_most() -> None:
    """Its accuracy is no number, which JSON does not know: one such entry would leave the page blank."""
    found = LayerEffects(
        "conv2", "zero_weights", list("ab"), torch.tensor([0, 10]), torch.tensor([0, 5]),
        torch.full((2,), 0.5, dtype=torch.float64), torch.tensor([[0, 0]]), torch.tensor([[0, 1]]),
        torch.full((1, 2), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), torch.zeros(0, 5).long(),
        torch.ones(1, dtype=torch.bool), None,
    )  # fmt: skip
    effect = filters_module._effect(found, 0, "0 behind the ReLU")
    assert (effect["class"], effect["class_accuracy"]) == (None, 0.0)


@pytest.mark.browser
def test_effects_are_shown_where_they_are_known(open_page: Callable[..., Any], planted: Run, tmp_path: Path) -> None:
    subject = ReportedRun(planted, planted.load_data())
    name = _found(planted)["layers"][0]["name"]
    known = {
        "accuracy": -0.0312,
        "low": -0.05,
        "high": -0.01,
        "class": "1",
        "class_accuracy": -0.2,
        "lost": 5,
        "gained": 2,
        "off": "0 behind the ReLU",
    }
    (tmp_path / FILTERS).write_text(filters_page(subject, {name: [None, known, *[None] * 6]}))
    with open_page(tmp_path / FILTERS, f"#{name}-1") as page:
        effect = page.locator("dialog .effect")
        expect(effect).to_contain_text("−3.12 points (95 %: −5.00 to −1.00)")
        expect(effect).to_contain_text("5 images become wrong, 2 right")
        expect(page.locator("dialog h3", has_text="Ablation")).to_have_text("Ablation: 0 behind the ReLU")
        page.keyboard.press("ArrowLeft")
        expect(effect).to_have_count(0)
        page.keyboard.press("Escape")
        expect(page.locator("#part-figures thead")).to_contain_text("effect, points")
