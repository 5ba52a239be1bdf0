"""The documentation site: it builds without a warning, opens as files, and asks no other server for anything."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Opened = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(folder),
    ]  # quiet, it would count none
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


class _Resources(HTMLParser):
    """What a page loads, and where its links lead."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded, self.links = list[str](), list[str]()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        addresses = [value for name, value in attrs if name in ("src", "href", "srcset", "poster") and value]
        about = dict(attrs).get("rel") in ("canonical", "next", "prev")  # a link element that loads nothing
        (self.links if tag == "a" or about else self.loaded).extend(addresses)


def _is_elsewhere(address: str) -> bool:
    return re.match(r"(https?:)?//", address) is not None


def _pages(site: Path) -> Iterator[tuple[Path, _Resources]]:
    return ((page, _Resources(page)) for page in sorted(site.rglob("*.html")))


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {address for _, found in _pages(site) for address in found.loaded}
    assert len(loaded) > 50
    assert [address for address in loaded if _is_elsewhere(address)] == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text("utf-8")), sheet


def test_every_link_and_resource_is_there(site: Path) -> None:
    for page, found in _pages(site):
        for address in (*found.loaded, *found.links):
            path = address.partition("#")[0]
            if path and not _is_elsewhere(path) and not path.startswith(("mailto:", "/", "data:", "javascript:")):
                assert (page.parent / path).exists(), f"{page.relative_to(site)}: {address}"


def test_every_public_name_has_its_entry(site: Path) -> None:
    import convscope

    page = (site / "reference" / "python.html").read_text("utf-8")
    rooms = {file.stem for file in (site / "reference" / "python").glob("*.html")}
    for name in set(convscope.__all__) - rooms - {"__version__", "errors", "ConvscopeError"}:
        assert f'id="convscope.{name}"' in page, name
    assert 'id="convscope.Scope.grad_cam"' in page


@pytest.mark.browser
def test_the_site_opens_as_files_and_its_search_answers(site: Path, open_page: Opened) -> None:
    with open_page(site / "index.html") as page:
        page.click("input[name=query]")
        page.keyboard.type("guided backpropagation")
        page.locator(".md-search-result__item a").first.wait_for()
        assert "guided" in page.locator(".md-search-result__list").inner_text().lower()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", "reference/python", "lenses/index", "performance"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_phone(name: str, scheme: str, site: Path, open_page: Opened) -> None:
    with open_page(site / f"{name}.html", width=390, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
