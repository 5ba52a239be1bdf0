"""All pages for readers with a keyboard, a screen reader, a phone, or weak eyes: axe-core, and what it cannot see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from convscope import courses
from convscope.graph import anatomy
from convscope.nets import build_net
from convscope.report import write_comparison, write_study_report
from convscope.report.page import static
from convscope.runs import FILTERS, REPORT, Run
from convscope.study import compare
from tests.contrast import LEAST, contrast, mixed, rgb
from tests.planted import Plant
from tests.report.made import make_run

pytestmark = pytest.mark.browser
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
SCROLLING = """[...document.querySelectorAll(".scroll")]
    .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)"""


def found_by_axe(page: Any) -> list[str]:
    """Rule, weight and place of each finding, also of those that axe-core holds for minor."""
    return [
        f"{one['id']} ({one['impact']}): {node['target']}"
        for one in Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        for node in one["nodes"]
    ]


@pytest.fixture
def report(reported: Run) -> Path:
    return reported.path / REPORT


@pytest.fixture
def report_96(reported_96: Run) -> Path:
    return reported_96.path / REPORT


@pytest.fixture
def filters(reported: Run) -> Path:
    return reported.path / FILTERS


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Names of settings that are longer than there is room, and differ at their ends; some runs diverged."""
    generator = np.random.default_rng(0)
    for place, (width, norm, rate) in enumerate((w, n, r) for w in (4, 8) for n in (True, False) for r in (1e-4, 1e-3)):
        for seed in (0, 1):
            state = "diverged" if (place, seed) == (3, 1) else "finished"
            options = {"width": width, "batch_norm": norm, "kernel": 3 + 2 * (place % 2), "dropout": 0.25 * (place % 3)}
            make_run(tmp_path / f"{place:04d}-s{seed}", float(generator.uniform(0.6, 0.9)), seed=seed, rate=rate, state=state,
                     message="the loss is infinite", parameters=1000 * width, **options)  # fmt: skip
    return write_study_report(tmp_path)


@pytest.fixture
def reproduction(repeated: Path) -> Path:
    [folder] = [path.parent for path in repeated.glob("*/*/study.yaml")]
    return write_study_report(folder, courses.study_sections(folder))


@pytest.fixture
def comparison(plant: Plant, tmp_path: Path) -> Path:
    wrong = {("narrow", 0): 40, ("narrow", 1): 44, ("wide", 0): 6, ("wide", 1): 9}
    runs = [
        plant(f"{name}-network-with-seed-{seed}", wrong=range(n), width=4 if name == "narrow" else 8, seed=seed)
        for (name, seed), n in wrong.items()
    ]
    return write_comparison(compare(runs), tmp_path / "compared.html")


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """What a notebook or a picture file shows: the table of a chain and of a network, and worked convolutions."""
    chain = courses.chain((3, 32, 32), "c8 M f10")
    net = anatomy(build_net("c8 M f10", classes=10), torch.zeros(1, 3, 32, 32))
    drawings = [courses.worked_drawing(courses.worked_example("report-e", padding=p)) for p in ("valid", "same")]
    parts = [chain._repr_html_(), net._repr_html_(), *drawings]
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>notebook</title><body style="background: white">'
    )
    path = tmp_path / "notebook.html"
    path.write_text(f"{head}<main><h1>notebook</h1>{''.join(parts)}</main></body></html>")
    return path


PAGES = ["report", "report_96", "filters", "study", "reproduction", "comparison", "notebook"]
LARGE = {"report_96", "notebook", "reproduction", "study", "comparison"}
"""Pages that take axe-core half a minute and more."""


