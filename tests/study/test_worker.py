"""A worker in this process: what it does with one unit of work after another."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from convscope.data import load_data
from convscope.runs import METRICS, MODEL, OUTCOME, Run, alone_in, open_run
from convscope.scans import kept_epoch
from convscope.study import run_study
from convscope.study.folder import state_of
from convscope.study.store import deaths_of, outcome_of
from convscope.training import Silent
from tests.study.sweeps import results, study_text, worked


def test_each_run_of_a_grid_is_what_it_would_be_alone(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: [0.001, 0.01]", seeds=[0, 3])
    study, store = worked(tmp_path / "study", text)
    assert [(run.path.name, run.state) for run in study.runs] == [
        ("0001-s0", "done"), ("0001-s3", "done"), ("0002-s0", "done"), ("0002-s3", "done")
    ]  # fmt: skip
    alone = run_study(study.spec.run_spec({"recipe.rate": 0.01}, 3), tmp_path / "alone", device="cpu", watcher=Silent())
    assert (alone.path / MODEL).read_bytes() == (study.runs[3].path / MODEL).read_bytes()
    told = {trial.number: trial.value for trial in store.trials()}
    assert told[3] == alone.history["val_accuracy"].iloc[-1]
    store.close()


def test_the_data_are_loaded_once_as_long_as_they_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(spec: object) -> object:
        loaded.append(spec)
        return load_data(spec)  # type: ignore[arg-type]

    monkeypatch.setattr("convscope.study.worker.load_data", load)
    text = study_text(tmp_path, "data.limit: [90, 120], recipe.rate: [0.001, 0.01]", epochs=1)
    _, store = worked(tmp_path / "study", text)
    assert [spec.limit for spec in loaded] == [90, 120]  # type: ignore[attr-defined]
    store.close()


def test_a_run_that_diverges_and_one_that_cannot_be_are_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    nets = "net.name: [c8b M f8, c8b M M M M f8], recipe.rate: [0.01, 1.0e+9]"
    study, store = worked(tmp_path / "study", study_text(tmp_path, nets))
    assert [run.state for run in study.runs] == ["done", "diverged", "failed", "failed"]
    assert study.runs[1].message.startswith("the loss is")
    assert "pool" in study.runs[2].message
    left = json.loads((study.runs[1].path / OUTCOME).read_text())
    assert (left["state"], left["attempts"]) == ("diverged", 1)
    assert not (study.runs[1].path / METRICS).exists()
    assert [trial.state for trial in store.trials()] == [TrialState.COMPLETE, *[TrialState.FAIL] * 3]
    assert outcome_of(store.trials()[1]) == {"state": "diverged", "message": study.runs[1].message}
    store.close()


def test_a_setting_of_a_search_has_the_mean_over_its_seeds(tmp_path: Path) -> None:
    text = study_text(
        tmp_path, "recipe.rate: {low: 0.0001, high: 0.02, log: true}", sampler="tpe", seeds=[0, 1], budget={"runs": 6}
    )
    study, store = worked(tmp_path / "study", text)
    assert len(study.runs) == 6
    values = {run.number: [] for run in study.runs}
    for run in study.runs:
        values[run.number].append(kept_epoch(run.open())["val_accuracy"])
        assert run.settings == {"recipe.rate": run.open().spec.recipe.rate}
    assert [trial.value for trial in store.trials()] == [sum(each) / 2 for each in values.values()]
    best = study.ranking()[0]
    assert (best.value, best.n) == (max(sum(each) / 2 for each in values.values()), 2)
    store.close()


def test_the_value_is_that_of_the_epoch_whose_weights_are_kept(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.patience: [1, 2], recipe.rate: [0.02]", epochs=12)
    study, store = worked(tmp_path / "study", text)
    for run, trial in zip(study.runs, store.trials(), strict=True):
        history, net = run.open().history, open_run(run.path)
        losses = history["val_loss"].tolist()
        assert kept_epoch(run.open())["epoch"] == losses.index(min(losses)) + 1
        assert trial.value == history["val_accuracy"][losses.index(min(losses))]
        assert net.is_trained
    store.close()


@pytest.mark.slow
def test_a_median_pruner_stops_what_does_not_learn(tmp_path: Path) -> None:
    """Five runs that learn, then three whose rate is far too low; the first epochs of all are reported."""
    rates = "[0.01, 0.011, 0.012, 0.013, 0.014, 1.0e-9, 1.1e-9, 0.015]"
    text = study_text(tmp_path, f"recipe.rate: {rates}", epochs=8, prune="median", metric="val_loss")
    study, store = worked(tmp_path / "study", text)
    assert [run.state for run in study.runs][:7] == ["done"] * 5 + ["pruned"] * 2
    pruned = study.runs[5]
    assert 0 < len(pruned.open().history) < 8
    assert pruned.message.startswith("val_loss ")
    assert store.trials()[5].state == TrialState.PRUNED
    assert store.trials()[5].intermediate_values == dict(enumerate(pruned.open().history["val_loss"], 1))
    store.close()


def test_hyperband_prunes(tmp_path: Path) -> None:
    text = study_text(
        tmp_path, "recipe.rate: {low: 1.0e-9, high: 0.02, log: true}",
        epochs=9, prune="hyperband", sampler="random", budget={"runs": 12},
    )  # fmt: skip
    study, store = worked(tmp_path / "study", text)
    states = [run.state for run in study.runs]
    assert set(states) == {"done", "pruned"}
    store.close()


def test_a_lost_store_is_made_again_from_the_folder(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: [0.01, 1.0e+9]", seeds=[0, 1])
    study, store = worked(tmp_path / "study", text)
    before = {run.path.name: (run.path / MODEL).stat().st_mtime_ns for run in study.runs if run.state == "done"}
    states, values = [run.state for run in study.runs], [trial.value for trial in store.trials()]
    store.close()
    (tmp_path / "study" / "study.db").unlink()
    again, store = worked(tmp_path / "study", text)
    assert {run.path.name: (run.path / MODEL).stat().st_mtime_ns for run in again.runs if run.state == "done"} == before
    assert ([run.state for run in again.runs], [trial.value for trial in store.trials()]) == (states, values)
    store.close()


def test_what_a_kill_left_of_a_run_that_had_hardly_begun_is_no_hindrance(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: [0.01, 0.02]")
    left = tmp_path / "study" / "runs" / "0001-s0"
    left.mkdir(parents=True)
    (left / ".environment.json.7-ab.unfinished").write_text("{")
    study, store = worked(tmp_path / "study", text)
    assert [run.state for run in study.runs] == ["done", "done"]
    store.close()


def test_no_time_left_begins_nothing(tmp_path: Path) -> None:
    study, store = worked(tmp_path / "study", study_text(tmp_path, "recipe.rate: [0.01, 0.02]"), seconds=0.0)
    assert [run.state for run in study.runs] == ["waiting", "waiting"]
    store.close()


def test_a_run_that_is_trained_elsewhere_waits_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the other run is done; then nobody is at it any more."""
    monkeypatch.setattr("convscope.study.worker._IN_USE_S", 0.0)
    first, second = (tmp_path / "study" / "runs" / name for name in ("0001-s0", "0002-s0"))
    first.mkdir(parents=True)
    train, trained = run_study, []

    def train_and_note(spec: object, out: Path, **settings: Any) -> Run:
        if second in trained:
            elsewhere.close()
        run = train(spec, out, **settings)
        trained.append(out)
        return run

    monkeypatch.setattr("convscope.study.worker.run_study", train_and_note)
    with ExitStack() as elsewhere:
        elsewhere.enter_context(alone_in(first))
        study, store = worked(tmp_path / "study", study_text(tmp_path, "recipe.rate: [0.01, 0.02]"))
    assert trained == [second, first]
    assert [run.state for run in study.runs] == ["done", "done"]
    assert [deaths_of(trial) for trial in store.trials()] == [0, 0]
    store.close()


def test_states_of_a_folder(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert state_of(run) == ("waiting", "")
    run.path.mkdir()
    assert state_of(run) == ("unfinished", "")
    run.write_json(OUTCOME, {"state": "pruned", "message": "worse", "attempts": 1})
    assert state_of(run) == ("pruned", "worse")


def test_two_workers_one_after_the_other_do_each_run_once(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.rate: [0.01, 0.02]")
    study, store = worked(tmp_path / "study", text)
    first = results(study)
    stamp = (study.runs[0].path / MODEL).stat().st_mtime_ns
    store.close()
    study, store = worked(tmp_path / "study", text)
    assert results(study) == first
    assert (study.runs[0].path / MODEL).stat().st_mtime_ns == stamp
    store.close()
