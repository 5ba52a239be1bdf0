"""`recipe.rate: find`: the run that comes of it is that of the rate given by hand, also resumed or repeated."""

from collections.abc import Callable
from pathlib import Path

import pytest

from convscope.data import DataBundle
from convscope.errors import RunFolderError, SettingError
from convscope.runs import FIND, MODEL, RATE, SPEC, RunSpec, make_spec
from convscope.study import resume_run, run_study, train_study
from convscope.study.folder import STUDY
from convscope.training import Silent, find_rate, measure_step
from tests.study.sweeps import study_text, worked

Make = Callable[..., DataBundle]


def _spec(data: DataBundle, **recipe: object) -> RunSpec:
    given = {"epochs": 2, "batch": 24, "rate": FIND, "augmentation": {"crop": 1}, **recipe}
    return make_spec({"data": data.spec.model_dump(), "net": "c8b M f8 D0.3", "recipe": given})


class _Killed(BaseException):
    pass


class _DieAt(Silent):
    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if (epoch, step) == (1, 2):
            raise _Killed


def _no_test(*_: object) -> None:
    raise AssertionError("the rate is known")


@pytest.mark.usefixtures("random_state_kept")
def test_as_with_that_rate_given_by_hand_to_the_bit(
    spots: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = spots()
    found = train_study(_spec(data, seed=3), tmp_path / "found", device="cpu", watcher=Silent())
    rate = find_rate(_spec(data), data, "cpu")[0]
    assert f"recipe.rate: {rate:g}, a quarter of" in capsys.readouterr().err
    given = train_study(_spec(data, seed=3, rate=rate), tmp_path / "given", device="cpu", watcher=Silent())
    assert (found.path / MODEL).read_bytes() == (given.path / MODEL).read_bytes()
    assert (found.path / SPEC).read_bytes() == (given.path / SPEC).read_bytes()
    assert found.spec.recipe.rate == rate
    assert (found.path / RATE).read_bytes().startswith(b"\x89PNG")
    assert not (given.path / RATE).exists()


def test_the_rate_stays_when_a_run_is_resumed_or_repeated(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(spots())
    whole = run_study(spec, tmp_path / "whole", device="cpu", watcher=Silent())
    for name in ("resumed", "again"):
        with pytest.raises(_Killed):
            run_study(spec, tmp_path / name, device="cpu", watcher=_DieAt())
    monkeypatch.setattr("convscope.study.run.find_rate", _no_test)
    run_study(spec, whole.path, device="cpu")
    resume_run(tmp_path / "resumed", device="cpu", watcher=Silent())
    run_study(spec, tmp_path / "again", device="cpu", watcher=Silent())
    for name in ("resumed", "again"):
        assert (tmp_path / name / MODEL).read_bytes() == (whole.path / MODEL).read_bytes()


def test_what_is_in_the_folder_already_is_left_alone(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = spots()
    with pytest.raises(_Killed):
        run_study(_spec(data, rate=0.01), tmp_path / "given", device="cpu", watcher=_DieAt())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    monkeypatch.setattr("convscope.study.run.find_rate", _no_test)
    for name, problem in {"given": "holds a run whose rate was given", "mine": "exists and is no run"}.items():
        before = sorted((tmp_path / name).iterdir())
        with pytest.raises(RunFolderError, match=problem):
            run_study(_spec(data), tmp_path / name, device="cpu", watcher=Silent())
        assert sorted((tmp_path / name).iterdir()) == before


def test_a_run_that_was_killed_after_the_test_begins_again(spots: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RATE).touch()
    run = train_study(_spec(spots(), epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    assert (run.path / RATE).stat().st_size > 0


def test_each_run_of_a_sweep_finds_its_own(tmp_path: Path) -> None:
    text = study_text(tmp_path, "recipe.optimizer: [sgd, adamw]", epochs=1, seeds=[0, 1])
    study, store = worked(tmp_path / "study", text.replace("batch: 24", "batch: 24, rate: find"))
    store.close()
    rates = {(run.settings["recipe.optimizer"], run.seed): run.open().spec.recipe.rate for run in study.runs}
    assert all(isinstance(rate, float) for rate in rates.values())
    assert rates["sgd", 0] == rates["sgd", 1] != rates["adamw", 0] == rates["adamw", 1]
    assert "rate: find" in (study.path / STUDY).read_text()


def test_a_step_is_measured_before_the_rate_is_known(spots: Make) -> None:
    assert measure_step(_spec(spots()), spots(), "cpu").seconds > 0


def test_stages_have_rates_of_their_own(spots: Make) -> None:
    with pytest.raises(SettingError, match=r"rate: find \(--find-rate\) is for a recipe without stages"):
        _spec(spots(), epochs=None, stages=[{"name": "a", "epochs": 1, "rate": 0.1}])
