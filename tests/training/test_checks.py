"""What does not fit is told in one line, before anything is written where that can be."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convscope.compute import choose_device
from convscope.data import Augmentation
from convscope.errors import (
    DivergedError,
    FailedError,
    NetworkError,
    RequestError,
    SettingError,
)
from convscope.nets import build_net
from convscope.runs import CHECKPOINT, MODEL, Recipe, read_tensors
from convscope.training import Silent, train
from tests.training.trainings import NET, Make, StopAt, short_recipe, small_net


def test_an_impossible_rate_is_told_with_epoch_step_and_rate(spots: Make, tmp_path: Path) -> None:
    recipe = short_recipe(optimizer="sgd", rate=1e9, schedule="constant")
    with pytest.raises(DivergedError, match=r"the loss is .* in epoch 1, step \d+, at rate 1e\+09; there is no good"):
        train(small_net(), spots(), recipe, tmp_path / "run", device="cpu", watcher=Silent())
    assert not (tmp_path / "run" / MODEL).exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2073600000 bytes."),
    ],
)
def test_a_device_without_memory_for_a_batch_is_told_with_what_to_take(
    error: Exception, spots: Make, tmp_path: Path
) -> None:
    class Large(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training and len(images) > 2:
                raise error
            return super().forward(images)

    net = Large(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(FailedError, match=r"step of 24 images of 3×8×8; take a smaller recipe\.batch"):
        train(net, spots(), short_recipe(), tmp_path / "run", device="cpu", watcher=Silent())


def test_weights_that_turn_to_nan_name_the_last_good_checkpoint(spots: Make, tmp_path: Path) -> None:
    net = small_net()

    def poison() -> None:
        with torch.no_grad():
            net.conv1.weight.fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"in epoch 2, step 3, .*the last good checkpoint is that of epoch 1"):
        train(net, spots(), short_recipe(), tmp_path / "run", device="cpu", watcher=StopAt(1, 2, poison))
    tensors, card = read_tensors(tmp_path / "run" / CHECKPOINT)
    assert card["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_networks_that_do_not_fit_are_refused_before_anything_is_written(spots: Make, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"gives \(2, 7\); the task needs \(2, 3\)"):
        train(build_net(NET, classes=7, image_size=8), spots(), short_recipe(), tmp_path / "run", device="cpu")
    with pytest.raises(NetworkError, match="cannot take images of 3×8×8"):
        train(build_net(NET, classes=3, image_size=12), spots(), short_recipe(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_is_no_network_no_data_or_no_watcher_is_one_line(spots: Make, tmp_path: Path) -> None:
    data, frozen = spots(), small_net().requires_grad_(False)
    for given, error, message in [
        ({"net": "net4"}, NetworkError, "'net4' is no torch.nn.Module; convscope.build_net makes one"),
        ({"net": frozen}, NetworkError, "or all are frozen"),
        (
            {"net": small_net().double()},
            NetworkError,
            "are torch.float64; training keeps them in float32: give net.float()",
        ),
        ({"data": "photos"}, RequestError, "'photos' is no data set; convscope.load_data makes one"),
        ({"data": torch.utils.data.DataLoader([0])}, RequestError, "is no data set; convscope.load_data makes one"),
        ({"watcher": print}, RequestError, "expected an object with begin, stage, step, epoch and end"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            train(**{"net": small_net(), "data": data, "recipe": short_recipe(), "out": tmp_path / "run", **given})
    assert not (tmp_path / "run").exists()


def test_a_network_that_was_made_in_inference_mode_is_refused(spots: Make, tmp_path: Path) -> None:
    with torch.inference_mode():
        net = small_net()
    with pytest.raises(NetworkError, match=r"made under torch\.inference_mode"):
        train(net, spots(), short_recipe(), tmp_path / "run", device="cpu")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(SettingError, match="device: 'cuda:7' is not in this machine; it has cpu"):
        choose_device("cuda:7")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch": 1}, "recipe.batch: 1 image has no spread"),
        ({"augmentation": Augmentation(crop=8, padding="reflect")}, "recipe.augmentation.crop: 8 with padding reflect"),
    ],
)
def test_a_recipe_that_does_not_fit_the_images_leaves_no_folder(
    spots: Make, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SettingError, match=expected):
        train(small_net(), spots(), short_recipe(**changes), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


class _Odd(nn.Module):
    """A network that fails in training alone, in the way that a test says."""

    def __init__(self, trained: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.trained = nn.Linear(192, 3), trained

    def forward(self, images: torch.Tensor) -> Any:
        outputs = self.fc(images.flatten(1))
        return self.trained(outputs) if self.training else outputs


class _Counting(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"images": 0}

    def set_extra_state(self, state: object) -> None:
        pass


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (_Odd(lambda outputs: (outputs, outputs)), r"gives tuple in training mode; .* give the logits alone"),
        (_Odd(lambda outputs: outputs.detach()), r"no gradient reaches what is to learn"),
        (
            _Odd(lambda outputs: outputs.view(7)),
            r"fails in training mode: shape '\[7\]' is invalid for input of size 6",
        ),
        (
            nn.Sequential(nn.Flatten(), _Counting(192, 3)),
            r"1\._extra_state of this network is no tensor, .* get_extra_state",
        ),
    ],
    ids=["auxiliary outputs", "no gradient", "an error", "extra state"],
)
def test_a_network_that_cannot_be_trained_is_refused_before_anything_is_written(
    net: nn.Module, message: str, spots: Make, tmp_path: Path
) -> None:
    with pytest.raises(NetworkError, match=message):
        train(net, spots(), short_recipe(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_of_two_stages_the_one_that_the_output_does_not_depend_on_is_refused(spots: Make, tmp_path: Path) -> None:
    net = _Odd(lambda outputs: outputs)
    net.unused = nn.Linear(2, 2)
    stages = [{"name": name, "train": name, "epochs": 1, "rate": 0.1} for name in ("fc", "unused")]
    with pytest.raises(NetworkError, match="no gradient reaches what is to learn"):
        train(net, spots(), Recipe(stages=stages), tmp_path / "run", device="cpu")
