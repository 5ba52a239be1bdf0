"""A damaged run is a line in what is said of the others beside it: each command reads its folders one by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from convscope.cli import run
from convscope.courses import find_reproduction, reproduced
from convscope.report import write_study_report
from convscope.study import compare, open_study, run_study, table
from convscope.study.folder import RUNS, STUDY
from convscope.study.spec import dump_study
from convscope.training import Silent
from tests.hostile import DAMAGES
from tests.study.sweeps import study_text, worked


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three runs."""
    folder = tmp_path_factory.mktemp("results")
    _, store = worked(folder / "study", study_text(folder, "recipe.rate: [0.01, 0.02, 0.03]", epochs=1))
    store.close()
    return folder / "study"


@pytest.fixture
def study(results: Path, tmp_path: Path) -> Path:
    return shutil.copytree(results, tmp_path / "study")


@pytest.mark.parametrize("name", DAMAGES)
def test_table_compare_and_sweep_show_the_others(name: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = table(study).set_index("run")
    DAMAGES[name](study / RUNS / "0002-s0")
    others = ["runs/0001-s0", "runs/0003-s0"]
    after = table(study).set_index("run")
    assert after.loc[others, "val_accuracy"].tolist() == before.loc[others, "val_accuracy"].tolist()
    compare([study / other for other in others])
    runs = {each.path.name: each for each in open_study(study).runs}
    assert [runs[Path(other).name].state for other in others] == ["done", "done"]
    ranked = [each.number for each in open_study(study).ranking()]
    assert {1, 3} <= set(ranked)
    assert all("\n" not in each.message for each in runs.values())
    assert run(["table", str(study)]) == 0
    assert "0003-s0" in capsys.readouterr().out


def test_what_is_wrong_is_said_in_a_line(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGES["environment.json is null"](study / RUNS / "0001-s0")
    DAMAGES["spec.yaml is very deep"](study / RUNS / "0002-s0")
    DAMAGES["history.parquet is a folder"](study / RUNS / "0003-s0")
    assert run(["table", str(study)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if " damaged: " in line]
    assert told == [
        "runs/0001-s0 damaged: environment.json is damaged: no object is in it",
        "runs/0002-s0 damaged: spec.yaml is damaged",
        "runs/0003-s0 damaged: history.parquet is no file",
    ]
    assert [each.state for each in open_study(study).runs] == ["done", "failed", "failed"]


def test_the_report_of_a_folder_has_all_damages_at_once(study: Path) -> None:
    for number, name in enumerate(DAMAGES):
        DAMAGES[name](shutil.copytree(study / RUNS / "0002-s0", study / RUNS / f"0000-s{number}"))
    page = write_study_report(study).read_text()
    assert "0003-s0" in page
    assert "environment.json is damaged" in page


def test_a_damaged_study_is_a_line_in_a_reproduction(tmp_path: Path) -> None:
    folders = {name: tmp_path / "smoke" / name for name in ("net1-grid", "mnist-own")}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / STUDY).write_text(dump_study(find_reproduction(name, "smoke")))
    (folders["net1-grid"] / STUDY).write_text("null")
    damaged, whole = reproduced(tmp_path, list(folders), "smoke")
    assert "study.yaml" in damaged.problems[0]
    assert (whole.problems, whole.n_runs > 0) == ((), True)
    assert len(reproduced(tmp_path, list(folders))) == 2


def test_a_finished_run_of_a_study_that_is_damaged_has_failed_for_a_worker(study: Path) -> None:
    (study / "study.db").unlink()
    DAMAGES["history.parquet is empty"](study / RUNS / "0001-s0")
    text = (study / STUDY).read_text()
    again, store = worked(study, text)
    assert [each.state for each in again.runs] == ["failed", "done", "done"]
    assert "history.parquet is damaged" in again.runs[0].message
    store.close()


def test_a_run_of_a_users_own_beside_damaged_ones(study: Path) -> None:
    """What cannot be read at all keeps no command from going on."""
    spec = open_study(study).spec.run_spec({"recipe.rate": 0.04}, 0)
    made = run_study(spec, study / RUNS / "mine", device="cpu", watcher=Silent())
    (study / RUNS / "0001-s0" / "environment.json").write_text(json.dumps([]))
    assert len(table(study)) == 4
    assert compare([made.path, study / RUNS / "0002-s0"])


def test_a_folder_whose_name_is_no_runs_is_passed_over_in_a_search(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: {low: 0.01, high: 0.1}", sampler="random", budget={"runs": 3})
    (tmp_path / STUDY).write_text(text)
    users_own = ("0001-s0-old", "0001-s0-s1", "0001-s٣", "0001-s01", "1-s0", "00002-s0", "2-s", "old-0001-s0")
    for name in ("0001-s0", "10000-s3", *users_own):
        (tmp_path / RUNS / name).mkdir(parents=True)
    (tmp_path / RUNS / "0002-s0").touch()
    assert [each.path.name for each in open_study(tmp_path).runs] == ["0001-s0", "10000-s3"]
