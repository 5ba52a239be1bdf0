"""Class imbalance: weighted losses and balanced sampling against plain loops, resumed to the bit, unknown classes named."""

import hashlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F

from convscope.data import Augmentation, DataBundle, ImageSet, batches, load_data
from convscope.errors import StoppedError, UnknownNameError
from convscope.nets import build_net, make_task
from convscope.runs import MODEL, Recipe, Run, open_run
from convscope.training import Silent, train
from convscope.training.imbalance import class_weights
from tests.conftest import spots_of

TIMELESS = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate"]


def _uneven(folder: Path, keep: tuple[float, ...] = (1.0, 0.3, 0.1), n: int = 450) -> DataBundle:
    """Bright spots, of whose three classes there are as many images as these shares say."""
    images, labels = spots_of(n)
    generator = np.random.default_rng(1)
    kept = generator.random(n) < np.array(keep)[labels]
    np.savez(folder / "uneven.npz", x=images[kept], y=labels[kept])
    return load_data(str(folder / "uneven.npz"))


@pytest.fixture
def uneven(tmp_path: Path) -> DataBundle:
    return _uneven(tmp_path)


def _two_heads() -> ImageSet:
    """The first head has classes of 6, 3 and 0 images, the second of 1 and 8."""
    targets = {"angle": torch.tensor([0] * 6 + [1] * 3), "colour": torch.tensor([0] + [1] * 8)}
    pixels = torch.zeros(9, 3, 4, 4, dtype=torch.uint8)
    classes = {"angle": ("0°", "45°", "90°"), "colour": ("red", "blue")}
    return ImageSet(pixels, torch.arange(9), targets, classes)


def _net(seed: int = 0, text: str = "c8b M c8b f16b D0.3") -> nn.Module:
    torch.manual_seed(seed)
    return build_net(text, classes=3, image_size=8)


def _recipe(**changes: Any) -> Recipe:
    return Recipe(**{"epochs": 2, "batch": 24, "rate": 0.01, **changes})


def _train(data: DataBundle, recipe: Recipe, out: Path, net: nn.Module | None = None, **how: Any) -> Run:
    return train(net or _net(), data, recipe, out, device="cpu", **{"watcher": Silent(), **how})


def _digest(run: Path) -> str:
    return hashlib.sha256((run / MODEL).read_bytes()).hexdigest()


def test_balanced_weights_are_scikit_learns(uneven: DataBundle) -> None:
    task = make_task("softmax", uneven.train.classes)
    labels = uneven.train.targets_of().numpy()
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = class_weights(Recipe(class_weights="balanced"), task, uneven.train)
    np.testing.assert_allclose(found["class"].numpy(), expected, rtol=1e-6)


def test_each_head_is_balanced_by_its_own_images_and_a_class_without_any_has_weight_1() -> None:
    images = _two_heads()
    task = make_task({"colour": "sigmoid", "angle": "softmax"}, images.classes)
    found = class_weights(Recipe(class_weights="balanced"), task, images)
    assert {target: weights.tolist() for target, weights in found.items()} == {
        "colour": pytest.approx([4.5, 9 / 16]),
        "angle": pytest.approx([0.75, 1.5, 1.0]),
    }


def test_weights_by_class_name_the_heads_where_there_are_several() -> None:
    images = _two_heads()
    task = make_task({"colour": "sigmoid", "angle": "softmax"}, images.classes)
    found = class_weights(Recipe(class_weights={"colour=red": 3, "angle=45°": 2}), task, images)
    assert {target: weights.tolist() for target, weights in found.items()} == {"colour": [3, 1], "angle": [1, 2, 1]}
    single = make_task({"colour": "sigmoid"}, images.classes)
    assert class_weights(Recipe(class_weights={"blue": 0.5}), single, images)["colour"].tolist() == [1, 0.5]
    assert class_weights(Recipe(), task, images) == {}