@pytest.fixture
def screens(open_page: Callable[..., Any]) -> Callable[[Path], Iterator[Any]]:
    """A page at laptop and phone width, light and dark, with all that opens open."""

    def shown(file: Path) -> Iterator[Any]:
        for width in WIDTHS:
            with open_page(file, width=width) as page:
                page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
                for scheme in SCHEMES:
                    page.emulate_media(color_scheme=scheme)
                    expect(page.locator("[data-chart]:not(:has(svg[aria-hidden]))")).to_have_count(0)
                    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
                    yield page

    return shown


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in PAGES])
def test_axe_finds_nothing_and_what_scrolls_can_be_reached(
    name: str, request: pytest.FixtureRequest, screens: Callable[[Path], Iterator[Any]]
) -> None:
    for page in screens(request.getfixturevalue(name)):
        assert found_by_axe(page) == []
        boxes = page.evaluate(f"{SCROLLING}.map((e) => [e.tabIndex, e.getAttribute('role'), e.ariaLabel])")
        assert all(place == 0 and role == "group" and label for place, role, label in boxes)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth") or name == "notebook"


def test_axe_finds_nothing_on_the_card_of_a_unit(filters: Path, screens: Callable[[Path], Iterator[Any]]) -> None:
    for page in screens(filters):
        if not page.locator("dialog").is_visible():
            page.locator(".units a").first.click()
        expect(page.locator("dialog")).to_be_visible()
        assert found_by_axe(page) == []


def test_axe_is_heard(report: Path, open_page: Callable[..., Any]) -> None:
    """A page made worse has a finding, so that none on the others means something."""
    with open_page(report) as page:
        page.add_style_tag(content=".caption { color: #aaa; }")
        assert any(one.startswith("color-contrast (serious)") for one in found_by_axe(page))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("study", ["matrix means"]), ("report", ["matrix|more", "matrix|less"]), ("filters", ["heat"])],
)
def test_cells_are_read_at_every_depth_of_their_colour(
    name: str, kinds: list[str], request: pytest.FixtureRequest, open_page: Callable[..., Any]
) -> None:
    parts = []
    for table, _, cell in (kind.partition("|") for kind in kinds):
        cells = "".join(f'<td class="{cell}" style="--share:{step / 10}">12.3 %</td>' for step in range(11))
        parts.append(f'<table class="{table}"><tbody><tr>{cells}</tr></tbody></table>')
    parts += [
        f'<p style="background: var(--bar); color: var(--{ink})">12.3 %</p>' for ink in ("ink", "faint", "accent")
    ]
    with open_page(request.getfixturevalue(name)) as page:
        page.locator("main").evaluate("(e, html) => { e.innerHTML = `<h2>cells</h2>${html}`; }", "".join(parts))
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert page.locator("main td").count() == 11 * len(kinds)
            assert found_by_axe(page) == []


def test_figures_on_the_canvas_are_black_or_white_whichever_is_read(page_of_matrix: Any) -> None:
    colours, inks = page_of_matrix
    for (name, share), ink in inks:
        ground = mixed(rgb(colours[name]), rgb(colours["ground"]), share)
        assert contrast(rgb({"#000": "#000000", "#fff": "#ffffff"}[ink]), ground) >= LEAST, (name, share)


@pytest.fixture(params=["light", "dark"])
def page_of_matrix(request: pytest.FixtureRequest, report: Path, open_page: Callable[..., Any]) -> Any:
    """The colours of a page, and what `inkOn` of its script chooses on them: name and share → ink."""
    source = re.search(r"function inkOn.*?\n}\n", str(static("report.js")), re.S)
    assert source
    read = "const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();"
    with open_page(report, scheme=request.param) as page:
        return page.evaluate(f"""() => {{ {read} {source[0]}
            const names = ["accent", "warm"], shares = [...Array(51).keys()].map((k) => k / 50);
            return [Object.fromEntries([...names, "ground"].map((name) => [name, colour(name)])),
                names.flatMap((name) => shares.map((share) => [[name, share], inkOn(name, share)]))]; }}""")


