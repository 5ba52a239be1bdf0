from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from convscope.courses import reproductions
from convscope.data import DataBundle
from convscope.errors import RunFolderError, SettingError, UnknownNameError
from convscope.runs import MODEL, TENSORBOARD, make_spec
from convscope.study import anatomy_by_name, find_spec, find_study, resume_run, run_study, shipped_studies
from convscope.training import Silent


def test_shipped_studies_are_valid_and_say_what_they_are() -> None:
    shipped = shipped_studies()
    assert {"lines", "mnist", "cifar10"} <= set(shipped)
    assert all(shipped.values())
    for name in set(shipped) - set(reproductions()) - {"recipe-ablation"}:
        assert find_spec(name)[1].about == shipped[name]
    assert find_spec("lines")[1].data.split == "60/40"


def test_the_ablation_changes_one_part_of_the_recipe_at_a_time() -> None:
    spec = find_study("recipe-ablation")[1]
    first, *others = spec.grid()
    assert all(sum(first[key] != other[key] for key in first) == 1 for other in others)
    assert spec.n_runs == 3 * (1 + len(others)) == 51
    with pytest.raises(SettingError, match="which convscope sweep trains"):
        find_spec("recipe-ablation")


def test_a_file_is_found_and_named_after_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{data: mnist, net: net1}")
    name, spec = find_spec(str(tmp_path / "mine.yaml"), ["recipe.epochs=2"])
    assert (name, spec.net.name, spec.recipe.epochs) == ("mine", "net1", 2)
    with pytest.raises(UnknownNameError, match=r"there is .*cifar10, .*lines, .*mnist"):
        find_spec("no-such")


