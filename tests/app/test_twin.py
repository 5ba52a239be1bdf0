"""The copy of the explorer's pages in a folder: whole, with the server's figures, and alive in a browser without one."""

from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from convscope.app import ExploredRun, write_twin
from convscope.app.questions import QUESTIONS
from convscope.compute import write_folder_whole
from convscope.errors import RunFolderError, WriteError
from convscope.runs import METRICS, Run, open_run
from tests.cli.conftest import Command, command  # noqa: F401 (a fixture)
from tests.planted import answer_with, chosen_logits


@pytest.fixture(scope="module")
def copied(reported: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with ten mistakes and a copy of its explorer."""
    folder = tmp_path_factory.mktemp("copied") / "run"
    run = open_run(shutil.copytree(reported.path, folder))
    data = run.load_data()
    answer_with(run, data, chosen_logits(data, range(10)))
    assert write_twin(run) == str(folder / "explorer" / "index.html")
    return run


class _Addresses(HTMLParser):
    """What a page leads to or loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if name in ("href", "src") and value]


def test_every_address_is_a_file_of_the_folder(copied: Run) -> None:
    folder = copied.path / "explorer"
    pages = list(folder.glob("*.html"))
    assert {"index.html", "map.html", "mistakes.html", "examples.html", "units.html", "unit-0-7.html"} <= {
        p.name for p in pages
    }
    for page in pages:
        reader = _Addresses()
        reader.feed(page.read_text("utf-8"))
        for address in reader.found:
            file, _, place = address.partition("#")
            assert address.startswith(("data:", "#")) or (folder / file).is_file(), (page.name, address)
            if file.endswith(".html") and place:
                assert f'id="{place}"' in (folder / file).read_text("utf-8")


def test_a_units_page_has_the_strongest_images_of_the_scan(copied: Run) -> None:
    patches, statistics = QUESTIONS["strongest"](ExploredRun(copied))
    [layer] = patches
    for unit in range(len(patches[layer].count)):
        page = (copied.path / "explorer" / f"unit-0-{unit}.html").read_text("utf-8")
        rows = [int(row) for row in re.findall(r"<figcaption[^>]*>image (\d+)<br>", page)]
        assert rows == patches[layer].index[unit, : int(patches[layer].count[unit])].tolist()[:20]
    assert statistics[layer].dead.tolist() == [
        "never fires" in (copied.path / "explorer" / f"unit-0-{unit}.html").read_text("utf-8")
        for unit in range(len(patches[layer].count))
    ]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_from_disk(copied: Run, browser: Any, width: int) -> None:
    folder, wrong = copied.path / "explorer", list[str]()
    with browser.new_context(viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda one: wrong.append(one.text) if one.type in {"error", "warning"} else None)
        page.on("request", lambda one: None if one.url.startswith(("file:", "data:")) else wrong.append(one.url))
        page.goto((folder / "index.html").as_uri())
        page.locator(".chart canvas, .chart svg").first.wait_for()
        page.get_by_role("link", name="Map").click()
        page.locator("canvas[data-drawn]").wait_for()
        page.locator("#points").focus()
        page.keyboard.press("Enter")
        assert "selected" in page.locator("#selected").inner_text()
        assert page.locator("#images img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
        page.get_by_role("link", name="Mistakes").click()
        first = page.locator("#what").inner_text()
        page.locator("#nearest img").first.wait_for()
        page.keyboard.press("n")
        assert page.locator("#where").inner_text().startswith("2 of ")
        page.keyboard.press("l")
        assert "convscope serve" in page.locator("#problem").inner_text()
        assert first
        page.get_by_role("link", name="Units").click()
        page.locator(".unit-card").nth(2).click()
        page.wait_for_url(re.compile(r"unit-0-2\.html"))  # its keys are heard once it is loaded
        page.keyboard.press("ArrowRight")
        page.wait_for_url(re.compile(r"unit-0-3\.html"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert wrong == []


def test_the_command_writes_it_beside_the_report(reported: Run, tmp_path: Path, command: Command) -> None:  # noqa: F811
    shutil.copytree(reported.path, tmp_path / "run")
    found = command("report", tmp_path / "run", "--explore")
    assert found.status == 0
    assert f"explorer: {tmp_path / 'run' / 'explorer' / 'index.html'}" in found.out
    refused = command("report", tmp_path, "--explore")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "holds several runs; give the folder of one" in refused.complaint


def test_a_run_that_is_not_evaluated_has_none(reported: Run, tmp_path: Path) -> None:
    shutil.copytree(reported.path, tmp_path / "run")
    (tmp_path / "run" / METRICS).unlink()
    with pytest.raises(RunFolderError, match="convscope evaluate makes it"):
        write_twin(open_run(tmp_path / "run"))
    assert not (tmp_path / "run" / "explorer").exists()


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder_whole(tmp_path / "some", {"a.txt": "1", "deep/b.bin": b"2"})
    assert (tmp_path / "some" / "deep" / "b.bin").read_bytes() == b"2"
    write_folder_whole(tmp_path / "some", {"c.txt": "ü"})
    assert [file.name for file in tmp_path.rglob("*")] == ["some", "c.txt"]
    written = []

    def full(self: Path, content: bytes) -> int:
        written.append(self)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="No space left on device; free space there"):
        write_folder_whole(tmp_path / "some", {"d.txt": "1", "e.txt": "2"})
    assert [file.name for file in tmp_path.rglob("*")] == ["some", "c.txt"]
    assert os.listdir(tmp_path) == ["some"]


def test_a_folder_stays_where_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    write_folder_whole(tmp_path / "some", {"a.txt": "1"})
    with pytest.raises(WriteError, match="No such file or directory"):
        write_folder_whole(tmp_path / "some", {})
    assert (tmp_path / "some" / "a.txt").read_text() == "1"
    assert os.listdir(tmp_path) == ["some"]