def test_the_keyboard_sorts_and_says_how(report: Path, open_page: Callable[..., Any]) -> None:
    with open_page(report) as page:
        heading = page.locator("#classes .sortable thead th", has_text="recall")
        heading.locator("button").focus()
        page.keyboard.press("Enter")
        expect(heading).to_have_attribute("aria-sort", "descending")
        page.keyboard.press("Space")
        expect(heading).to_have_attribute("aria-sort", "ascending")
        assert page.locator("#classes .sortable thead th[aria-sort]").count() == 1


SORTED = [
    ["", "−2", "1e-05", "9", "10"], ["12.5 %", "99", "1,000"], ["false", "true"], ["adam", "c8 M", "c16 M"],
]  # fmt: skip


def test_cells_sort_as_numbers_or_words(report: Path, open_page: Callable[..., Any]) -> None:
    with open_page(report) as page:
        table = page.locator("#classes .sortable")
        for cells in SORTED:
            rows = "".join(f"<tr><td>{text}</td></tr>" for text in reversed(cells))
            table.evaluate("(one, rows) => { one.tBodies[0].innerHTML = rows; }", rows)
            heading = table.locator("thead th").first
            heading.locator("button").click()
            if heading.get_attribute("aria-sort") == "descending":
                heading.locator("button").click()
            assert table.locator("tbody td").all_text_contents() == cells


def test_a_wide_table_says_that_it_scrolls_until_its_end(report: Path, open_page: Callable[..., Any]) -> None:
    hint = "(e) => getComputedStyle(e, '::before').content"
    with open_page(report, width=390) as page:
        box = page.locator("#network .scroll:has(table)")
        assert "more to the right" in box.evaluate(hint)
        box.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelector('#network .scroll:has(table)').scrollLeft > 0")
        box.evaluate("(e) => { e.scrollLeft = 1e6; }")
        expect(box).not_to_have_class(re.compile("more-right"))
        assert "more to the left" in box.evaluate(hint)
        assert box.locator("tbody th").first.bounding_box()["x"] >= 0  # the name of the row stays
    with open_page(report) as page:
        assert page.locator("#classes .scroll").evaluate(hint) == "none"


def test_a_matrix_without_room_for_names_says_where_they_are(
    report_96: Path, report: Path, open_page: Callable[..., Any]
) -> None:
    with open_page(report_96, width=390) as page:
        note = page.locator(".unnamed")
        expect(note).to_contain_text("The names of 96 classes have no room here: touch or point at a cell")
        window = int(re.search(r"A window of (\d+) pixels", note.inner_text())[1])
        page.set_viewport_size({"width": window, "height": 900})
        expect(note).to_be_hidden()
    with open_page(report, width=390) as page:
        expect(page.locator(".unnamed")).to_be_hidden()


def test_charts_are_images_whose_names_have_the_figures(
    report: Path, reported: Run, open_page: Callable[..., Any]
) -> None:
    history = reported.history
    with open_page(report) as page:
        label = page.locator('[data-chart="curve-loss"]').get_attribute("aria-label")
    assert label.startswith("loss (nats) by epoch: train ")
    assert f"{history.train_loss.iloc[0]:.4f} at epoch 1 and {history.train_loss.iloc[-1]:.4f} at epoch 4" in label


def test_names_of_settings_stand_in_full_beside_the_chart(study: Path, open_page: Callable[..., Any]) -> None:
    with open_page(study, width=390) as page:
        expect(page.locator("#spread svg[aria-hidden]")).to_have_count(1)
        names = page.locator("#spread .role-axis-label text:has(tspan)").all()
        shown = {" ".join(name.locator("tspan").all_text_contents()) for name in names}
    whole = re.compile(r"width \d, batch_norm \w+, kernel \d, dropout [\d.]+, rate ([\d.]+)")
    rates = {float(whole.fullmatch(name)[1]) for name in shown}
    assert len(shown) == 8
    assert rates == {1e-4, 1e-3}
