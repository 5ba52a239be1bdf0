from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from convscope.data import DataBundle
from convscope.errors import RequestError, RunFolderError, SettingError
from convscope.nets import build_net
from convscope.report import write_report
from convscope.runs import (
    ENVIRONMENT,
    HISTORY,
    HISTORY_FIGURES,
    METRICS,
    MODEL,
    SPEC,
    Recipe,
    Run,
    describe_environment,
    load_weights,
    open_run,
    parse_overrides,
    read_review,
)
from convscope.scans import evaluate, reviewed_accuracy
from convscope.share import export_run, write_card
from convscope.study import table
from convscope.training import Silent, train


@pytest.fixture
def run(spots: Callable[..., DataBundle], tmp_path: Path) -> Run:
    torch.manual_seed(0)
    net = build_net("c4b M f8", classes=3, image_size=8)
    return train(net, spots(), Recipe(epochs=1, batch=24), tmp_path / "first", device="cpu", watcher=Silent())


def test_a_run_is_a_folder_that_other_tools_read(run: Run) -> None:
    assert {file.name for file in run.path.iterdir()} == {SPEC, MODEL, "environment.json", "history.parquet"}
    assert run.name == "first"
    assert yaml.safe_load((run.path / SPEC).read_text())["net"]["name"] == "c4b M f8"
    assert run.environment["data"]["images"]["train"] > 100
    assert not list(run.path.glob(".*"))


def test_the_model_file_says_how_to_use_it(run: Run) -> None:
    from safetensors import safe_open

    with safe_open(run.path / MODEL, framework="pt") as file:
        assert '"input_shape": [3, 8, 8]' in file.metadata()["convscope"]


def test_folders_that_hold_no_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is no folder; expected a run"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match=r"holds no run: spec\.yaml is missing"):
        open_run(tmp_path)
    spec = yaml.safe_load((run.path / SPEC).read_text())
    (run.path / SPEC).write_text(yaml.safe_dump({**spec, "format": 99}))
    with pytest.raises(RunFolderError, match="newer convscope"):
        open_run(run.path)


def test_missing_parts_say_what_makes_them(run: Run) -> None:
    with pytest.raises(RunFolderError, match=r"metrics\.json is missing; convscope evaluate makes it"):
        open_run(run.path).metrics  # noqa: B018
    (run.path / MODEL).unlink()
    with pytest.raises(RunFolderError, match="convscope train --resume"):
        open_run(run.path).net  # noqa: B018


def test_data_that_changed_since_is_refused(run: Run, spots: Callable[..., DataBundle]) -> None:
    assert open_run(run.path).load_data().digest == run.environment["data"]["digest"]
    spots(150)  # writes the same file with other images
    with pytest.raises(RunFolderError, match="has changed since the training"):
        open_run(run.path).load_data()


def test_data_that_moved_are_found_where_the_spec_says(run: Run, tmp_path: Path) -> None:
    (tmp_path / "spots.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(RunFolderError, match=r"not at .*spots\.npz any more, .* as data\.source, where they are"):
        open_run(run.path).load_data()
    spec = run.path / SPEC
    spec.write_text(spec.read_text().replace("spots.npz", "moved.npz"))
    assert open_run(run.path).load_data().digest == run.environment["data"]["digest"]


def test_damaged_json_is_named(run: Run) -> None:
    (run.path / "metrics.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"metrics\.json is damaged"):
        open_run(run.path).metrics  # noqa: B018


def test_the_environment_names_no_person_or_place() -> None:
    import getpass
    import socket

    text = str(describe_environment())
    assert socket.gethostname() not in text
    assert f"/{getpass.getuser()}/" not in text
    assert "torch" in text


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_weights_of_another_kind(run: Run, kind: torch.dtype) -> None:
    tensors = {name: tensor.to(kind) for name, tensor in run.net.state_dict().items()}
    with pytest.raises(RunFolderError, match=rf"is of type {str(kind)[6:]}, not float32"):
        load_weights(run.net, tensors, run.path)


def test_an_extra_state_goes_back_into_its_module(tmp_path: Path) -> None:
    class Counting(torch.nn.Identity):
        steps = 0

        def get_extra_state(self) -> torch.Tensor:
            return torch.tensor(self.steps)

        def set_extra_state(self, state: torch.Tensor) -> None:
            self.steps = int(state)

    net = torch.nn.Sequential(Counting())
    load_weights(net, {"0._extra_state": torch.tensor(3)}, tmp_path)
    assert net[0].steps == 3


def test_floats_of_another_size_are_weights(run: Run) -> None:
    half = {name: t.half() if t.is_floating_point() else t for name, t in run.net.state_dict().items()}
    load_weights(run.net, half, run.path)
    assert all(torch.equal(t.half(), half[name]) for name, t in run.net.state_dict().items() if t.is_floating_point())


@pytest.mark.parametrize(
    "columns", [{"other": [1]}, {"epoch": [1]}, {name: ["words"] for name in HISTORY_FIGURES}, {}], ids=str
)
def test_a_history_of_other_columns(run: Run, columns: dict[str, list[object]]) -> None:
    pd.DataFrame(columns).to_parquet(run.path / HISTORY)
    with pytest.raises(RunFolderError, match=r"history\.parquet is no history: it lacks numbers in the column"):
        _ = open_run(run.path).history
    [row] = table(run.path.parent).to_dict("records")
    assert row["state"] == "damaged"
    assert "history.parquet is" in row["message"]


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 5000])
def test_numbers_of_thousands_of_digits(run: Run, tmp_path: Path, number: str) -> None:
    with pytest.raises(SettingError, match=r"recipe\.epochs: a number of thousands of digits"):
        parse_overrides([f"recipe.epochs={number}"])
    (run.path / SPEC).write_text(f"data: mnist\nnet: net1\nrecipe: {{epochs: {number}}}\n")
    with pytest.raises(SettingError, match=r"spec\.yaml: a number of thousands of digits"):
        open_run(run.path)


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 400, "1e999"])
def test_numbers_in_json_that_no_column_holds(run: Run, number: str) -> None:
    for part in (ENVIRONMENT, METRICS):
        figure = '{"value": N, "low": N, "high": N}'.replace("N", number)
        (run.path / part).write_text(
            f'{{"parameters": {number}, "accuracy": {figure}, "data": {{}}, "packages": {{}}}}'
        )
    assert len(table(run.path.parent)) == 1


def test_what_looks_at_a_run_takes_its_folder(run: Run, spots: Callable[..., DataBundle], tmp_path: Path) -> None:
    assert open_run(run) is run
    for folder in (run.path, str(run.path)):
        assert evaluate(folder, spots()) == run.metrics
        assert reviewed_accuracy(folder).n_images == run.metrics["images"]
        assert read_review(folder).empty
        assert export_run(folder, tmp_path / "export.safetensors", verify=False).path.exists()


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    "act", [evaluate, write_report, export_run, write_card, open_run, read_review, reviewed_accuracy]
)
def test_what_is_no_run_is_one_line(act: Callable[[object], object]) -> None:
    for given in (3, None, ["runs/a"]):
        with pytest.raises(RequestError, match="expected a run, or its folder"):
            act(given)


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_is_no_data_set_is_one_line(run: Run, spots: Callable[..., DataBundle]) -> None:
    evaluate(run, spots())
    for act in (evaluate, write_report):
        with pytest.raises(RequestError, match=r"data: 'mnist' is no data set; convscope.load_data makes one"):
            act(run, "mnist")
