"""What a sweep would do: sizes and times, of networks that are measured and of those for which there is no time left."""

import sys
from pathlib import Path

import pytest

from convscope.errors import DataError, FailedError, SettingError
from convscope.nets import build_net
from convscope.runs import RunSpec
from convscope.study import plan, read_study
from convscope.training import StepCost
from tests.study.sweeps import study_text


def test_networks_that_are_not_measured_have_their_size_and_the_mean_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_study(study_text(tmp_path, "net.name: [c8b M f8, c4 M f8]", epochs=4), "study.yaml")
    sizes = [
        sum(weights.numel() for weights in build_net(name, classes=3, image_size=8).parameters())
        for name in ("c8b M f8", "c4 M f8")
    ]
    measured = plan(spec, device="cpu")
    assert [run.parameters for run in measured.runs] == sizes
    assert all(run.seconds is not None and run.seconds > 0 for run in measured.runs)
    assert measured.seconds == pytest.approx(sum(run.seconds or 0.0 for run in measured.runs))
    monkeypatch.setattr(sys.modules["convscope.study.plan"], "_MEASURE_S", -1.0)
    unmeasured = plan(spec, device="cpu")
    assert [(run.parameters, run.seconds) for run in unmeasured.runs] == [(size, None) for size in sizes]
    assert unmeasured.seconds is None


def test_runs_that_differ_in_their_seed_alone_are_measured_once(tmp_path: Path) -> None:
    spec = read_study(study_text(tmp_path, "recipe.batch: [24, 48]", epochs=4, seeds=[0, 1]), "study.yaml")
    runs = plan(spec, device="cpu").runs
    assert [(run.number, run.seed) for run in runs] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert runs[0].seconds == runs[1].seconds


def test_data_that_cannot_be_loaded_are_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []

    def unreachable(spec: object) -> None:
        tries.append(spec)
        raise DataError("no network")

    monkeypatch.setattr(sys.modules["convscope.study.plan"], "load_data", unreachable)
    spec = read_study(study_text(tmp_path, "net.name: [c8b M f8, c4 M f8]", epochs=4), "study.yaml")
    with pytest.raises(SettingError, match="none of these runs can be trained: no network"):
        plan(spec, device="cpu")
    assert len(tries) == 1


def test_a_network_that_cannot_be_trained_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def measured(run: RunSpec, *_: object) -> StepCost:
        tries.append(run.recipe.seed)
        if run.net.name.startswith("c4"):
            monkeypatch.setattr(sys.modules["convscope.study.plan"], "_MEASURE_S", -1.0)
            raise FailedError("no memory")
        return StepCost(10, 5, 0.2)

    monkeypatch.setattr(sys.modules["convscope.study.plan"], "measure_step", measured)
    spec = read_study(study_text(tmp_path, "net.name: [c8b M f8, c4 M f8]", epochs=4, seeds=[0, 1]), "study.yaml")
    assert [run.problem for run in plan(spec, device="cpu").runs] == ["", "", "no memory", "no memory"]
    assert len(tries) == 2


@pytest.mark.parametrize(("workers", "seconds"), [(1, 16), (2, 12), (5, 12)])
def test_a_sweep_takes_no_less_than_its_longest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, seconds: float
) -> None:
    """Runs of 4 epochs and 5 steps of 0.2 s and 0.6 s take 4 s and 12 s; two workers do not halve the 16."""

    def measured(run: RunSpec, *_: object) -> StepCost:
        return StepCost(10, 5, 0.2 if run.net.name.startswith("c4") else 0.6)

    monkeypatch.setattr(sys.modules["convscope.study.plan"], "measure_step", measured)
    spec = read_study(study_text(tmp_path, "net.name: [c8b M f8, c4 M f8]", epochs=4), "study.yaml")
    found = plan(spec, workers, device="cpu")
    assert [run.seconds for run in found.runs] == pytest.approx([12, 4])
    assert found.seconds == pytest.approx(seconds)


def test_a_class_that_is_not_there_is_a_problem_of_its_runs_alone(tmp_path: Path) -> None:
    sweep = "recipe.class_weights: [balanced, {'3': 2}, {'2': 2}]"
    runs = plan(read_study(study_text(tmp_path, sweep, epochs=1), "study.yaml"), device="cpu").runs
    assert [bool(run.problem) for run in runs] == [False, True, False]
    assert runs[1].problem == "recipe.class_weights: class '3' is not in this task; there is 0, 1, 2"
