"""Trackers: what TensorBoard and MLflow read back from their own files is what the history says; nothing is there twice."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from convscope.data import DataBundle
from convscope.errors import (
    DivergedError,
    FailedError,
    MissingPackageError,
    SettingError,
    StoppedError,
    UnknownNameError,
)
from convscope.nets import build_net
from convscope.runs import TENSORBOARD, TRACKERS, Recipe, Run
from convscope.scans import evaluate
from convscope.training import Silent, check_trackers, flat_metrics, flat_settings, track_results, train

Make = Callable[..., DataBundle]
COLUMNS = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate", "seconds", "images_per_s"}


@pytest.fixture
def tensorboard() -> Callable[[Path], Any]:
    """Reads the event files of a run with TensorBoard's own reader."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    return lambda run: reader.EventAccumulator(str(run / TENSORBOARD), size_guidance={"scalars": 0}).Reload()


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client over a file store in an empty folder."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return pytest.importorskip("mlflow", reason="MLflow is not installed").MlflowClient()


def _net() -> nn.Module:
    torch.manual_seed(0)
    return build_net("c8b M f16b", classes=3, image_size=8)


def _train(data: DataBundle, out: Path, *track: str, epochs: int = 3, rate: float = 0.01, **options: Any) -> Run:
    recipe = Recipe(epochs=epochs, batch=24, rate=rate)
    options.setdefault("watcher", Silent())
    return train(_net(), data, recipe, out, device="cpu", track=list(track), **options)


def _run_of(client: Any) -> Any:
    """The only run of the experiment convscope."""
    (run,) = client.search_runs([client.get_experiment_by_name("convscope").experiment_id])
    return run


class _AtEpoch(Silent):
    """Does something at an epoch's end."""

    def __init__(self, epoch: int, act: Callable[[], None]) -> None:
        self.at, self.act = epoch, act

    def epoch(self, row: dict[str, Any]) -> None:
        if row["epoch"] == self.at:
            self.act()


