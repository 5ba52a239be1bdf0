"""Training on GPUs, and their random states."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from convscope.compute import own_random_state
from convscope.data import Augmentation
from convscope.nets import build_net
from convscope.runs import open_run
from convscope.training import Silent, train
from tests.gpus import on_gpu
from tests.training.trainings import Make, short_recipe, small_net


@on_gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # torch.compile's advice on dense float32 layers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
@pytest.mark.parametrize("changes", [{}, {"precision": "fp32"}, {"compile": True}])
def test_it_learns_on_a_gpu(spots: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = short_recipe(epochs=12, augmentation=Augmentation(crop=1, flip="none"), **changes)
    run = train(small_net(), spots(600), recipe, tmp_path / "run", device="cuda", watcher=Silent())
    assert run.history.val_accuracy.iloc[-1] > 0.8
    assert open_run(run.path).net.fc1.weight.device.type == "cpu"


@on_gpu
@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_on_a_gpu_as_on_the_cpu(spots: Make, tmp_path: Path, optimizer: str) -> None:
    """Two epochs in float32, without dropout, whose masks differ: rounding grows with the steps, to less than 1e-3 here."""
    data, recipe = spots(), short_recipe(optimizer=optimizer, rate=0.001, epochs=2, precision="fp32")
    names = ["train_loss", "val_loss"]
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        net = build_net("c8b M c8b f16b", classes=3, image_size=8)
        found.append(train(net, data, recipe, tmp_path / device, device=device, watcher=Silent()).history[names])
    pd.testing.assert_frame_equal(found[1], found[0], rtol=1e-3)


@on_gpu
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_random_states_of_gpus_are_left_alone(spots: Make, tmp_path: Path, device: str) -> None:
    torch.cuda.manual_seed_all(7)
    net, before = small_net(), torch.cuda.get_rng_state_all()
    train(net, spots(), short_recipe(epochs=1), tmp_path / "run", device=device, watcher=Silent())
    assert all(map(torch.equal, torch.cuda.get_rng_state_all(), before))


@on_gpu
def test_number_formats_on_a_gpu(spots: Make, tmp_path: Path) -> None:
    """By default bf16, with weights and optimizer in float32; what comes out is within bf16's 8 bits of float32's."""
    runs = {}
    for precision in ("auto", "bf16", "fp32"):
        recipe = short_recipe(epochs=1, rate=1e-4, precision=precision)
        runs[precision] = train(small_net(), spots(), recipe, tmp_path / precision, device="cuda", watcher=Silent())
    assert {parameter.dtype for run in runs.values() for parameter in run.net.parameters()} == {torch.float32}
    losses = {name: run.history.val_loss.item() for name, run in runs.items()}
    assert losses["auto"] == pytest.approx(losses["bf16"], rel=1e-3)
    assert losses["bf16"] != losses["fp32"] == pytest.approx(losses["bf16"], rel=2e-2)


def test_the_random_states_of_all_gpus_in_use_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, acted: `torch.manual_seed` seeds both, also while the work is on the CPU or on one of them."""
    states = {0: torch.tensor([1]), 1: torch.tensor([2])}
    put_back: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put_back.update({device: int(state)}))
    for device in ("cpu", "cuda", "cuda:1"):
        put_back.clear()
        with own_random_state(torch.device(device)):
            pass
        assert put_back == {0: 1, 1: 2}
