"""Mixed images and accumulated gradients in training: against plain loops and whole batches, and resumed to the bit."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from convscope.data import Augmentation, DataBundle, batches, load_data, mix
from convscope.errors import StoppedError
from convscope.nets import Task, build_net, make_task
from convscope.runs import MODEL, Recipe, Run, open_run
from convscope.training import Silent, train
from tests.conftest import spots_of

Make = Callable[..., DataBundle]
TIMELESS = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate"]
BOTH: dict[str, Any] = {"mixup": 0.4, "cutmix": 1.0}
HEADS = {"place": "softmax", "bright": {"kind": "sigmoid", "weight": 2}}


def _net(seed: int = 0, text: str = "c8 M f8", classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return build_net(text, classes=classes, image_size=8)


def _recipe(**changes: Any) -> Recipe:
    plain = {"optimizer": "sgd", "nesterov": False, "momentum": 0.0, "schedule": "constant", "channels_last": False}
    return Recipe(**{"epochs": 2, "batch": 24, "rate": 0.01, **plain, **changes})


def _train(data: DataBundle, recipe: Recipe, out: Path, net: nn.Module | None = None, **how: Any) -> Run:
    return train(net or _net(), data, recipe, out, device="cpu", **{"watcher": Silent(), **how})


@pytest.fixture
def two_heads(tmp_path: Path) -> DataBundle:
    """Spots whose second label says whether the image is brighter than the median."""
    from PIL import Image

    images, labels = spots_of(180)
    bright = images.mean((1, 2, 3)) > np.median(images.mean((1, 2, 3)))
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = [f"{number:03}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    pd.DataFrame({"file": names, "place": labels, "bright": bright.astype(int)}).to_csv(folder / "l.csv", index=False)
    return load_data(str(folder), labels={"table": str(folder / "l.csv"), "label": ["place", "bright"]})


@pytest.mark.parametrize("alphas", [{"mixup": 0.4}, {"cutmix": 1.0}, BOTH])
@pytest.mark.parametrize("weights", [None, {"1": 4, "2": 9}])
def test_a_mixed_training_goes_as_by_a_plain_loop(
    spots: Make, tmp_path: Path, alphas: dict[str, float], weights: Any
) -> None:
    """λ·loss(a) + (1 − λ)·loss(b), each by torch.nn.CrossEntropyLoss; the accuracy is that of the larger share."""
    data, net, mine = spots(), _net(), _net()
    recipe = _recipe(label_smoothing=0.2, class_weights=weights, augmentation=Augmentation(crop=1), **alphas)
    history = _train(data, recipe, tmp_path / "run", net).history
    measure = nn.CrossEntropyLoss(torch.tensor([1.0, 4, 9]) if weights else None, label_smoothing=0.2)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    for epoch in range(2):
        losses, right = [], 0
        order = {"seed": 0, "epoch": epoch, "augmentation": recipe.augmentation, "drop_last": True}
        for step, batch in enumerate(batches(data.train, 24, **order)):
            images, shares = mix(batch.images, batch.targets, recipe.mixup, recipe.cutmix, (0, epoch, step))
            [(large, first), (small, second)] = shares
            outputs = mine((images - mean) / std)
            loss = large * measure(outputs, first["class"]) + small * measure(outputs, second["class"])
            losses.append(loss.item())
            right += int((outputs.argmax(1) == first["class"]).sum())
            for weight, slope in zip(mine.parameters(), torch.autograd.grad(loss, [*mine.parameters()]), strict=True):
                weight.data -= 0.01 * slope
        assert history.train_loss[epoch] == pytest.approx(np.mean(losses), rel=1e-4)
        assert history.train_accuracy[epoch] == pytest.approx(right / (24 * len(losses)))
    torch.testing.assert_close(net.state_dict(), mine.state_dict(), rtol=1e-4, atol=1e-6)  # sums in another order


def test_the_loss_of_several_heads_is_mixed(two_heads: DataBundle, tmp_path: Path) -> None:
    net, mine = _net(classes=4), _net(classes=4)
    recipe = _recipe(epochs=1, mixup=0.4)
    history = _train(two_heads, recipe, tmp_path / "run", net, task=HEADS).history
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (two_heads.mean, two_heads.std))
    losses = []
    for step, batch in enumerate(batches(two_heads.train, 24, seed=0, drop_last=True)):
        images, shares = mix(batch.images, batch.targets, 0.4, 0.0, (0, 0, step))
        outputs = mine((images - mean) / std)
        loss = outputs.new_zeros(())
        for share, targets in shares:
            bright = nn.functional.binary_cross_entropy_with_logits(outputs[:, 3], targets["bright"].float())
            loss = loss + share * (nn.functional.cross_entropy(outputs[:, :3], targets["place"]) + 2 * bright)
        losses.append(loss.item())
        for weight, slope in zip(mine.parameters(), torch.autograd.grad(loss, [*mine.parameters()]), strict=True):
            weight.data -= 0.01 * slope
    assert history.train_loss[0] == pytest.approx(np.mean(losses), rel=1e-4)
    torch.testing.assert_close(net.state_dict(), mine.state_dict(), rtol=1e-4, atol=1e-6)


def test_mixed_images_switch_kept_features_off(spots: Make, tmp_path: Path) -> None:
    said: list[str] = []

    class Told(Silent):
        def stage(self, name: str, about: str) -> None:
            said.append(about)

    for changes in ({"mixup": 0.2}, {"cutmix": 1.0}, {}):
        stage = {"name": "head", "train": "head", "epochs": 1, "rate": 0.01}
        recipe = Recipe(batch=24, stages=[stage], **changes)
        _train(spots(), recipe, tmp_path / str(len(said)), watcher=Told())
    assert ["the training images are mixed" in about for about in said] == [True, True, False]
    assert "kept features" in said[2]


@pytest.mark.parametrize(
    "changes",
    [BOTH, {"accumulate": 3, "batch": 10}, {"accumulate": 2, "batch": 12, **BOTH, "optimizer": "adamw"}],
)
def test_resumed_in_the_middle_of_an_epoch_gives_the_same_bits(
    spots: Make, tmp_path: Path, changes: dict[str, Any]
) -> None:
    data, text = spots(), "c8b M c8b f16b D0.3"
    recipe = _recipe(epochs=3, augmentation=Augmentation(crop=1, policy="trivial", hue=0.1), **changes)
    _train(data, recipe, tmp_path / "whole", _net(text=text))

    class Stop(Silent):
        def step(self, epoch: int, step: int, loss: float | None) -> None:
            if (epoch, step) == (1, 2):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError, match="after step 2 of"):
        _train(data, recipe, tmp_path / "halves", _net(text=text), watcher=Stop())
    _train(data, recipe, tmp_path / "halves", _net(seed=9, text=text), resume=True)
    digests = {hashlib.sha256((tmp_path / name / MODEL).read_bytes()).hexdigest() for name in ("whole", "halves")}
    assert len(digests) == 1
    whole, halves = (open_run(tmp_path / name).history[TIMELESS] for name in ("whole", "halves"))
    pd.testing.assert_frame_equal(whole, halves, check_exact=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class_weights": {"1": 4, "2": 9}, "label_smoothing": 0.2},
        {"clip_norm": 0.5, "schedule": "one-cycle", "optimizer": "adam"},
        {"augmentation": Augmentation(crop=1, policy="rand"), **BOTH, "class_weights": {"1": 4}},
    ],
)
def test_accumulated_batches_are_one_large_batch(spots: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Weights and history, of a network without batch norm; 3 batches of 10 leave out the same images as one of 30."""
    data, parts, whole = spots(), _net(), _net()
    apart = _train(data, _recipe(batch=10, accumulate=3, **changes), tmp_path / "parts", parts)
    at_once = _train(data, _recipe(batch=30, **changes), tmp_path / "whole", whole)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-6)  # sums in another order
    pd.testing.assert_frame_equal(apart.history[TIMELESS], at_once.history[TIMELESS], rtol=1e-4)
    assert len(data.train) % 30 > 10  # so that a batch of 10 is left over that makes no step


