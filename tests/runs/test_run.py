from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from convscope.data import DataBundle
from convscope.errors import RunFolderError
from convscope.nets import build_net
from convscope.runs import MODEL, SPEC, Recipe, Run, describe_environment, open_run
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
