"""Stages: what is frozen stays as it is, any step can be resumed, and kept features change nothing but the time."""

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.data import Augmentation, DataBundle, batches
from convscope.errors import SettingError, StoppedError, UnknownNameError
from convscope.nets import build_net
from convscope.runs import MODEL, Recipe, Run, open_run
from convscope.training import Lines, Silent, features, loop, train
from tests.gpus import on_gpu

Make = Callable[..., DataBundle]
TIMELESS = ["epoch", "stage", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate"]
HEAD = {"name": "head", "train": ["fc*", "bn2", "relu*", "drop*"], "epochs": 2, "rate": 0.01}
DEEPER = {"name": "deeper", "train": ["conv2", "fc*", "drop1"], "epochs": 2, "rate": 0.003, "schedule": "constant"}


def _net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_net("c8b M c8 f16b D0.3", classes=3, image_size=8)


def _recipe(*stages: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe(**{"batch": 24, "stages": stages or (HEAD, DEEPER), **changes})


def _train(data: DataBundle, recipe: Recipe, out: Path, net: nn.Module | None = None, **how: Any) -> Run:
    return train(net or _net(), data, recipe, out, device="cpu", **{"watcher": Silent(), **how})


def _digest(path: Path) -> str:
    return hashlib.sha256((path / MODEL).read_bytes()).hexdigest()


class _Told(Silent):
    """Remembers what is said of the stages, and may press Ctrl-C at a step."""

    def __init__(self, *stop: int) -> None:
        self.said: dict[str, str] = {}
        self.stop = stop

    def stage(self, name: str, about: str) -> None:
        self.said[name] = about

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if (epoch, step) == self.stop:
            os.kill(os.getpid(), signal.SIGINT)


def test_what_is_frozen_stays_as_it_is(spots: Make, tmp_path: Path) -> None:
    net, before = _net(), _net().state_dict()
    run = _train(spots(), _recipe(HEAD), tmp_path / "run", net)
    after = net.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"fc1", "bn2", "fc2"}  # bn1 keeps its statistics
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert run.history.stage.tolist() == ["head", "head"]


def test_a_stage_goes_as_by_a_plain_loop(spots: Make, tmp_path: Path) -> None:
    """A loop of five lines over the same batches, by plain gradient descent without momentum."""
    data, net = spots(), _net()
    stages = ({**HEAD, "train": ["fc2"], "epochs": 1, "rate": 0.1}, {**DEEPER, "train": ["fc1", "fc2"], "rate": 0.02})
    recipe = _recipe(*stages, optimizer="sgd", nesterov=False, momentum=0.0, schedule="constant", channels_last=False)
    _train(data, recipe, tmp_path / "run", net)
    mine = _net().eval()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    for epoch in range(3):
        layers, rate = ([mine.fc2], 0.1) if epoch == 0 else ([mine.fc1, mine.fc2], 0.02)
        for batch in batches(data.train, 24, seed=0, epoch=epoch, drop_last=True):
            weights = [weight for layer in layers for weight in layer.parameters()]
            loss = F.cross_entropy(mine((batch.images - mean) / std), batch.targets["class"])
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.data -= rate * slope
    torch.testing.assert_close(net.state_dict(), mine.state_dict(), rtol=1e-4, atol=1e-6)  # sums in another order


@pytest.mark.parametrize("at", [(0, 2), (1, 6), (2, 1), (3, 3)])
@pytest.mark.parametrize("patience", [None, 1])
def test_resumed_at_any_step_gives_the_same_bits(
    spots: Make, tmp_path: Path, at: tuple[int, int], patience: int | None
) -> None:
    """In the first stage, at its end, and in the second; resumed with a network of other weights."""
    data, recipe = spots(), _recipe(patience=patience, augmentation=Augmentation(crop=1))
    _train(data, recipe, tmp_path / "whole")
    with pytest.raises(StoppedError, match=rf"stopped in epoch {at[0] + 1} of 4 after step {at[1]} of "):
        _train(data, recipe, tmp_path / "halves", watcher=_Told(*at))
    _train(data, recipe, tmp_path / "halves", _net(seed=9), resume=True)
    assert _digest(tmp_path / "whole") == _digest(tmp_path / "halves")
    whole, halves = (open_run(tmp_path / name).history[TIMELESS] for name in ("whole", "halves"))
    pd.testing.assert_frame_equal(whole, halves, check_exact=True)


def test_rates_and_patience_are_those_of_the_stage(spots: Make, tmp_path: Path) -> None:
    stages = ({**HEAD, "epochs": 30, "rate": 0.05}, {**DEEPER, "epochs": 3})
    run = _train(spots(), _recipe(*stages, patience=2, watch="val_accuracy", schedule="cosine"), tmp_path / "run")
    head, deeper = (run.history[run.history.stage == name] for name in ("head", "deeper"))
    assert len(head) == head.val_accuracy.idxmax() + 3 < 30
    assert head.rate.iloc[0] == 0.05
    assert deeper.rate.tolist() == [0.003] * len(deeper)
    assert run.history.epoch.tolist() == list(range(1, len(run.history) + 1))


def test_a_stage_begins_with_the_best_weights_of_the_one_before(spots: Make, tmp_path: Path) -> None:
    """The second stage learns so slowly that nothing changes: its accuracies are the best of the first."""
    stages = ({**HEAD, "epochs": 6, "rate": 3.0}, {**DEEPER, "train": ["fc2"], "epochs": 1, "rate": 1e-12})
    run = _train(spots(), _recipe(*stages, patience=9, optimizer="sgd", schedule="constant"), tmp_path / "run")
    first = run.history[run.history.stage == "head"].val_loss
    assert first.iloc[-1] > first.min()
    assert run.history.val_loss.iloc[-1] == pytest.approx(first.min(), rel=1e-6)


@pytest.mark.parametrize("memory", [2**30, 0])
def test_kept_features_change_nothing(
    spots: Make, tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, and in a file: history and weights to the bit."""
    monkeypatch.setattr(features, "MEMORY", memory)
    data, told = spots(), (_Told(), _Told())
    for name, keep, watcher in zip(("kept", "whole"), (True, False), told, strict=True):
        _train(data, _recipe(keep_features=keep, label_smoothing=0.1), tmp_path / name, watcher=watcher)
    assert "on kept features of the images" in told[0].said["head"]
    assert "recipe.keep_features is off" in told[1].said["head"]
    kept, whole = (open_run(tmp_path / name) for name in ("kept", "whole"))
    pd.testing.assert_frame_equal(kept.history[TIMELESS], whole.history[TIMELESS], check_exact=True)
    assert all(torch.equal(a, b) for a, b in zip(kept.net.parameters(), whole.net.parameters(), strict=True))
    assert not list(kept.path.glob(".*"))


class Backbone(nn.Module):
    """A body that is no Sequential, with `between` before the head."""

    def __init__(self, between: Callable[[Tensor], Tensor] = nn.Identity()) -> None:
        super().__init__()
        self.conv, self.norm, self.between = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), between
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.between(F.relu(self.norm(self.conv(images)))).mean((2, 3)))


class Doubled(Backbone):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * super().forward(images)


def _batch_statistics(maps: Tensor) -> Tensor:
    return F.batch_norm(maps, None, None, training=True)


@pytest.mark.parametrize(
    ("make", "stage", "expected"),
    [
        (Backbone, {"train": ["head"]}, "83 of 263 parameters learn, on kept features of the images"),
        (Backbone, {"train": ["head.3"]}, "27 of 263 parameters learn, on kept features of the images"),
        (Backbone, {"train": ["head.1"]}, "56 of 263 parameters learn, on kept features of the images"),
        (Backbone, {"train": ["head"], "augmentation": {"flip": "random"}}, "the training images are augmented"),
        (Backbone, {"train": ["head", "norm"]}, "what learns is no end of the network that runs by itself"),
        (Doubled, {"train": ["head"]}, "what learns is no end of the network"),
        (lambda: Backbone(F.dropout), {"train": ["head"]}, "the part that learns gives something else by itself"),
        (lambda: Backbone(_batch_statistics), {"train": ["head"]}, "the part that learns gives something else"),
        (Backbone, {}, "263 of 263 parameters learn"),
    ],
)
def test_features_are_kept_where_that_is_right(
    spots: Make, tmp_path: Path, make: Callable[[], nn.Module], stage: dict[str, Any], expected: str
) -> None:
    """Random numbers or the batch's own statistics in front of the head: no two epochs see the same features."""
    torch.manual_seed(0)
    told = _Told()
    _train(spots(), _recipe({**HEAD, "train": ["all"], **stage}), tmp_path / "run", make(), watcher=told)
    assert expected in told.said["head"]


def test_features_without_room_are_done_without(spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    told = _Told()
    run = _train(spots(), _recipe(HEAD), tmp_path / "run", watcher=told)
    assert "GiB of features have no room in" in told.said["head"]
    assert run.is_trained


@pytest.mark.parametrize(
    ("train_", "error", "expected"),
    [
        (
            ["conv9"],
            UnknownNameError,
            r"recipe.stages.1.train: module 'conv9' is not in this network; did you mean 'conv",
        ),
        (
            ["pool1"],
            SettingError,
            r"recipe.stages.1.train: pool1 has no parameters to train; name a layer with weights",
        ),
    ],
)
def test_modules_that_cannot_be_trained_leave_no_folder(
    spots: Make, tmp_path: Path, train_: list[str], error: type, expected: str
) -> None:
    with pytest.raises(error, match=expected):
        _train(spots(), _recipe(HEAD, {**DEEPER, "train": train_}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_stages_has_no_such_column(spots: Make, tmp_path: Path) -> None:
    run = _train(spots(), Recipe(epochs=1, batch=24), tmp_path / "run")
    assert "stage" not in run.history


def test_the_lines_of_a_training_name_the_stage(
    spots: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(spots(), _recipe(), tmp_path / "run", watcher=Lines())
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines if line.startswith("epoch")] == [
        ["epoch 1/4", "head"], ["epoch 2/4", "head"], ["epoch 3/4", "deeper"], ["epoch 4/4", "deeper"],
    ]  # fmt: skip
    assert [line.split(":")[0] for line in lines if line.startswith("stage")] == ["stage head", "stage deeper"]


@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("memory", [2**30, 0])
def test_kept_features_on_a_gpu(
    spots: Make, tmp_path: Path, precision: str, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device, and in a file. Batches of other sizes are summed in another order: to 1 % of the losses, in bf16 5 %."""
    monkeypatch.setattr(features, "MEMORY", memory)
    data, told = spots(), (_Told(), _Told())
    for name, keep, watcher in zip(("kept", "whole"), (True, False), told, strict=True):
        recipe = _recipe(keep_features=keep, precision=precision)
        train(_net(), data, recipe, tmp_path / name, device="cuda", watcher=watcher)
    assert "on kept features of the images" in told[0].said["head"]
    kept, whole = (open_run(tmp_path / name).history[["train_loss", "val_loss"]] for name in ("kept", "whole"))
    pd.testing.assert_frame_equal(kept, whole, rtol=0.05 if precision == "bf16" else 0.01)


def test_words_stand_for_modules(spots: Make, tmp_path: Path) -> None:
    """Named by words, patterns or both, the same bits; and the screen says what the words stand for."""
    told = _Told()
    stages = ({**HEAD, "train": "head"}, {**DEEPER, "train": ["last_block", "fc2", "relu*"]})
    by_words = _train(spots(), _recipe(*stages), tmp_path / "words", watcher=told)
    stages = ({**HEAD, "train": "fc2"}, {**DEEPER, "train": ["conv2", "fc1", "bn2", "fc2", "relu*"]})
    by_names = _train(spots(), _recipe(*stages), tmp_path / "names")
    assert _digest(by_words.path) == _digest(by_names.path)
    assert told.said["head"].startswith("head is fc2; 51 of ")
    assert told.said["deeper"].startswith("last_block is conv2, fc1, bn2; ")


def test_a_module_of_that_name_is_that_module(spots: Make, tmp_path: Path) -> None:
    torch.manual_seed(0)
    told = _Told()
    _train(spots(), Recipe(train="head", epochs=1, batch=24), tmp_path / "run", Backbone(), watcher=told)
    assert told.said["head"].startswith("83 of 263 parameters learn, on kept features")


@pytest.mark.parametrize("train_", ["head", ["conv2", "head"]])
def test_a_recipes_own_train_is_a_single_stage(spots: Make, tmp_path: Path, train_: Any) -> None:
    told, how = (_Told(), _Told()), {"batch": 24, "schedule": "cosine", "patience": 2}
    name = train_ if isinstance(train_, str) else ", ".join(train_)
    stage = {"name": name, "train": train_, "epochs": 4, "rate": 0.004}
    short = _train(spots(), Recipe(train=train_, epochs=4, rate=0.004, **how), tmp_path / "short", watcher=told[0])
    long = _train(spots(), Recipe(stages=[stage], **how), tmp_path / "long", watcher=told[1])
    pd.testing.assert_frame_equal(short.history[TIMELESS], long.history[TIMELESS], check_exact=True)
    assert _digest(short.path) == _digest(long.path)
    assert told[0].said == told[1].said
    assert open_run(short.path).spec.recipe.train == ((train_,) if isinstance(train_, str) else tuple(train_))


def test_a_recipes_own_train_goes_on_where_it_was_stopped(spots: Make, tmp_path: Path) -> None:
    data, recipe = spots(), Recipe(train="head", epochs=2, batch=24)
    _train(data, recipe, tmp_path / "whole")
    with pytest.raises(StoppedError):
        _train(data, recipe, tmp_path / "halves", watcher=_Told(1, 2))
    _train(data, recipe, tmp_path / "halves", _net(seed=9), resume=True)
    assert _digest(tmp_path / "whole") == _digest(tmp_path / "halves")


@pytest.mark.parametrize(
    ("make", "recipe", "error", "expected"),
    [
        (_net, {"train": "fc9"}, UnknownNameError, r"recipe.train: module 'fc9' is not in this network; did you mean 'fc"),
        (_net, {"train": "last_blok"}, UnknownNameError, "did you mean 'last_block'"),
        (_net, {"train": "pool1"}, SettingError, "recipe.train: pool1 has no parameters to train"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), {"train": "last_block"}, SettingError,
         r"recipe.train: 'last_block' cannot be found in this network: there is no layer .*; name modules \(convscope ana"),
    ],
)  # fmt: skip
def test_words_that_mean_nothing_leave_no_folder(
    spots: Make, tmp_path: Path, make: Callable[[], nn.Module], recipe: dict[str, Any], error: type, expected: str
) -> None:
    with pytest.raises(error, match=expected):
        _train(spots(), Recipe(**recipe), tmp_path / "run", make())
    assert not (tmp_path / "run").exists()


def test_features_of_large_images_are_computed_a_few_at_a_time(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU so many that their maps do not fill the memory; sums in another order, so to 10⁻⁴ of the losses."""
    sizes, features_of = [], loop.features_of

    def told(images: Any, outputs: Any, tail: Any, batch: int, *rest: Any) -> Any:
        sizes.append(batch)
        return features_of(images, outputs, tail, batch, *rest)

    monkeypatch.setattr(loop, "features_of", told)
    data, runs = spots(60, image_size=200), []
    for keep_features in (True, False):
        torch.manual_seed(0)
        net = build_net("c4s4 M c4s2 G", classes=3, image_size=200)
        recipe = Recipe(train="fc1", epochs=2, batch=48, keep_features=keep_features)
        runs.append(_train(data, recipe, tmp_path / str(keep_features), net))
    assert sizes == [17, 17]  # 2²¹ values
    kept, whole = (run.history[TIMELESS] for run in runs)
    pd.testing.assert_frame_equal(kept, whole, rtol=1e-4)