def test_accumulated_batches_of_several_weighted_heads_are_one_large_batch(
    two_heads: DataBundle, tmp_path: Path
) -> None:
    """Each head's loss is divided by its own weights of the whole batch."""
    weights = {"class_weights": {"place=1": 5, "bright=0": 7}}
    nets = [_net(classes=4) for _ in range(2)]
    for net, size in zip(nets, ({"batch": 10, "accumulate": 3}, {"batch": 30}), strict=True):
        _train(two_heads, _recipe(**size, **weights), tmp_path / str(size["batch"]), net, task=HEADS)
    torch.testing.assert_close(nets[0].state_dict(), nets[1].state_dict(), rtol=1e-4, atol=1e-6)


def test_no_more_images_at_once_than_a_batch(spots: Make, tmp_path: Path) -> None:
    """And of fewer training images than a step wants it takes as many whole batches as there are."""
    data, sizes = spots(), list[int]()
    net, whole = _net(), _net()
    net[0].register_forward_hook(lambda layer, _, output: sizes.append(len(output)) if output.requires_grad else None)
    _train(data, _recipe(batch=50, accumulate=9), tmp_path / "parts", net)
    assert sizes == [2, *(2 * [50, 50])]  # after the blank images that are tried first
    assert 100 < len(data.train) < 150
    _train(data, _recipe(batch=100), tmp_path / "whole", whole)
    torch.testing.assert_close(net.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-6)


def test_the_losses_of_parts_add_up_to_the_batchs() -> None:
    task: Task = make_task({"a": "softmax", "b": "sigmoid"}, {"a": ("x", "y", "z"), "b": ("n", "y")})
    seeded = torch.Generator().manual_seed(0)
    outputs = torch.randn(7, 4, generator=seeded)
    targets = {"a": torch.tensor([0, 1, 2, 2, 2, 0, 1]), "b": torch.tensor([0, 1, 1, 1, 0, 1, 1])}
    for weights in (None, {"a": torch.tensor([1.0, 2, 5]), "b": torch.tensor([3.0, 1])}):
        parts = [
            task.loss(outputs[rows], {name: of[rows] for name, of in targets.items()}, 0.1, weights, targets)
            for rows in (slice(0, 3), slice(3, 7))
        ]
        torch.testing.assert_close(sum(parts), task.loss(outputs, targets, 0.1, weights))