class _StopIn(Silent):
    """Presses Ctrl-C in the second step of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.at = (epoch - 1, 2)

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if (epoch, step) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


class _Killed(BaseException):
    pass


def _die() -> None:
    raise _Killed


def _assert_tensorboard_has(found: Any, run: Run) -> None:
    for column in COLUMNS:
        events = found.Scalars(column)
        assert [event.step for event in events] == run.history.epoch.tolist(), column
        assert [event.value for event in events] == pytest.approx(run.history[column].tolist(), rel=1e-6)  # of float32


def _assert_mlflow_has(client: Any, run: Run) -> None:
    number = _run_of(client).info.run_id
    for column in COLUMNS:
        events = client.get_metric_history(number, column)
        assert [(event.step, event.value) for event in events] == list(
            zip(run.history.epoch, run.history[column], strict=True)
        )


def test_both_read_back_what_the_history_says(spots: Make, tmp_path: Path, tensorboard: Any, mlflow: Any) -> None:
    run = _train(spots(), tmp_path / "run", "tensorboard", "mlflow")
    _assert_tensorboard_has(tensorboard(run.path), run)
    _assert_mlflow_has(mlflow, run)
    there = _run_of(mlflow)
    assert there.info.status == "FINISHED"
    assert there.info.run_name == "run"
    assert there.data.params["recipe.rate"] == "0.01"
    assert there.data.params["net.name"] == "c8b M f16b"


def test_tensorboard_shows_the_settings_on_its_page_of_settings(spots: Make, tmp_path: Path, tensorboard: Any) -> None:
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import Status

    run = _train(spots(), tmp_path / "run", "tensorboard")
    content = tensorboard(run.path).PluginTagToContent("hparams")
    shown = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG]).hparams
    assert shown["recipe.rate"].number_value == 0.01
    assert shown["net.name"].string_value == "c8b M f16b"
    end = metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG])
    assert end.status == Status.STATUS_SUCCESS


def test_a_resumed_training_goes_on_in_the_same_run(spots: Make, tmp_path: Path, tensorboard: Any, mlflow: Any) -> None:
    data, both = spots(), ("tensorboard", "mlflow")
    with pytest.raises(StoppedError):
        _train(data, tmp_path / "run", *both, watcher=_StopIn(2))
    assert _run_of(mlflow).info.status == "KILLED"
    assert [event.step for event in tensorboard(tmp_path / "run").Scalars("val_loss")] == [1]
    run = _train(data, tmp_path / "run", *both, resume=True)
    _assert_tensorboard_has(tensorboard(run.path), run)
    _assert_mlflow_has(mlflow, run)
    assert _run_of(mlflow).info.status == "FINISHED"


def test_epochs_that_a_tracker_missed_are_added(spots: Make, tmp_path: Path, tensorboard: Any, mlflow: Any) -> None:
    """Killed after the checkpoint of epoch 2, before the trackers heard of it; and not tracked by one of them at all."""
    data = spots()
    with pytest.raises(_Killed):
        _train(data, tmp_path / "run", "tensorboard", watcher=_AtEpoch(2, _die))
    assert [event.step for event in tensorboard(tmp_path / "run").Scalars("val_loss")] == [1]
    run = _train(data, tmp_path / "run", "tensorboard", "mlflow", resume=True)
    _assert_tensorboard_has(tensorboard(run.path), run)
    _assert_mlflow_has(mlflow, run)


def test_a_run_that_mlflow_lost_is_put_there_again(spots: Make, tmp_path: Path, mlflow: Any) -> None:
    data = spots()
    with pytest.raises(StoppedError):
        _train(data, tmp_path / "run", "mlflow", watcher=_StopIn(3))
    mlflow.delete_run(_run_of(mlflow).info.run_id)
    _assert_mlflow_has(mlflow, _train(data, tmp_path / "run", "mlflow", resume=True))


def test_names_with_signs_that_mlflow_does_not_take(spots: Make, tmp_path: Path, mlflow: Any) -> None:
    recipe = Recipe(epochs=1, batch=24, rates={"conv*": 0.5})
    run = train(_net(), spots(), recipe, tmp_path / "run", device="cpu", track=["mlflow"], watcher=Silent())
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    head = {"loss": figure, "accuracy": figure}
    for _ in range(2):
        track_results(run, {"accuracy": figure, "heads": {"angle (°)": head, "size": head}}, ["mlflow"])
    found = _run_of(mlflow)
    assert found.data.params["recipe.rates.conv_"] == "0.5"
    assert found.data.metrics["test_accuracy.angle ___"] == 0.5
    assert len(mlflow.get_metric_history(found.info.run_id, "test_accuracy.angle ___")) == 1


def test_a_diverged_training_has_failed(spots: Make, tmp_path: Path, tensorboard: Any, mlflow: Any) -> None:
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import Status

    with pytest.raises(DivergedError):
        _train(spots(), tmp_path / "run", "tensorboard", "mlflow", rate=1e12)
    assert _run_of(mlflow).info.status == "FAILED"
    content = tensorboard(tmp_path / "run").PluginTagToContent("hparams")[metadata.SESSION_END_INFO_TAG]
    assert metadata.parse_session_end_info_plugin_data(content).status == Status.STATUS_FAILURE


def test_the_figures_of_the_test_images_come_last_and_once(
    spots: Make, tmp_path: Path, tensorboard: Any, mlflow: Any
) -> None:
    data = spots()
    run = _train(data, tmp_path / "run", "tensorboard")  # MLflow first hears of it at the end
    metrics = evaluate(run, data, "cpu")
    for _ in range(2):
        track_results(run, metrics, ["tensorboard", "mlflow"])
    _assert_tensorboard_has(tensorboard(run.path), run)
    _assert_mlflow_has(mlflow, run)
    found = tensorboard(run.path)
    for key, name in (("value", "test_accuracy"), ("low", "test_accuracy_low"), ("high", "test_accuracy_high")):
        (event,) = found.Scalars(name)
        (metric,) = mlflow.get_metric_history(_run_of(mlflow).info.run_id, name)
        assert (event.step, metric.step) == (3, 3)
        assert metric.value == metrics["accuracy"][key]
        assert event.value == pytest.approx(metrics["accuracy"][key], rel=1e-6)
    assert _run_of(mlflow).info.status == "FINISHED"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a disk that is always full")
def test_a_full_disk_is_told_once_and_the_training_goes_on(
    spots: Make, tmp_path: Path, tensorboard: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The event file becomes a full disk after the first epoch; what was missed can be added later."""

    def fill() -> None:
        (file,) = (tmp_path / "run" / TENSORBOARD).iterdir()
        file.rename(file.with_name(file.name + ".0"))
        file.symlink_to("/dev/full")

    run = _train(spots(), tmp_path / "run", "tensorboard", epochs=4, watcher=_AtEpoch(2, fill))
    assert run.history.epoch.tolist() == [1, 2, 3, 4]
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("no more tracking with tensorboard, which failed: [Errno 28] No space left on device; ")
    for file in (run.path / TENSORBOARD).iterdir():
        if file.is_symlink():
            file.unlink()
    track_results(run, evaluate(run, device="cpu"), ["tensorboard"])
    _assert_tensorboard_has(tensorboard(run.path), run)