def test_a_study_of_several_runs_is_sent_to_sweep(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{data: mnist, net: net1, sweep: {net.width: [6, 12]}}")
    with pytest.raises(
        SettingError, match=r"mine.yaml: sweep: belongs to a study of several runs, which convscope sweep"
    ):
        find_spec(str(tmp_path / "mine.yaml"))


class _Killed(BaseException):
    pass


class _DieAt(Silent):
    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if (epoch, step) == (1, 2):
            raise _Killed


def _spec(data: DataBundle, **changes: object) -> object:
    given = {"data": data.spec.model_dump(), "net": "c8b M f8", "recipe": {"epochs": 3, "batch": 24, **changes}}
    return make_spec(given)


def test_a_study_goes_on_where_it_was_stopped(spots: Callable[..., DataBundle], tmp_path: Path) -> None:
    spec = _spec(spots())
    whole = run_study(spec, tmp_path / "whole", device="cpu", watcher=Silent())
    with pytest.raises(_Killed):
        run_study(spec, tmp_path / "halves", device="cpu", watcher=_DieAt())
    halves = run_study(spec, tmp_path / "halves", device="cpu", watcher=Silent())
    assert (whole.path / MODEL).read_bytes() == (halves.path / MODEL).read_bytes()
    assert whole.metrics == halves.metrics
    with pytest.raises(RunFolderError, match=r"other settings \(recipe\)"):
        run_study(_spec(spots(), rate=0.5), tmp_path / "whole", device="cpu")


def test_only_an_unfinished_training_is_resumed(spots: Callable[..., DataBundle], tmp_path: Path) -> None:
    spec = _spec(spots())
    with pytest.raises(_Killed):
        run_study(spec, tmp_path / "run", device="cpu", watcher=_DieAt())
    assert resume_run(tmp_path / "run", device="cpu", watcher=Silent()).is_trained
    with pytest.raises(RunFolderError, match="nothing to resume"):
        resume_run(tmp_path / "run")


@pytest.mark.usefixtures("random_state_kept")
def test_anatomy_by_name() -> None:
    assert anatomy_by_name("net1", "1x28x28").input == (1, 28, 28)
    assert anatomy_by_name("lenet5").parameters == 3_274_634
    with pytest.raises(SettingError, match="takes square images"):
        anatomy_by_name("net1", "3x32x28")


@pytest.mark.slow
def test_several_heads_and_one_sigmoid_go_the_whole_way(tmp_path: Path) -> None:
    """The four factors of Lines as four heads of one network; and whether a line is red as one sigmoid."""
    from convscope.report import write_report

    task = {"length": "sigmoid", "width": "sigmoid", "colour": "sigmoid", "angle": "softmax"}
    data = {"source": "lines", "limit": 1920}
    for name, heads, outputs in (("four", task, 15), ("one", {"colour": "sigmoid"}, 1)):
        spec = make_spec({"data": data, "net": "c8b M c8b f16", "task": heads, "recipe": {"epochs": 6, "batch": 32}})
        run = run_study(spec, tmp_path / name, device="cpu", watcher=Silent())
        assert run.predictions["logits"].shape[1] == outputs
        assert list(run.metrics["heads"]) == list(heads)
        assert run.metrics["heads"]["colour"]["accuracy"]["value"] > 0.95
        assert write_report(run).stat().st_size > 100_000
        with torch.no_grad():
            assert run.net(torch.zeros(1, 3, 28, 28)).shape == (1, outputs)


def test_a_study_states_the_data_sets_own_defaults_and_works_from_any_folder(
    spots: Callable[..., DataBundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spots()
    monkeypatch.chdir(tmp_path)
    given = {"data": "spots.npz", "net": "c4b M f8", "recipe": {"epochs": 1, "batch": 24}}
    run = run_study(make_spec(given), Path("run"), device="cpu", watcher=Silent())
    assert run.spec.data.source == str(tmp_path / "spots.npz")
    monkeypatch.chdir("/")
    assert run_study(make_spec(given | {"data": run.spec.data.source}), tmp_path / "run", device="cpu").is_trained
    lines = make_spec({"data": {"source": "lines", "limit": 960}, "net": "c4b M", "recipe": {"epochs": 1}})
    assert run_study(lines, tmp_path / "lines", device="cpu", watcher=Silent()).spec.data.split == "60/40"


def test_a_study_tells_trackers_of_epochs_and_of_the_test_images(
    spots: Callable[..., DataBundle], tmp_path: Path
) -> None:
    """Also when it was trained, and stopped, without them; a second time adds nothing."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    spec = _spec(spots())
    with pytest.raises(_Killed):
        run_study(spec, tmp_path / "run", device="cpu", watcher=_DieAt())
    for _ in range(2):
        run = run_study(spec, tmp_path / "run", device="cpu", watcher=Silent(), track=["tensorboard"])
    found = reader.EventAccumulator(str(run.path / TENSORBOARD)).Reload()
    assert [event.step for event in found.Scalars("val_accuracy")] == [1, 2, 3]
    (accuracy,) = found.Scalars("test_accuracy")
    assert accuracy.value == pytest.approx(run.metrics["accuracy"]["value"], rel=1e-6)  # it keeps float32


@pytest.mark.parametrize(
    ("data", "net", "name"),
    [
        ("mnist", "lenet5", "mnist-lenet5"),
        ("my photos/cats: ü", "c8 M f16", "cats-ü-c8-M-f16"),
        ("spots.npz", "timm:resnet18", "spots-timm-resnet18"),
    ],
)
def test_data_and_net_are_a_spec(data: str, net: str, name: str) -> None:
    found = find_spec(None, ["recipe.epochs=2", "data.limit=5", "net.init=he"], data, net)
    assert found == (name, make_spec({
        "data": {"source": data, "limit": 5}, "net": {"name": net, "init": "he"}, "recipe": {"epochs": 2}
    }))  # fmt: skip


def test_data_and_net_stand_in_place_of_a_specs_own() -> None:
    name, spec = find_spec("lines", (), "mnist", "lenet5")
    assert (name, spec.data.source, spec.data.split, spec.net.name) == ("lines", "mnist", None, "lenet5")
    assert spec.recipe == find_spec("lines")[1].recipe
