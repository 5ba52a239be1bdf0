"""docs/reproduction.md and the words of the table, against the folders that they come from."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from convscope import __version__
from convscope.courses import (
    Reproduction,
    folder_of,
    reproduced,
    reproduction_page,
    reproduction_rows,
    reproduction_to_json,
    reproductions,
    state_in_words,
)
from convscope.courses.outcomes import estimate
from convscope.study import open_study
from tests.courses.repeats import NAME, add, begin, ship

COMMAND = "convscope reproduce --markdown docs/reproduction.md"


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reproduction:
    ship(tmp_path, monkeypatch)
    folder = begin(tmp_path / "runs", "laptop")
    for number, seed in [(1, 0), (1, 1), (2, 0), (2, 1)]:
        add(folder, number, seed, 0.5 + 0.05 * number + 0.002 * seed)
    return reproduced(tmp_path / "runs")[0]


def _tables(page: str) -> list[list[list[str]]]:
    """The cells of each table, without the line of dashes."""
    tables = re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()] for table in tables]
    return [[row for row in table if not set("".join(row)) <= set("-: ")] for table in rows]


def test_every_figure_of_the_page_is_that_of_the_folders(found: Reproduction) -> None:
    overview, figures = _tables(reproduction_page([found], COMMAND))
    assert overview == [
        ["report", "study", "budget", "runs", "time", "images"],
        ["B", f"[{NAME}](#{NAME})", "laptop budget", "4 of 4", "8 s", "spots.npz"],
    ]
    assert figures[0] == ["figure", "reported", "came out (95 %)", "seeds", "verdict"]
    rows = {row[0]: row[1:] for row in figures[1:]}
    assert list(rows) == [each.what for each in found.told.reported]
    runs = [run.open() for run in open_study(found.folder).runs]
    narrow = [run.metrics["accuracy"]["value"] for run in runs if run.spec.net.options["width"] == 4]
    mean, _ = estimate(narrow, 1000, found.told.reported[0])
    interval = f"{100 * np.mean(narrow):.2f} ({100 * mean.low:.2f} to {100 * mean.high:.2f})"
    assert rows["the narrow one"] == ["80.00", interval, "2", "lower (laptop)"]
    overfit = np.mean([run.metrics["overfit_percent"]["value"] for run in runs])
    assert rows["overfit %"][:2] == ["4.50", rows["overfit %"][1]]
    assert rows["overfit %"][1].startswith(f"{overfit:.2f} (")
    assert rows["overfit %"][3] == "not compared (laptop)"
    assert rows["parameters"] == ["173,026", "173,026", "", "equal"]
    assert rows["parameters as misprinted"] == ["173,027", "173,026", "", "differs"]
    assert rows["a width that no run has"] == ["80.00", "–", "", "not run"]


def test_the_page_has_date_command_machine_and_what_disagrees(found: Reproduction) -> None:
    page = reproduction_page([found], COMMAND)
    assert page.startswith("# The five reports, repeated\n")
    assert f"Written by `{COMMAND}` with convscope {__version__} on {date.today().isoformat()}" in page
    assert "- A processor, 2 cores; Python 3.11.1, PyTorch 2.9.1, Linux\n" in page
    disagrees, otherwise = page.split("## What disagrees with the reports")[1].split(
        "## What was done otherwise, or assumed"
    )
    assert disagrees.strip() == f"- **{NAME}**: the report counts one parameter too many."
    assert otherwise.strip() == f"- **{NAME}**: spots stand in for photographs."
    assert f"\n## {NAME}\n\nReport B. Two widths on bright spots.\n\nlaptop budget · 4 of 4 runs · 8 s · " in page
    assert page.endswith("\n")
    assert "\n\n\n" not in page


def test_the_page_says_how_far_it_went_and_what_the_budget_changed(found: Reproduction, tmp_path: Path) -> None:
    page = reproduction_page([found], COMMAND)
    assert "Of 1 study 1 at the budget `laptop`, none as reported (`full`)." in page
    assert "Other than reported: `recipe.epochs: 2`, `seeds: [0, 1]`.\n" in page
    add(begin(tmp_path / "whole"), 1, 0, 0.5)
    [whole] = reproduced(tmp_path / "whole")
    page = reproduction_page([found, whole], COMMAND)
    assert "Of 2 studies 1 at the budget `laptop`, 1 as reported (`full`)." in page
    assert page.count("Other than reported") == 1


def test_the_state_names_budget_runs_time_images_and_the_copy(found: Reproduction) -> None:
    assert state_in_words(found) == "laptop budget · 4 of 4 runs · 8 s · 1,000 test images · spots.npz"


def test_problems_stand_below_the_figures(found: Reproduction) -> None:
    asked = found.folder / "study.yaml"
    asked.write_text(asked.read_text().replace("batch: 24", "batch: 25"))
    [changed] = reproduced(found.folder.parents[1])
    page = reproduction_page([changed], COMMAND)
    assert "|\n\n- these runs were made with other settings than the study has now (recipe)\n" in page


def test_without_runs_the_page_says_so_and_compares_counts(tmp_path: Path) -> None:
    """Of all that are shipped."""
    page = reproduction_page(reproduced(tmp_path), COMMAND)
    overview, *figures, claims = _tables(page)
    assert {row[-1] for row in claims[1:]} == {"not run"}
    assert [row[1] for row in overview[1:]] == [f"[{name}](#{name})" for name in reproductions()]
    assert {row[3] for row in overview[1:]} == {"not run"}
    assert re.findall(r"^## ([a-z0-9-]+)$", page, re.MULTILINE) == list(reproductions())
    verdicts = [row[4] for table in figures for row in table[1:]]
    assert set(verdicts) == {"not run", "equal"}
    assert verdicts.count("equal") == 11
    assert "3, 5, 7, 13, 17 reported, 3, 5, 7, 12, 16 exact" in page
    assert "Hardware and versions" not in page


def test_json_has_all_that_the_table_has(found: Reproduction) -> None:
    told = reproduction_to_json(found)
    assert {key: told[key] for key in ("study", "report", "budget", "runs", "runs_done", "seconds", "data", "digest")} == {
        "study": NAME, "report": "B", "budget": "laptop", "runs": 4, "runs_done": 4, "seconds": 8.0,
        "data": "spots.npz", "digest": "ab" * 32,
    }  # fmt: skip
    assert told["environment"]["packages"] == {"torch": "2.9.1"}
    for figure, outcome in zip(told["figures"], found.outcomes, strict=True):
        assert figure["what"] == outcome.reported.what
        assert figure["found"] == outcome.found.to_json()
        assert figure["difference"] == outcome.difference.to_json()
        assert figure["reported_interval"] == outcome.reported_interval.to_json()
        assert {figure[key] == getattr(outcome, key) for key in ("n_seeds", "n_settings", "n_missing", "verdict")} == {
            True
        }
    assert told["folder"] == str(folder_of(found.folder.parents[1], "laptop", NAME))


def test_a_row_has_a_verdict_that_says_no_more_than_its_budget(found: Reproduction) -> None:
    rows = {what: verdict for what, *_, verdict in reproduction_rows(found)}
    assert {verdict for verdict in rows.values() if not verdict.endswith("(laptop)")} == {"equal", "differs", "not run"}


def test_images_that_are_worse_are_said_to_be(found: Reproduction) -> None:
    assert "ResNet-20" not in reproduction_page([found], COMMAND)
    assert "ResNet-20" in reproduction_page([replace(found, is_lossy=True)], COMMAND)