def test_an_unknown_class_is_named_before_anything_is_written(uneven: DataBundle, tmp_path: Path) -> None:
    named = replace(uneven, train=replace(uneven.train, classes={"class": ("cat", "dog", "cow")}))
    expected = r"^recipe\.class_weights: class 'dgo' is not in this task; did you mean 'dog'\? there is cat, dog, cow$"
    with pytest.raises(UnknownNameError, match=expected):
        _train(named, _recipe(class_weights={"dgo": 2}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["balanced", {"1": 4, "2": 9}])
def test_a_weighted_training_goes_as_by_a_plain_loop(uneven: DataBundle, tmp_path: Path, given: Any) -> None:
    """Weights and train loss are those of torch.nn.CrossEntropyLoss(weight=…); the validation loss has no weights."""
    recipe = _recipe(
        optimizer="sgd", nesterov=False, momentum=0.0, schedule="constant", channels_last=False, label_smoothing=0.2,
        class_weights=given,
    )  # fmt: skip
    net, mine = _net(text="c8 M f8"), _net(text="c8 M f8")
    history = _train(uneven, recipe, tmp_path / "run", net).history
    labels = uneven.train.targets_of()
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    weights = torch.tensor(balanced if given == "balanced" else [1, 4, 9], dtype=torch.float32)
    measure = nn.CrossEntropyLoss(weight=weights, label_smoothing=0.2)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (uneven.mean, uneven.std))
    for epoch in range(2):
        losses = []
        for batch in batches(uneven.train, 24, seed=0, epoch=epoch, drop_last=True):
            loss = measure(mine((batch.images - mean) / std), batch.targets["class"])
            losses.append(loss.item())
            for weight, slope in zip(mine.parameters(), torch.autograd.grad(loss, [*mine.parameters()]), strict=True):
                weight.data -= 0.01 * slope
        with torch.no_grad():
            logits = mine((uneven.val.images() - mean) / std)
        assert history.train_loss[epoch] == pytest.approx(np.mean(losses), rel=1e-4)
        assert history.val_loss[epoch] == pytest.approx(
            F.cross_entropy(logits, uneven.val.targets_of()).item(), rel=1e-4
        )
    torch.testing.assert_close(net.state_dict(), mine.state_dict(), rtol=1e-4, atol=1e-6)  # sums in another order


def test_balanced_sampling_trains_on_the_draws_and_the_train_accuracy_is_theirs(
    uneven: DataBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate so small that nothing changes, the train accuracy is that of the first weights on the images drawn."""
    recipe = _recipe(rate=1e-12, sampling="balanced", schedule="constant", epochs=1)
    net = _net(text="c8 M f8")
    history = _train(uneven, recipe, tmp_path / "run", net).history
    seen, right = Counter[int](), 0
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (uneven.mean, uneven.std))
    for batch in batches(uneven.train, 24, seed=0, drop_last=True, balance="class"):
        seen.update(batch.targets["class"].tolist())
        with torch.no_grad():
            right += int((net((batch.images - mean) / std).argmax(1) == batch.targets["class"]).sum())
    assert history.train_accuracy[0] == pytest.approx(right / seen.total())
    assert min(seen.values()) > 0.2 * seen.total()
    assert uneven.train.targets_of().bincount()[2] < 0.1 * len(uneven.train)


def test_sampling_and_weights_resumed_in_the_middle_give_the_same_bits(uneven: DataBundle, tmp_path: Path) -> None:
    recipe = _recipe(epochs=3, class_weights={"2": 3}, sampling="balanced", augmentation=Augmentation(crop=1))
    _train(uneven, recipe, tmp_path / "whole")

    class Stop(Silent):
        def step(self, epoch: int, step: int, loss: float | None) -> None:
            if (epoch, step) == (1, 2):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(StoppedError):
        _train(uneven, recipe, tmp_path / "halves", watcher=Stop())
    _train(uneven, recipe, tmp_path / "halves", _net(seed=9), resume=True)
    assert _digest(tmp_path / "whole") == _digest(tmp_path / "halves")
    whole, halves = (open_run(tmp_path / name).history[TIMELESS] for name in ("whole", "halves"))
    pd.testing.assert_frame_equal(whole, halves, check_exact=True)


def test_balanced_sampling_draws_the_same_images_from_kept_features(uneven: DataBundle, tmp_path: Path) -> None:
    stage = {"name": "head", "train": "fc*", "epochs": 2, "rate": 0.01}
    histories = []
    for keep in (True, False):
        recipe = Recipe(batch=24, stages=[stage], keep_features=keep, sampling="balanced", class_weights="balanced")
        histories.append(_train(uneven, recipe, tmp_path / str(keep), _net(text="c8 M f8")).history[TIMELESS])
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)  # features are summed in other batches
    plain = _train(uneven, Recipe(batch=24, stages=[stage]), tmp_path / "plain", _net(text="c8 M f8")).history
    assert abs(plain.train_loss - histories[0].train_loss).max() > 0.01


@pytest.mark.parametrize("settings", [{}, {"class_weights": None, "sampling": "shuffle"}])
def test_a_recipe_without_them_gives_the_bits_of_one_that_does_not_know_them(
    uneven: DataBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """The loss is the plain mean, and the order that of a shuffle, as before there were these settings."""
    _train(uneven, _recipe(**settings), tmp_path / "run")

    monkeypatch.setattr(F, "cross_entropy", _unweighted(F.cross_entropy))
    _train(uneven, _recipe(), tmp_path / "again")
    assert _digest(tmp_path / "run") == _digest(tmp_path / "again")


def _unweighted(plain: Callable[..., Any]) -> Callable[..., Any]:
    def call(logits: torch.Tensor, targets: torch.Tensor, weight: Any = None, **how: Any) -> Any:
        assert weight is None
        assert how["reduction"] == "none"
        return plain(logits, targets, **how)

    return call
