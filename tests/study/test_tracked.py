"""Studies whose runs are told to trackers: what these read back, and what becomes of a study when one fails."""

import sys
from pathlib import Path
from typing import Any

import pytest

from convscope.errors import MissingPackageError, TrackerError
from convscope.runs import TENSORBOARD
from convscope.study import read_study, sweep
from convscope.study.live import Silent
from tests.study.sweeps import study_text, worked


class _Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client over a file store, whose workers find it too."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return pytest.importorskip("mlflow", reason="MLflow is not installed").MlflowClient()


def _runs(client: Any) -> dict[str, Any]:
    found = client.search_runs([client.get_experiment_by_name("convscope").experiment_id])
    return {run.info.run_name: run for run in found}


def test_each_run_of_a_study_is_one_of_the_trackers(tmp_path: Path, mlflow: Any) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    spec = read_study(study_text(tmp_path, "recipe.rate: [0.01, 0.02]"), "study.yaml")
    study = sweep(spec, tmp_path / "study", device="cpu", view=Silent(), track=["mlflow", "tensorboard"])
    told = _runs(mlflow)
    assert sorted(told) == [run.path.name for run in study.runs]
    for run in study.runs:
        mine = told[run.path.name]
        assert mine.info.status == "FINISHED"
        assert mine.data.params["recipe.rate"] == str(run.settings["recipe.rate"])
        assert mine.data.metrics["test_accuracy"] == run.open().metrics["accuracy"]["value"]
        assert list((run.path / TENSORBOARD).iterdir())


def test_a_pruned_run_was_stopped_and_has_not_failed(tmp_path: Path, mlflow: Any) -> None:
    rates = "recipe.rate: [0.01, 0.011, 0.012, 0.013, 0.014, 1.0e-9]"
    text = study_text(tmp_path, rates, epochs=8, prune="median", metric="val_loss")
    study, store = worked(tmp_path / "study", text, track=("mlflow",))
    store.close()
    assert [run.state for run in study.runs][-1] == "pruned"
    assert _runs(mlflow)[study.runs[-1].path.name].info.status == "KILLED"


@pytest.mark.slow
def test_a_tracker_that_cannot_begin_stops_the_study_and_loses_nothing(
    tmp_path: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_study(study_text(tmp_path, "recipe.rate: [0.01, 0.02]", epochs=1), "study.yaml")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere:/")
    with pytest.raises(TrackerError, match=r"tracking with mlflow cannot begin: .*leave this tracker out") as told:
        sweep(spec, tmp_path / "study", device="cpu", view=Silent(), track=["mlflow"])
    assert "\n" not in str(told.value)
    study = sweep(spec, tmp_path / "study", device="cpu", view=Silent())
    assert [run.state for run in study.runs] == ["done", "done"]


@pytest.mark.slow
def test_a_tracker_that_fails_on_the_way_is_told_of(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    spec = read_study(study_text(tmp_path, "recipe.rate: [0.01]", epochs=1), "study.yaml")
    study = sweep(spec, tmp_path / "study", device="cpu", view=Silent())
    (study.runs[0].path / TENSORBOARD).write_text("in the way")
    (study.runs[0].path / "metrics.json").unlink()
    (tmp_path / "study" / "study.db").unlink()
    view = _Heard()
    sweep(spec, tmp_path / "study", device="cpu", view=view, track=["tensorboard"])
    (line,) = (line for line in view.lines if "tensorboard" in line)
    assert line.startswith("no more tracking with tensorboard, which failed: [Errno 17] File exists")


def test_a_missing_package_is_named_before_anything_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    spec = read_study(study_text(tmp_path, "recipe.rate: [0.01]"), "study.yaml")
    with pytest.raises(MissingPackageError, match="mlflow"):
        sweep(spec, tmp_path / "study", device="cpu", track=["mlflow"])
    assert not (tmp_path / "study").exists()
