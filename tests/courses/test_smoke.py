"""All shipped reproductions at the budget "smoke", as a user runs them: minutes, so `make smoke`."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from convscope.courses import Reproduction, looks_of, reproduced, reproduction_rows, reproductions
from convscope.courses.outcomes import matches
from convscope.study import open_study

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(3600)]

_NAMED = os.environ.get("CONVSCOPE_SMOKE", "").split()
NAMES = [name for name in reproductions() if name in _NAMED or not _NAMED]
"""Of the studies: all, or those that CONVSCOPE_SMOKE names."""

SECTIONS = {"study", "repeated", "looks", "findings", "curves", "table", "again"}
OF_SEVERAL_SETTINGS = {"spread", "costs"}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of all runs, and what the command said."""
    folder = tmp_path_factory.mktemp("smoke")
    code = "import sys; from convscope.cli import run; sys.exit(run(sys.argv[1:]))"
    words = ["reproduce", *NAMES, "--budget", "smoke", "--workers", "2", "--device", "cpu"]
    words += ["--out", str(folder / "runs"), "--markdown", str(folder / "reproduction.md")]
    settings = {"CONVSCOPE_DATA": str(real_data), "CONVSCOPE_CACHE": str(folder / "cache"), "COLUMNS": "100"}
    own = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # as a user's, who sets none
    said = subprocess.run([sys.executable, "-c", code, *words], env={**own, **settings}, capture_output=True, text=True)
    return folder, said


@pytest.fixture(scope="module")
def found(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> dict[str, Reproduction]:
    return {each.name: each for each in reproduced(smoke[0] / "runs", NAMES, "smoke")}


def test_the_command_comes_to_its_end(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert smoke[1].returncode == 0, smoke[1].stderr
    assert "Traceback" not in smoke[1].stderr
    assert "Warning" not in smoke[1].stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_the_study_is_done(name: str, found: dict[str, Reproduction]) -> None:
    each = found[name]
    states = {run.path.name: run.state for run in open_study(each.folder).runs}
    assert set(states.values()) == {"done"}, states
    assert (each.n_done, each.n_runs, each.problems) == (len(states), each.spec.n_runs, ())


@pytest.mark.parametrize("name", NAMES)
def test_every_way_of_looking_has_its_picture(name: str, found: dict[str, Reproduction]) -> None:
    each = found[name]
    looks = looks_of(each.folder)
    assert [(look.lens, look.problem) for look in looks] == [(look.lens, "") for look in each.told.looks]
    for look in looks:
        assert look.heading
        with Image.open(each.folder / look.picture) as picture:
            picture.load()
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 8, look  # something is drawn


@pytest.mark.parametrize("name", NAMES)
def test_the_report_has_all_parts_that_a_study_report_has(name: str, found: dict[str, Reproduction]) -> None:
    page = (found[name].folder / "report.html").read_text(encoding="utf-8")
    parts = re.findall(r'<section id="(\w+)">', page)
    several = found[name].spec.n_settings > 1
    assert SECTIONS | (OF_SEVERAL_SETTINGS if several else set()) <= set(parts)
    assert "unfinished" not in parts
    assert page.count('<img src="data:image/png;base64,') == len(looks_of(found[name].folder))
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())
    for row in reproduction_rows(found[name]):
        assert " ".join(part for part in row if part) in text


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_came_out_whose_settings_the_budget_has(name: str, found: dict[str, Reproduction]) -> None:
    each = found[name]
    runs = [each.spec.run_spec(settings, seed) for settings in each.spec.grid() for seed in each.spec.seeds]
    expected = {told.what for told in each.told.reported if any(matches(run, told.at) for run in runs)}
    counted = {told.what for told in each.told.reported if told.metric == "parameters"}
    verdicts = {outcome.reported.what: outcome.verdict for outcome in each.outcomes}
    assert {what for what, verdict in verdicts.items() if verdict == "not compared"} == expected - counted
    assert {what for what, verdict in verdicts.items() if verdict == "equal"} == counted
    assert expected - counted or name == "lines-own"  # whose networks are narrower at this budget
    for outcome in each.outcomes:
        if outcome.verdict == "not compared":
            assert math.isfinite(outcome.found.figures[0])
            assert outcome.n_images


def test_all_are_in_the_table_and_on_the_page(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], found: dict[str, Reproduction]
) -> None:
    page = (smoke[0] / "reproduction.md").read_text(encoding="utf-8")
    assert re.findall(r"^## ([a-z0-9-]+)$", page, re.MULTILINE) == NAMES
    for each in found.values():
        assert f"\n{each.report} {each.name}: {each.spec.about}\n" in smoke[1].stdout
        assert f"| [{each.name}](#{each.name}) | smoke budget | {each.n_runs} of {each.n_runs} |" in page
        for row in reproduction_rows(each):
            assert f"| {' | '.join(row)} |" in page
    rows = [line for line in smoke[1].stdout.splitlines() if line.endswith(("(smoke)", "equal"))]
    assert max(map(len, rows)) <= 100
