"""Trained, evaluated and reported runs, and a browser to look at pages with.

The fixtures import what they need themselves: pytest loads this file before every test. What takes seconds to make is made once
for all workers.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import write_spots

if TYPE_CHECKING:
    from convscope.runs import Run

FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, for all workers of this run of the tests."""
    from filelock import FileLock

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with FileLock(f"{folder}.lock"):
        if not (made := folder.with_suffix(".made")).exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            made.touch()
    return folder


def _reported(folder: Path, source: str, net: str, **settings: Any) -> None:
    import torch

    from convscope.data import load_data
    from convscope.nets import build_net
    from convscope.report import write_report
    from convscope.runs import Recipe
    from convscope.scans import evaluate
    from convscope.training import Silent, train

    data = load_data(source, **settings)
    torch.manual_seed(0)
    built = build_net(net, classes=len(data.classes), channels=data.input_shape[0], image_size=data.input_shape[1])
    recipe = Recipe(epochs=4, batch=24, rate=0.005)
    run = train(built, data, recipe, folder / "run", device="cpu", watcher=Silent())
    evaluate(run, data)
    write_report(run, data)


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three classes, with mistakes, evaluated and reported."""
    from convscope.runs import open_run

    def make(folder: Path) -> None:
        _reported(folder, str(write_spots(folder / "spots.npz", 240)), "c8b M f8")

    return open_run(made_once(tmp_path_factory, "three", make) / "run")


@pytest.fixture(scope="session")
def reported_96(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 96 classes that it has hardly learned."""
    from convscope.runs import open_run

    def make(folder: Path) -> None:
        _reported(folder, "lines", "c8b M f16", limit=96 * 20, split="60/40")

    return open_run(made_once(tmp_path_factory, "many", make) / "run")


def _make_grid(folder: Path) -> None:
    from convscope.runs import make_spec
    from convscope.study import run_study
    from convscope.training import Silent

    data = {"source": str(write_spots(folder / "spots.npz", 120, side=16))}
    for number, (width, kernel) in enumerate(itertools.product((4, 8), (3, 5))):
        for seed in (0, 1):
            net, recipe = {"name": "net1", "width": width, "kernel": kernel}, {"epochs": 3, "batch": 24, "seed": seed}
            spec = make_spec({"data": data, "net": net, "recipe": recipe})
            run_study(spec, folder / "runs" / f"{number:04d}-s{seed}", device="cpu", watcher=Silent())


@pytest.fixture(scope="session")
def _grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "grid", _make_grid)


@pytest.fixture
def grid(_grid: Path, tmp_path: Path) -> Path:
    """A folder of eight finished runs: net.width 4 and 8, net.kernel 3 and 5, seeds 0 and 1; the test's own copy."""
    shutil.copytree(_grid, tmp_path / "grid")
    return tmp_path / "grid"


@pytest.fixture(scope="session")
def _repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from convscope.courses import reproduce
    from convscope.study.live import Silent
    from tests.courses.repeats import NAME, ship

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patched:
            ship(folder, patched)
            reproduce(NAME, "smoke", folder / "runs", device="cpu", view=Silent())

    return made_once(tmp_path_factory, "repeated", make)


@pytest.fixture
def repeated(_repeated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of reproductions with the study of tests.courses.repeats at budget "smoke"; the test's own copy."""
    from tests.courses.repeats import ship

    ship(_repeated, monkeypatch)
    shutil.copytree(_repeated / "runs", tmp_path / "repeated", copy_function=shutil.copy2)
    return tmp_path / "repeated"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium; without it the test is skipped, or fails where CONVSCOPE_REQUIRE_BROWSER is set.

    The shell without windows is taken where it is installed: it needs some 40 % less of the processor.
    """
    names = ("chromium-headless-shell", "chromium", "chromium-browser")
    path = os.environ.get("CONVSCOPE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing = "no Chromium on PATH; install Debian's package chromium-headless-shell, or set CONVSCOPE_CHROMIUM"
        if os.environ.get("CONVSCOPE_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # of a busy machine
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def open_page(browser: Any) -> Callable[..., AbstractContextManager[Any]]:
    """``with open_page(file, "#conv2", width=390, scheme="dark") as page``; errors, warnings, requests that leave it fail."""

    @contextmanager
    def opened(file: Path, part: str = "", width: int = 1280, scheme: str = "light") -> Iterator[Any]:
        wrong: list[str] = []
        with browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        ) as context:
            page = context.new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda one: wrong.append(one.text) if one.type in {"error", "warning"} else None)
            page.on("request", lambda one: wrong.append(one.url) if one.url[:5] not in {"file:", "data:"} else None)
            page.goto(file.resolve().as_uri() + part)
            yield page
        assert wrong == []

    return opened
