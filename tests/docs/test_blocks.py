"""The tutorials and how-to pages: every command, file and line of Python on them runs, on small data in place of the reader's.

What would take long, listens or sends (a shipped study, `serve`, `publish`) is given a run or a study that is not there: the
command must understand all its options, and say that it is missing.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.cli import VERBS, run as convscope
from convscope.runs import read_spec
from convscope.study import read_study
from tests.app.serving import served
from tests.cli.conftest import Command, command  # noqa: F401 (a fixture)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (
    "README",
    "CONTRIBUTING", "commands", "determinism", "explorer", "index", "look-inside", "own-network", "photographs",
    "sweeps", "tasks", "trackers", "use",
)  # fmt: skip
LONG = {"look-inside", "own-network", "sweeps"}
ELSEWHERE = {"cluster", "own-data", "reproducing", "convolution-by-hand"}
"""Pages whose blocks are run by a test of their own, besides those on lenses and scans."""

NOT_RUN = {"cluster"}
"""Recipes for systems that are not here (Kubernetes, Slurm); the page says what was run."""

_BLOCK = re.compile(r"^```(\w+)(?: title=\"(\S+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SHIPPED_OR_LONG = re.compile(
    r"^(study|train) (mnist|cifar10|--resume|--data photos --net lite0)"
    r"|^(serve|publish|report|reproduce|sweep mine|table runs |evaluate runs/photos-lite0)"
)
_SMALL = ("--set", "recipe.epochs=1")
_SMALL_OF = {
    "widths.yaml": ["--set", "sweep={net.width: [2, 3], recipe.rate: [0.001, 0.004]}", "--set", "seeds=[0]"],
    "photos.yaml": ["--set", "data.image_size=32", "--set", "net=c8 M c8 M f16", "--set", "recipe.batch=16"],
    "lines": ["--set", "data.limit=480"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader might have it: photos of two classes, a study, and two runs of it."""
    folder, rng = tmp_path_factory.mktemp("reader"), np.random.default_rng(0)
    for kind, name in enumerate(("cat", "dog")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 120, (66, 72, 3), dtype=np.uint8)
            pixels[:, 36 * kind : 36 * kind + 36] += 100
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i:03}.png")
    study = "data: {source: photos, image_size: 32}\nnet: c8 M c8 M c8 f16\nrecipe: {epochs: 1, batch: 16}\n"
    (folder / "mine.yaml").write_text(study)
    with chdir(folder):
        for name, width in (("mine", 8), ("wider", 12)):
            out = f"runs/{name}"
            assert convscope(["train", "mine.yaml", "--set", f"net=c{width} M c8 M c8 f16", "--out", out]) == 0
            assert convscope(["evaluate", out]) == 0
    return folder


@pytest.mark.parametrize("name", [pytest.param(page, marks=pytest.mark.slow if page in LONG else ()) for page in PAGES])
def test_every_block_of_the_page_runs(
    name: str,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,  # noqa: F811
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(base, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    if name == "commands":  # the page makes it
        shutil.rmtree(folder / "runs" / "mine")
    if name == "sweeps":
        shutil.copytree(folder / "runs" / "mine", folder / "runs" / "photos")
    shared: dict[str, object] = {}
    for kind, title, text in _blocks(name):
        if title:
            (folder / title).write_text(text)
        if kind == "yaml":
            _check_yaml(text)
        elif kind == "python" and not title and name != "README":  # that one has a test of its own
            _run_python(text, shared)
        elif kind == "sh":
            for line in filter(None, (shlex.split(line, comments=True) for line in text.splitlines())):
                _run(line, command)


def _run_python(text: str, shared: dict[str, object]) -> None:
    if "127.0.0.1:8765" not in text:
        exec(text, shared)
        return
    with served(Path("runs/mine")) as address:
        exec(text.replace("127.0.0.1:8765", address), shared)


def _blocks(name: str) -> list[tuple[str, str, str]]:
    folder = ROOT if name == "README" else DOCS
    found = _BLOCK.findall((folder / f"{name}.md").read_text("utf-8"))
    assert found
    return found


def _check_yaml(text: str) -> None:
    whole = text if re.search(r"^data:", text, re.MULTILINE) else f"data: lines\nnet: lines-net\n{text}"
    read = read_study if re.search(r"^(sweep|seeds):", text, re.MULTILINE) else read_spec
    assert read(whole, "the page's block")


def _run(words: list[str], command: Command) -> None:  # noqa: F811
    program, *words = words
    if program in ("pip", "make"):
        _check_installs_or_makes(program, words)
        return
    assert program == "convscope"
    if _SHIPPED_OR_LONG.match(" ".join(words)):
        _check_understood(words, command)
    elif words[0] == "study":  # without its report
        _check_runs([*words, *(["--out", f"runs/studied{len(words)}"] if words[1] != "lines" else [])], command)
    else:
        _check_runs(words, command)


def _check_installs_or_makes(program: str, words: list[str]) -> None:
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets)
    else:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(re.findall(r"\[(\w+)\]", " ".join(words))) <= set(extras)


def _check_understood(words: list[str], command: Command) -> None:  # noqa: F811
    missing = [re.sub(r"^(runs(?:/[\w-]+)?|mnist|cifar10|mine\.yaml|photos)$", "no-such", word) for word in words]
    if words[0] == "reproduce":
        missing.insert(1, "no-such")
    found = command(*missing)
    assert found.status == 2, found.err
    assert "no-such" in found.complaint


def _check_runs(words: list[str], command: Command) -> None:  # noqa: F811
    verb = words[0]
    trains = verb in ("train", "study", "sweep") and "--resume" not in words
    words = ["train" if word == "study" else word for word in words]
    if "--workers" in words:
        del words[(at := words.index("--workers")) : at + 2]
    more = [*_SMALL, *(_SMALL_OF.get(words[1]) or [])] if trains else []
    found = command(*words, *more)
    assert found.status == 0, f"{words}: {found.err}"


def test_every_page_with_blocks_is_run_by_a_test() -> None:
    with_blocks = {
        page.stem
        for page in DOCS.glob("*.md")
        if any(kind in ("sh", "python", "yaml") for kind, _, _ in _BLOCK.findall(page.read_text("utf-8")))
    }
    assert with_blocks <= {*PAGES, *ELSEWHERE, *NOT_RUN}
    assert not [
        page for page in DOCS.rglob("*.md") if re.search(r"\n\n    (convscope|data:|recipe:) ", page.read_text())
    ]


def test_the_glance_shows_every_command() -> None:
    text = (DOCS / "commands.md").read_text("utf-8")
    assert {verb for verb in VERBS if f"\nconvscope {verb}" not in text} == set()
