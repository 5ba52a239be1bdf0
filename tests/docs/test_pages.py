"""The pages on lenses and scans: their Python runs, their pictures are there, and each lens and scan has a page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import convscope as cs
from convscope.analyses import names
from convscope.cli import run as convscope
from convscope.lenses import ATTRIBUTIONS, CAPTUM_METHODS
from tests.analyses.kinds import SCANS

DOCS = Path(__file__).parents[2] / "docs"
LENSES, SCAN_PAGES = (sorted((DOCS / kind).glob("*.md")) for kind in ("lenses", "scans"))
PAGES = [*LENSES, *SCAN_PAGES]
RUNNABLE = [page for page in PAGES if page != DOCS / "lenses" / "README.md"]
MOST_BYTES, MOST_BYTES_IN_ALL = 150_000, 1_000_000


def _name(page: Path) -> str:
    return f"{page.parent.name}-{page.stem}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small runs/lines in it."""
    folder = tmp_path_factory.mktemp("pages")
    data = cs.load_data("lines", limit=1920)
    cs.train(cs.build_net("lines-net"), data, cs.Recipe(epochs=1), out=folder / "runs" / "lines")
    return folder


@pytest.mark.parametrize("page", RUNNABLE, ids=_name)
def test_the_python_of_each_page_runs(page: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem == "captum":
        pytest.importorskip("captum")
    monkeypatch.chdir(trained)
    examples = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert examples
    shared: dict[str, object] = {}  # a later example of a page goes on from an earlier one
    for example in examples:
        exec(compile(example, page.name, "exec"), shared)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_picture_that_a_command_makes_is_shown(page: Path) -> None:
    text = page.read_text("utf-8")
    for name in re.findall(r"--out ((?:lens|scan)-\S+\.png)", text):
        assert (DOCS / "pictures" / name).exists()
        if page.name != "README.md":
            assert f"(../pictures/{name})" in text


def test_every_picture_of_a_scan_is_made_by_a_command_on_its_page() -> None:
    made = {name for page in SCAN_PAGES for name in re.findall(r"--out (scan-\S+\.png)", page.read_text("utf-8"))}
    assert made == {file.name for file in (DOCS / "pictures").glob("scan-*.png")}


def test_the_commands_of_the_pages_on_scans_run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the small run in place of the real ones, and few images where a command takes a number of them."""
    monkeypatch.chdir(trained)
    text = "\n".join(page.read_text("utf-8") for page in SCAN_PAGES)
    commands = dict.fromkeys(re.findall(r"^ *convscope (look runs/\S+ .*?)(?: --out \S+)?$", text, re.MULTILINE))
    looked_at = [shlex.split(re.sub("runs/[a-z0-9]+", "runs/lines", command)) for command in commands]
    assert {each[2] for each in looked_at} == set(SCANS)
    for each in looked_at:
        few = ["--images", "6"] if each[2] not in ("top_patches", "statistics", "ablate") else []
        few += ["--layer", "conv6"] if each[2] == "filter_effects" else []
        assert convscope([*each, *few, "--out", "look.png"]) == 0, each


def test_every_lens_has_a_page() -> None:
    text = "\n".join(page.read_text("utf-8") for page in LENSES)
    for lens in {*names(), *ATTRIBUTIONS, *CAPTUM_METHODS} - set(SCANS):
        assert lens in text, lens


def test_every_scan_has_a_page_and_a_row_in_the_index() -> None:
    index = (DOCS / "scans" / "README.md").read_text("utf-8")
    for page in SCAN_PAGES:
        assert page.name == "README.md" or f"]({page.name})" in index


@pytest.mark.parametrize("kind", ["lens", "scan"])
def test_pictures_are_small(kind: str) -> None:
    sizes = {file.name: file.stat().st_size for file in (DOCS / "pictures").glob(f"{kind}-*.png")}
    assert {name: size for name, size in sizes.items() if size > MOST_BYTES} == {}
    assert 0 < sum(sizes.values()) < MOST_BYTES_IN_ALL