def test_a_tracker_that_cannot_begin_stops_the_training_in_one_line(
    spots: Make, tmp_path: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere:/")
    with pytest.raises(
        FailedError, match=r"tracking with mlflow cannot begin: .*nowhere.*leave this tracker out"
    ) as told:
        _train(spots(), tmp_path / "run", "mlflow")
    assert "\n" not in str(told.value)


def test_where_the_second_cannot_begin_the_first_is_ended(
    spots: Make, tmp_path: Path, mlflow: Any, wandb: Any, tensorboard: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = spots()
    with pytest.raises(StoppedError):
        _train(data, tmp_path / "run", watcher=_StopIn(2))
    (tmp_path / "run" / TENSORBOARD).write_text("in the way")
    with pytest.raises(FailedError, match=r"tracking with tensorboard cannot begin: .*File exists"):
        _train(data, tmp_path / "run", "mlflow", "tensorboard", "wandb", resume=True)
    assert _run_of(mlflow).info.status == "FAILED"
    assert wandb == {}
    assert capsys.readouterr().err == ""


def test_without_trackers_none_of_their_packages_is_loaded(spots: Make, tmp_path: Path) -> None:
    before = set(sys.modules)
    run = _train(spots(), tmp_path / "run", epochs=1)
    assert not {name.split(".")[0] for name in set(sys.modules) - before} & {"tensorboard", "mlflow", "wandb"}
    assert not run.has(TRACKERS)
    assert not (run.path / TENSORBOARD).exists()


def test_a_step_is_told_to_the_watcher_directly(spots: Make, tmp_path: Path, tensorboard: Any) -> None:
    """A step costs the same with trackers: there is no call between the loop and the watcher."""
    depths = []

    class Depth(Silent):
        def step(self, epoch: int, step: int, loss: float | None) -> None:
            frame = sys._getframe().f_back
            depths.append(frame.f_code.co_name if frame else None)

    _train(spots(), tmp_path / "run", "tensorboard", epochs=1, watcher=Depth())
    assert set(depths) == {"_train_epoch"}


@pytest.mark.parametrize(
    ("package", "extra"), [("tensorboard", "track"), ("mlflow", "track"), ("wandb", "wandb")]
)  # fmt: skip
def test_a_missing_package_is_named(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    with pytest.raises(
        MissingPackageError, match=rf"'{package}', which is not installed; pip install 'convscope\[{extra}\]'"
    ):
        _train(spots(), tmp_path / "run", package)
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_named(spots: Make, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'tensorboard'.*there is tensorboard, mlflow, wandb"):
        _train(spots(), tmp_path / "run", "tensorbord")


def test_one_name_in_place_of_a_list_is_explained() -> None:
    with pytest.raises(SettingError, match=r"give a list of names, such as \['mlflow'\]"):
        check_trackers("mlflow")


def test_settings_are_flat() -> None:
    given = {"net": {"name": "net4", "widths": [6, 12], "more": {}}, "limit": None, "flip": True}
    assert flat_settings(given) == {
        "net.name": "net4", "net.widths": "[6, 12]", "net.more": "{}", "limit": "null", "flip": True,
    }  # fmt: skip


def test_figures_of_the_test_images_are_flat() -> None:
    def figure(value: float | None) -> dict[str, float | None]:
        return {"value": value, "low": value, "high": None}

    shape = {"loss": figure(0.5), "accuracy": figure(0.75)}
    metrics = {
        "split": "test",
        "images": 8,
        "accuracy": figure(0.5),
        "train_accuracy": figure(1.0),
        "top5": figure(None),
    }
    flat = flat_metrics({**metrics, "overfit_percent": figure(50.0), "heads": {"shape": shape, "colour": shape}})
    assert flat == {
        "test_accuracy": 0.5, "test_accuracy_low": 0.5, "overfit_percent": 50.0, "overfit_percent_low": 50.0,
        "test_loss.shape": 0.5, "test_loss.shape_low": 0.5, "test_accuracy.shape": 0.75, "test_accuracy.shape_low": 0.75,
        "test_loss.colour": 0.5, "test_loss.colour_low": 0.5, "test_accuracy.colour": 0.75, "test_accuracy.colour_low": 0.75,
    }  # fmt: skip


class _FakeRun:
    """What we use of a run of Weights & Biases: it refuses steps that do not rise, and starts again after the last one."""

    def __init__(self, number: str, settings: dict[str, Any]) -> None:
        self.id, self.settings, self.rows, self.summary, self.codes = number, settings, {}, {}, []
        self.starting_step = 0

    def log(self, figures: dict[str, float], step: int) -> None:
        assert step > max(self.rows, default=-1)
        self.rows[step] = figures

    def finish(self, exit_code: int) -> None:
        self.codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, _FakeRun]]:
    """Not Weights & Biases itself, which needs an account: a stand-in module with the three calls that are made of it."""
    runs: dict[str, _FakeRun] = {}

    def init(*, project: str, name: str, config: dict[str, Any], id: str | None, resume: str, reinit: str) -> _FakeRun:
        assert (project, name, resume, reinit) == ("convscope", "run", "allow", "create_new")
        run = runs.setdefault(id or f"number{len(runs)}", _FakeRun(id or f"number{len(runs)}", config))
        run.starting_step = max(run.rows, default=-1) + 1
        return run

    module = ModuleType("wandb")
    module.__dict__.update(SimpleNamespace(init=init).__dict__)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return runs


def test_wandb_stand_in_gets_epochs_once_settings_and_figures(spots: Make, tmp_path: Path, wandb: Any) -> None:
    data = spots()
    with pytest.raises(_Killed):  # before it hears of epoch 2
        _train(data, tmp_path / "run", "wandb", watcher=_AtEpoch(2, _die))
    run = _train(data, tmp_path / "run", "wandb", resume=True)
    metrics = evaluate(run, data, "cpu")
    track_results(run, metrics, ["wandb"])
    (there,) = wandb.values()
    assert there.settings["recipe.rate"] == 0.01
    assert there.codes == [1, 0, 0]
    assert list(there.rows) == [1, 2, 3]
    assert [row["val_loss"] for row in there.rows.values()] == run.history.val_loss.tolist()
    assert there.summary["test_loss"] == metrics["loss"]["value"]
