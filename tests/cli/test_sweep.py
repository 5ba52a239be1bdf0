"""convscope sweep, as a user calls it."""

from pathlib import Path

import pytest

from convscope.nets import build_net
from convscope.study import dump_study, open_study, read_study
from tests.cli.conftest import Command
from tests.study.sweeps import study_text

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "widths.yaml"
    path.write_text(study_text(tmp_path, "net.name: [c8b M f8, c4b M f8]", seeds=[0, 1]))
    return path


def test_a_grid_from_file_to_ranking_and_again(command: Command, asked: Path, tmp_path: Path) -> None:
    out = tmp_path / "my study"
    first = command("sweep", asked, "--out", out, "--device", "cpu", "--json")
    assert first.status == 0
    assert [(run["number"], run["seed"], run["state"]) for run in first.json["runs"]] == [
        (1, 0, "done"), (1, 1, "done"), (2, 0, "done"), (2, 1, "done")
    ]  # fmt: skip
    values = [each["value"] for each in first.json["ranking"]]
    assert values == sorted(values, reverse=True)
    assert {each["n"] for each in first.json["ranking"]} == {2}
    assert len(first.err.splitlines()) == 4  # a line a finished run, where there is no terminal
    assert first.err.startswith("1/4  0001-s0  net.name c8b M f8  val_accuracy 0.")
    assert first.json["report"] == str(out / "report.html")
    again = command("sweep", asked, "--out", out, "--device", "cpu")
    assert f"report: {out / 'report.html'}" in again.out
    assert (again.status, again.err) == (0, "")
    assert f"{out}: the best settings by val_accuracy" in again.out
    assert again.out.splitlines()[-1] == f"next: convscope table '{out}'"
    assert (out / "study.yaml").read_text() == dump_study(read_study(asked.read_text(), "asked"))


def test_dry_run_lists_runs_and_parameters_and_trains_nothing(command: Command, asked: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    found = command("sweep", asked, "--out", out, "--dry-run", "--json", "--device", "cpu")
    sizes = {
        name: sum(p.numel() for p in build_net(name, classes=3, channels=3, image_size=8).parameters())
        for name in ("c8b M f8", "c4b M f8")
    }
    assert [run["parameters"] for run in found.json["runs"]] == [
        sizes[run["settings"]["net.name"]] for run in found.json["runs"]
    ]
    assert (found.json["n_runs"], found.json["is_known"]) == (4, True)
    assert 0 < found.json["seconds"] < 60
    told = command("sweep", asked, "--out", out, "--dry-run", "--device", "cpu", "--workers", "2")
    assert "0002-s1  c4b M f8" in told.out
    assert "with --workers 2 (training steps alone" in told.out
    assert not out.exists()


def test_dry_run_of_searches(command: Command, asked: Path) -> None:
    search = ("sweep", asked, "--dry-run", "--device", "cpu", "--json", "--set", "sampler=random")
    drawn = command(*search, "--set", "sweep.recipe.rate={low: 0.001, high: 0.1}", "--set", "budget.runs=6").json
    assert (len(drawn["runs"]), drawn["is_known"]) == (6, True)
    assert len({run["settings"]["recipe.rate"] for run in drawn["runs"]}) == 3
    timed = command(*search, "--set", "budget.minutes=2").json
    assert (timed["n_runs"], timed["seconds"], timed["is_known"]) == (None, 120, False)
    tpe = command("sweep", asked, "--dry-run", "--device", "cpu", "--set", "sampler=tpe", "--set", "budget.runs=6")
    assert "this one stands for all" in tpe.out
    assert tpe.out.splitlines()[-1].startswith("4 runs, about ")  # two settings, and no setting twice


def test_dry_run_names_a_setting_that_cannot_be(command: Command, asked: Path) -> None:
    told = command("sweep", asked, "--dry-run", "--set", "sweep.net.name=[c8b M f8, c8b M M M M f8]", "--device", "cpu")
    assert told.status == 0
    assert "pool" in told.out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["recipe.epocs=1"], "recipe.epocs: there is no such setting"),
        (["sweep.recipe.epocs=[1]"], "sweep.recipe.epocs: recipe.epocs: there is no such setting"),
        (["sweep.net.name=[]"], "line 4: sweep: net.name: the list is empty; give it values, or leave the key out"),
        (
            ["sweep.net.name={low: 1, high: 2}"],
            "line 4: sweep.net.name: a grid takes a list of values; for a range",
        ),
        (
            ["sweep.net.name=[c8b M f8, nett4]"],
            "net.name: network 'nett4' is not in the catalogue; did you mean 'net4'?",
        ),
        (["sampler=tpe"], "budget: a search by tpe does not end by itself; give runs or minutes"),
        (["data=nowhere.npz"], "nowhere.npz"),
    ],
)
def test_bad_input_is_one_line(
    command: Command, asked: Path, tmp_path: Path, changes: list[str], expected: str
) -> None:
    options = [part for change in changes for part in ("--set", change)]
    found = command("sweep", asked, "--out", tmp_path / "study", "--device", "cpu", *options)
    assert found.status == 2
    assert expected in found.complaint
    assert not (tmp_path / "study").exists()


def test_other_bad_input(command: Command, asked: Path, tmp_path: Path) -> None:
    assert "there is nothing to sweep" in command("sweep", "lines").complaint
    assert "study file 'none.yaml' is not there" in command("sweep", "none.yaml").complaint
    assert "workers" in command("sweep", asked, "--workers", "0").complaint
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text(asked.read_text().replace("seeds: [0, 1]", "seeds: [0, 2]"))
    found = command("sweep", asked, "--out", tmp_path / "study")
    assert (found.status, "holds another study (seeds differ)" in found.complaint) == (2, True)
    storage = command("sweep", asked, "--out", tmp_path / "new", "--storage", "here")
    assert (storage.status, "--storage here: expected an address" in storage.complaint) == (2, True)


@pytest.mark.slow
def test_what_a_study_repeats_is_checked_before_anything_is_trained(
    command: Command, asked: Path, tmp_path: Path
) -> None:
    text = asked.read_text()
    figure = "{what: the best, metric: test_accuracy, value: 0.9, n: 10}"
    asked.write_text(f"{text}\nreproduces: {{report: B, reported: [{figure}]}}\n")
    found = command("sweep", asked, "--out", tmp_path / "study", "--device", "cpu")
    assert found.status == 0
    assert open_study(tmp_path / "study").spec.reproduces["budget"] == "full"  # every value is stated
    assert 'id="repeated"' in (tmp_path / "study" / "report.html").read_text()
    asked.write_text(f"{text}\nreproduces: {{report: F, reported: [{figure}]}}\n")
    found = command("sweep", asked, "--out", tmp_path / "other", "--device", "cpu")
    assert found.status == 2
    assert f"{asked}: reproduces.report: 'F'" in found.complaint
    assert not (tmp_path / "other").exists()
