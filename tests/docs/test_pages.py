"""The pages on lenses: their Python runs, their pictures are there, and there is a page for each lens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import convscope as cs
from convscope.lenses import CAPTUM_METHODS
from convscope.looks import LOOKS, SCANS
from convscope.scope import ATTRIBUTIONS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "lenses").glob("*.md"))
MOST_BYTES, MOST_BYTES_IN_ALL = 150_000, 1_000_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small runs/lines in it."""
    folder = tmp_path_factory.mktemp("pages")
    data = cs.load_data("lines", limit=1920)
    cs.train(cs.build_net("lines-net"), data, cs.Recipe(epochs=1), out=folder / "runs" / "lines")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=lambda page: page.stem)
def test_the_python_of_each_page_runs(page: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem == "captum":
        pytest.importorskip("captum")
    monkeypatch.chdir(trained)
    examples = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_picture_that_a_command_makes_is_shown(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"--out (lens-\S+\.png)", text):
        assert (DOCS / "pictures" / name).exists()
        if page.name != "README.md":
            assert f"(../pictures/{name})" in text


def test_every_lens_has_a_page() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    for lens in {*LOOKS, *ATTRIBUTIONS, *CAPTUM_METHODS} - set(SCANS):
        assert lens in text, lens


def test_pictures_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in (DOCS / "pictures").glob("lens-*.png")}
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}
    assert sum(sizes.values()) < MOST_BYTES_IN_ALL
