"""Two processes that train together: the same training as in one, on the CPU by gloo, started by torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
from torch.testing import assert_close

from convscope.errors import SettingError
from convscope.nets import build_net
from convscope.runs import CHECKPOINT, MODEL, Recipe, open_run, read_tensors
from convscope.training.checks import check_shares
from convscope.training.loop import step_seed
from convscope.training.ranks import Ranks
from tests.training import trained_together
from tests.training.trained_together import CASES, PLAIN, made, train, write_data

ROOT = Path(__file__).parents[2]


def torchrun(*arguments: object, processes: int = 2, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(processes, *arguments), env=_environment(), capture_output=True, text=True, **options
    )


def _command(processes: int, *arguments: object) -> list[str]:
    # a port of its own for each, so that tests beside each other do not meet
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *map(str, arguments)
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each case, trained by two processes."""
    folder = tmp_path_factory.mktemp("together")
    write_data(folder)
    ended = torchrun(trained_together.__file__, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / MODEL)[0]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_come_to_the_weights_of_one(name: str, together: Path, alone: Path) -> None:
    run = train(CASES[name], alone / "run")
    assert_close(weights(together / name), weights(run.path), rtol=1e-4, atol=1e-5)
    figures = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate"]
    ours = pd.read_parquet(together / name / "history.parquet")
    pd.testing.assert_frame_equal(ours[figures], run.history[figures], rtol=1e-4)
    moved = weights(run.path)["conv.weight"] - made().state_dict()["conv.weight"]
    assert moved.abs().max() > 1e-3  # so that equal weights say something


def test_batch_norm_measures_each_share_as_accumulated_batches_do(together: Path, alone: Path) -> None:
    run = train(PLAIN | {"batch": 16, "accumulate": 2}, alone / "run", made(norm=True))
    ours, theirs = weights(together / "norm"), weights(run.path)
    learned = [name for name, _ in made(norm=True).named_parameters()]
    assert_close([ours[name] for name in learned], [theirs[name] for name in learned], rtol=1e-4, atol=1e-5)


def test_all_processes_stop_at_the_same_step_and_go_on_to_the_same_bits(together: Path) -> None:
    assert "stopped in epoch 2 of 2 after step 1 of 4" in (together / "stopped" / "stopped.txt").read_text()
    assert not (together / "stopped" / CHECKPOINT).exists()
    assert (together / "stopped" / MODEL).read_bytes() == (together / "averaged" / MODEL).read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_cover_each_image_once(count: int) -> None:
    for start, stop in [(0, 7), (3, 64), (10, 11)]:
        shares = [range(1000)[Ranks(rank, count).rows(start, stop)] for rank in range(count)]
        assert [place for share in shares for place in share] == list(range(start, stop))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_dropout_differs_between_processes_and_is_in_the_first_as_alone() -> None:
    assert step_seed(4, 9) == step_seed(4, 9, 0)
    assert len({step_seed(4, 9, rank) for rank in range(50)}) == 50


@pytest.mark.parametrize(
    ("batch", "text", "least"), [(3, "c4b:f", 2), (1, "c4:f", 1)], ids=["with batch norm", "without"]
)
def test_a_batch_that_is_too_small_to_share_is_refused(batch: int, text: str, least: int) -> None:
    net = build_net(text.replace(":", " "), classes=3, image_size=8)
    with pytest.raises(SettingError, match=f"recipe.batch: {batch} for 2 processes; each needs {least} or more"):
        check_shares(net, Recipe(batch=batch), Ranks(0, 2), torch.device("cpu"))
    check_shares(net, Recipe(batch=batch), Ranks(), torch.device("cpu"))


def test_batch_norm_over_all_processes_is_for_gpus() -> None:
    net = build_net("c4b f", classes=3, image_size=8)
    recipe = Recipe(sync_batch_norm=True)
    with pytest.raises(SettingError, match="sync_batch_norm: PyTorch has it for several GPUs alone"):
        check_shares(net, recipe, Ranks(0, 2), torch.device("cpu"))
    check_shares(net, recipe, Ranks(), torch.device("cpu"))


def _spec(folder: Path, epochs: int) -> Path:
    write_data(folder)
    spec = folder / "spec.yaml"
    recipe = f"{{batch: 31, epochs: {epochs}, optimizer: sgd, precision: fp32}}"
    spec.write_text(f"data: {{source: {folder / 'data.npz'}}}\nnet: c8 M f\nrecipe: {recipe}\n")
    return spec


@pytest.mark.slow  # three processes that load PyTorch
def test_the_command_speaks_once(tmp_path: Path) -> None:
    ended = torchrun("-m", "convscope", "train", _spec(tmp_path, 2), "--out", tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("trained: ") == ended.stderr.count("epoch 2/2") == 1
    assert ended.stderr.count("\n") == 2
    assert open_run(tmp_path / "run").is_trained


@pytest.mark.slow
def test_what_cannot_be_is_said_once(tmp_path: Path) -> None:
    spec = _spec(tmp_path, 1)
    for wrong, words in [
        (["train", spec, "--set", "recipe.batch=1"], "recipe.batch: 1 for 2 processes; each needs 1 or more"),
        (["train", spec, "--find-rate"], "recipe.rate: find works in a single process"),
        (["evaluate", tmp_path], "torchrun: starts convscope train alone"),
    ]:
        ended = torchrun("-m", "convscope", *wrong, *(["--out", tmp_path / "run"] if wrong[0] == "train" else []))
        assert ended.returncode != 0
        assert ended.stderr.count("convscope: ") == ended.stderr.count(words) == 1
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_after_the_death_of_a_process_all_go_on_from_the_last_epoch(tmp_path: Path) -> None:
    spec = _spec(tmp_path, 40)
    whole = torchrun("-m", "convscope", "train", spec, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    command = _command(2, "--max-restarts=1", "-m", "convscope", "train", spec, "--out", tmp_path / "run")
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as agent:
        while not (tmp_path / "run" / "history.parquet").exists():
            time.sleep(0.01)
            assert agent.poll() is None
        worker = max(psutil.Process(agent.pid).children(), key=lambda process: process.create_time())
        worker.send_signal(signal.SIGKILL)
        assert agent.wait(120) == 0
    assert (tmp_path / "run" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()
