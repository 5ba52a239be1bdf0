"""convscope reproduce, as a user calls it."""

from pathlib import Path

import pytest

from convscope.courses import EXPLAINED, folder_of, reproduced, reproductions
from convscope.study import open_study
from tests.cli.conftest import Command
from tests.courses.repeats import NAME, add, begin, ship, ship_texts

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_without_runs_the_table_has_every_study_and_figure_and_fits(command: Command, tmp_path: Path) -> None:
    found = command("reproduce", "--out", tmp_path / "none")
    assert (found.status, found.err) == (0, "")
    lines = found.out.splitlines()
    names = [line.split(":")[0].split(" ")[1] for line in lines if line[:2] in {f"{letter} " for letter in "ABCDE"}]
    assert names == list(reproductions())
    figures = [line for line in lines if line.endswith(("not run", "equal", "differs")) and line.strip() != "not run"]
    told = [outcome for each in reproduced(tmp_path) for outcome in each.outcomes]
    assert [line[2:34].rstrip() for line in figures] == [outcome.reported.what for outcome in told]
    assert {line[44:46] for line in figures} == {"  "}  # every figure ends in the column before
    assert max(map(len, figures)) < 100
    assert lines[-1] == f"There are no runs in {tmp_path / 'none'} yet: convscope reproduce --budget laptop"
    assert EXPLAINED in lines
    assert not (tmp_path / "none").exists()


def test_the_widest_row_fits_in_a_hundred_columns(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tmp_path, monkeypatch)
    folder = begin(tmp_path / "runs", "laptop")
    for number in (1, 2):
        for seed in (0, 1):
            add(folder, number, seed, 0.79 + 0.02 * seed)
    lines = command("reproduce", "--out", tmp_path / "runs").out.splitlines()
    told = [line for line in lines if "cannot be told (laptop)" in line]
    assert len(told) == 4
    assert max(map(len, told)) <= 100
    heads = lines[0]
    for line in told:
        assert line[heads.index("came out") - 1] == " "
        assert line[heads.index("verdict") - 1 :].startswith(" cannot be told (laptop)")


def test_with_a_budget_it_runs_and_reports_and_goes_on_where_it_was(
    command: Command, repeated: Path, tmp_path: Path
) -> None:
    folder, page = folder_of(repeated, "smoke", NAME), tmp_path / "page.md"
    found = command("reproduce", "--budget", "smoke", "--out", repeated, "--markdown", page, "--device", "cpu")
    assert (found.status, found.err) == (0, f"1/1 {NAME}, smoke budget\n")  # all runs were there: no line of theirs
    assert f"  {folder / 'report.html'}\n" in found.out
    assert "  smoke budget · 2 of 2 runs · " in found.out
    assert found.out.splitlines()[-1] == f"page: {page}"
    assert 'id="looks"' in (folder / "report.html").read_text()
    command_line = f"convscope reproduce --budget smoke --out {repeated} --markdown {page}"
    assert f"Written by `{command_line}` with convscope" in page.read_text()


def test_json_is_complete_and_alone(command: Command, repeated: Path, tmp_path: Path) -> None:
    found = command("reproduce", NAME, "--out", repeated, "--json", "--markdown", tmp_path / "page.md")
    [told] = found.json
    assert (told["study"], told["budget"], told["runs_done"], told["runs"]) == (NAME, "smoke", 2, 2)
    run = open_study(folder_of(repeated, "smoke", NAME)).runs[0].open()
    assert told["figures"][0]["found"]["value"] == run.metrics["accuracy"]["value"]
    assert told["environment"] == run.environment
    keys = {"what", "value", "n", "at", "metric", "found", "difference", "reported_interval", "verdict", "n_seeds"}
    assert all(keys <= figure.keys() for figure in told["figures"])
    assert (tmp_path / "page.md").exists()


def test_dry_run_counts_runs_and_trains_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tmp_path, monkeypatch)
    out = tmp_path / "runs"
    found = command("reproduce", "--budget", "smoke", "--dry-run", "--json", "--out", out, "--device", "cpu")
    assert [(each["study"], each["runs"]) for each in found.json] == [(NAME, 2)]
    assert 0 < found.json[0]["seconds"] < 60
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["net9-grid"], "study 'net9-grid' is not one that repeats a report; did you mean 'net"),
        (["mnist", "--budget", "smoke"], "study 'mnist' is not one that repeats a report"),
        (["net1-grid", "--budget", "smok"], "budget 'smok' is not one of net1-grid's; did you mean 'smoke'?"),
        (["--budget", "large"], "budget 'large' is not one of vgg-batchnorm's; there is smoke, laptop, full"),
        (["--workers", "0", "--budget", "smoke"], "--workers"),
        (["net9-grid", "--dry-run"], "study 'net9-grid' is not one that repeats a report"),
    ],
)
def test_bad_input_is_one_line(command: Command, tmp_path: Path, words: list[str], expected: str) -> None:
    found = command("reproduce", *words, "--out", tmp_path / "runs", "--markdown", tmp_path / "page.md")
    assert found.status == 2
    assert expected in found.complaint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(tmp_path, monkeypatch)
    folder = folder_of(tmp_path / "runs", "smoke", NAME)
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    found = command("reproduce", "--budget", "smoke", "--out", tmp_path / "runs")
    assert found.status == 2
    assert "exists and is no study" in found.err.splitlines()[-1]


def test_of_several_studies_one_that_cannot_be_run_does_not_hold_up_the_others(
    command: Command, repeated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.courses.repeats import TEXT

    source = open_study(folder_of(repeated, "smoke", NAME)).spec.data.source
    both = {"a-broken-one": TEXT.format(source="nowhere.npz"), NAME: TEXT.format(source=source)}
    ship_texts(monkeypatch, both)
    found = command("reproduce", "--budget", "smoke", "--out", repeated, "--device", "cpu")
    assert found.status == 1
    last = found.err.splitlines()[-1]
    assert last.startswith("convscope: 1 of 2 studies did not come to their end; a-broken-one: ")
    assert "nowhere.npz" in last
    assert (folder_of(repeated, "smoke", NAME) / "report.html").exists()
    assert "smoke budget · 2 of 2 runs" in found.out
