"""Progressive resizing: sizes worked by hand, images against Pillow, resumed to the bit, and who is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convscope.data import Augmentation, DataBundle, batches, load_data, mix
from convscope.errors import NetworkError, SettingError, StoppedError
from convscope.nets import build_net
from convscope.runs import FIND, MODEL, Recipe, Resize, Run, make_spec, open_run
from convscope.training import Silent, find_rate, measure_step, train
from convscope.training.resizing import resized, sizes
from tests.conftest import write_spots

TIMELESS = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate"]
NET = "c8b M c8b G"


@pytest.fixture
def data(tmp_path: Path) -> DataBundle:
    """144 training images of 12 px: six steps of 24."""
    return load_data(str(write_spots(tmp_path / "spots.npz", 180, side=12)), split="80/10/10")


def _net(text: str = NET, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_net(text, classes=3, image_size=12)


def _recipe(**changes: Any) -> Recipe:
    resize = Resize(start_px=4, until=0.5)
    return Recipe(**{"batch": 24, "epochs": 2, "rate": 0.01, "resize": resize, **changes})


def _train(data: DataBundle, recipe: Recipe, out: Path, net: nn.Module | None = None, **how: Any) -> Run:
    return train(net or _net(), data, recipe, out, device="cpu", **{"watcher": Silent(), **how})


@pytest.mark.parametrize(
    ("start", "shape", "expected"),
    [
        (20, (32, 32), [(20, 20), (24, 24), (28, 28), (32, 32)]),
        (16, (32, 32), [(16, 16), (20, 20), (24, 24), (28, 28), (32, 32)]),
        (14, (28, 28), [(14, 14), (18, 18), (22, 22), (26, 26), (28, 28)]),
        (128, (224, 224), [(128, 128), (152, 152), (176, 176), (200, 200), (224, 224)]),  # 96 px in four parts of 24
        (12, (48, 24), [(24, 12), (32, 16), (40, 20), (48, 24)]),
        (31, (32, 32), [(31, 31), (32, 32)]),
    ],
)
def test_the_sizes_of_a_training(start: int, shape: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    assert sizes(Recipe(resize={"start_px": start}), shape) == expected


def test_the_size_of_each_step() -> None:
    """20 px until 0.6 of 10 epochs of 10 steps: three smaller sizes share 60 steps."""
    recipe, images = Recipe(epochs=10, resize={"start_px": 20, "until": 0.6}), torch.rand(1, 3, 32, 32)
    sides = [resized(images, recipe, step, 10).shape[-1] for step in range(100)]
    assert sides == [20] * 20 + [24] * 20 + [28] * 20 + [32] * 40
    assert resized(images, recipe, 60, 10) is images
    assert resized(images, Recipe(epochs=10), 0, 10) is images


def _by_pillow(images: Tensor, side: int) -> Tensor:
    """Each channel by Pillow's triangle filter, in floats."""
    channels = [
        Image.fromarray(one.numpy()).resize((side, side), Image.Resampling.BILINEAR) for one in images.flatten(0, 1)
    ]
    return torch.from_numpy(np.stack([np.asarray(one) for one in channels])).view(*images.shape[:2], side, side)


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4, "cutmix": 1.0}, {"batch": 12, "accumulate": 2}])
def test_the_network_is_given_images_in_the_size_of_the_step(
    data: DataBundle, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Twelve steps: three at 4 px, three at 8, and the rest at 12; validation and the state at the end are at full size."""
    recipe = _recipe(augmentation=Augmentation(crop=1, policy="trivial"), **changes)
    net, seen = _net(), {True: [], False: []}
    net.register_forward_pre_hook(lambda module, given: seen[module.training].append(given[0].clone()))
    _train(data, recipe, tmp_path / "run", net)
    del seen[True][0]  # the blank images that are tried first
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    expected = []
    for epoch in range(2):
        order = {"seed": 0, "epoch": epoch, "augmentation": recipe.augmentation, "drop_last": True}
        for step, batch in enumerate(batches(data.train, 24, **order)):
            side = (4, 8, 12, 12)[(epoch * 6 + step) // 3]
            images = batch.images if side == 12 else _by_pillow(batch.images, side)
            images, _ = mix(images, batch.targets, recipe.mixup, recipe.cutmix, (0, epoch, step))
            expected += ((images - mean) / std).split(recipe.batch)
    assert len(seen[True]) == len(expected)
    for given, own in zip(seen[True], expected, strict=True):
        torch.testing.assert_close(given, own, rtol=1e-5, atol=1e-5)  # Pillow's filter has weights of its own rounding
    assert {images.shape[-1] for images in seen[False]} == {12, 4, 8}  # 4 and 8 by the check before the training
    assert all(images.shape[-1] == 12 for images in seen[False] if len(images) > 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "augmentation": Augmentation(crop=1, policy="trivial"), "averaging": "ema"},
        {"batch": 12, "accumulate": 2, "mixup": 0.4, "cutmix": 1.0},
        {"precision": "bf16", "channels_last": False},
    ],
)
@pytest.mark.parametrize("at", [(0, 2), (0, 4), (1, 2)])  # in the middle of each size
def test_resumed_in_each_size_gives_the_same_bits(
    data: DataBundle, tmp_path: Path, changes: dict[str, Any], at: tuple[int, int]
) -> None:
    recipe, text = _recipe(**changes), f"W {NET} D0.3"
    _train(data, recipe, tmp_path / "whole", _net(text))

    class Stop(Silent):
        def step(self, epoch: int, step: int, loss: float | None) -> None:
            if (epoch, step) == at:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError):
        _train(data, recipe, tmp_path / "halves", _net(text), watcher=Stop())
    _train(data, recipe, tmp_path / "halves", _net(text, seed=9), resume=True)
    whole, halves = (open_run(tmp_path / name) for name in ("whole", "halves"))
    assert (whole.path / MODEL).read_bytes() == (halves.path / MODEL).read_bytes()
    pd.testing.assert_frame_equal(whole.history[TIMELESS], halves.history[TIMELESS], check_exact=True)


def test_whitening_is_fitted_to_images_of_full_size(data: DataBundle, tmp_path: Path) -> None:
    nets = [_net(f"W {NET}") for _ in range(2)]
    for net, resize in zip(nets, (None, {"start_px": 4}), strict=True):
        _train(data, _recipe(resize=resize, epochs=1), tmp_path / str(bool(resize)), net)
    assert torch.equal(nets[0].whiten1.weight, nets[1].whiten1.weight)


def test_a_network_that_cannot_take_other_sizes_is_refused_before_anything_is_written(
    data: DataBundle, tmp_path: Path
) -> None:
    message = (
        r"recipe.resize: the network cannot take images of 3×4×4: .*; take a larger start_px, or a network that pools"
    )
    with pytest.raises(NetworkError, match=message):
        _train(data, _recipe(), tmp_path / "run", _net("c8b M f8"))
    spec = make_spec(
        {"data": data.spec.model_dump(), "net": "c8b M f8", "recipe": {**_recipe().model_dump(), "rate": FIND}}
    )
    with pytest.raises(NetworkError, match=message):
        find_rate(spec, data, "cpu")
    assert not (tmp_path / "run").exists()


def test_a_network_whose_outputs_depend_on_the_size_is_refused(data: DataBundle, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AvgPool2d((4, 12)), nn.Flatten())
    with pytest.raises(NetworkError, match=r"recipe.resize: two images give \(2, 2\) for 8×8, \(2, 3\) for 12×12 px"):
        _train(data, _recipe(resize={"start_px": 8}), tmp_path / "run", _OfHeight(net))
    assert not (tmp_path / "run").exists()


class _OfHeight(nn.Module):
    """Stretches its images to a width of 12, and not their height."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(nn.functional.adaptive_avg_pool2d(images, (images.shape[2], 12)))


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ({"start_px": 12}, "recipe.resize.start_px: 12 px; expected less than the 12 px of the images"),
        ({"start_px": 4, "until": 0.95}, r"resize.until: 0.95: .* less than or equal to 0.9"),
        ({"start_px": 4, "begin": 3}, "resize.begin: there is no such setting"),
    ],
)
def test_settings_that_do_not_fit_leave_no_folder(
    data: DataBundle, tmp_path: Path, resize: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SettingError, match=expected):
        _train(data, _recipe(resize=resize), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_is_for_recipes_without_stages() -> None:
    stages = [{"name": "head", "train": "head", "epochs": 1, "rate": 0.01}]
    with pytest.raises(SettingError, match="resize: is for a recipe without stages"):
        Recipe(resize={"start_px": 4}, stages=stages)


def test_resized_images_switch_kept_features_off(data: DataBundle, tmp_path: Path) -> None:
    said: list[str] = []

    class Told(Silent):
        def stage(self, name: str, about: str) -> None:
            said.append(about)

    for resize in ({"start_px": 4}, None):
        _train(data, _recipe(train=("head",), resize=resize), tmp_path / str(len(said)), watcher=Told())
    assert "the training images are resized" in said[0]
    assert "on kept features" in said[1]


def test_rates_and_costs_are_those_of_full_size(data: DataBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [{"batch": 24, "rate": FIND, "resize": resize} for resize in ({"start_px": 4}, None)]
    specs = [make_spec({"data": data.spec.model_dump(), "net": NET, "recipe": recipe}) for recipe in given]
    (rate, small), (same, full) = (find_rate(spec, data, "cpu") for spec in specs)
    assert rate == same
    assert small.equals(full)
    sides = []
    monkeypatch.setattr(
        "convscope.training.loop.mix", lambda images, *rest: sides.append(images.shape[-1]) or mix(images, *rest)
    )
    measure_step(specs[0], data, "cpu")
    assert set(sides) == {12}
