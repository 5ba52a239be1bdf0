"""Training: it learns, it repeats to the bit, it can be stopped at any moment, and it says what went wrong."""

import hashlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convscope.compute import choose_device, own_random_state
from convscope.data import Augmentation, DataBundle, batches
from convscope.errors import (
    DivergedError,
    FailedError,
    FolderInUseError,
    NetworkError,
    RequestError,
    RunFolderError,
    SettingError,
    StoppedError,
    UnknownNameError,
)
from convscope.nets import Whitening, build_net
from convscope.runs import CHECKPOINT, MODEL, Recipe, open_run, read_tensors
from convscope.training import Silent, train
from convscope.training.optimizers import Averaging
from tests.gpus import on_gpu
from tests.killing import dead_process

Make = Callable[..., DataBundle]
NET = "c8b M c8b f16b D0.3"


def _net(seed: int = 0, text: str = NET, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build_net(text, classes=3, image_size=8, **options)


def _recipe(**changes: Any) -> Recipe:
    settings = {"epochs": 3, "batch": 24, "rate": 0.01, "augmentation": Augmentation(crop=1, brightness=0.2)}
    return Recipe(**(settings | changes))


def _digest(path: Path) -> str:
    return hashlib.sha256((path / MODEL).read_bytes()).hexdigest()


class _StopAt(Silent):
    """Presses Ctrl-C, or dies, at a step."""

    def __init__(self, epoch: int, step: int, act: Callable[[], None]) -> None:
        self.at, self.act = (epoch, step), act

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if (epoch, step) == self.at:
            self.act()


def test_it_learns(spots: Make, tmp_path: Path) -> None:
    run = train(_net(), spots(600), _recipe(epochs=12, augmentation=Augmentation()), tmp_path / "run", device="cpu")
    assert run.history.val_accuracy.iloc[-1] > 0.9
    assert run.history.train_loss.iloc[-1] < 0.5 * run.history.train_loss.iloc[0]


def test_a_training_goes_as_by_a_plain_loop(spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every setting of a step in use; weights and history are those of PyTorch's own parts.

    The oracle sees what the convscope.data batches of each epoch hold, which tests of that room check.
    """
    monkeypatch.setattr(sys.modules["convscope.training.loop"], "evaluation_batch", lambda *given: 16)
    data, distorted = spots(), Augmentation(crop=1, brightness=0.2)
    given = {"batch": 24, "rate": 0.05, "epochs": 2, "seed": 3, "clip_norm": 0.8, "label_smoothing": 0.2}
    recipe = Recipe(optimizer="sgd", weight_decay=0.1, schedule="cosine", augmentation=distorted, **given)
    torch.manual_seed(0)
    net, mine = (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
        for _ in range(2)
    )
    mine.load_state_dict(net.state_dict())
    history = train(net, data, recipe, tmp_path / "run", device="cpu", watcher=Silent()).history

    steps = len(data.train) // 24
    groups = [
        {"params": [mine[1].weight, mine[4].weight], "weight_decay": 0.1},
        {"params": [mine[2].weight, mine[2].bias, mine[4].bias]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2 * steps)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    clipped = 0
    for epoch in range(2):
        mine.train()
        rate, losses, right = schedule.get_last_lr()[0], [], 0
        for batch in batches(data.train, 24, seed=3, epoch=epoch, augmentation=distorted, drop_last=True):
            labels, outputs = batch.targets["class"], mine((batch.images - mean) / std)
            loss = F.cross_entropy(outputs, labels, label_smoothing=0.2)
            optimizer.zero_grad()
            loss.backward()
            clipped += float(nn.utils.clip_grad_norm_(mine.parameters(), 0.8)) > 0.8
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            right += int((outputs.argmax(1) == labels).sum())
        mine.eval()
        with torch.no_grad():
            logits, labels = mine((data.val.images() - mean) / std), data.val.targets_of()
        row = history.iloc[epoch]
        assert row.rate == pytest.approx(rate)
        assert row.train_loss == pytest.approx(sum(losses) / steps, rel=1e-4)
        assert row.train_accuracy == pytest.approx(right / (24 * steps))
        assert row.val_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
        assert row.val_accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert clipped > 0
    assert len(data.val) % 16 > 0  # so that the last batch of the validation is a smaller one
    torch.testing.assert_close(net.state_dict(), mine.state_dict(), rtol=1e-3, atol=1e-5)  # sums in another order


def test_the_history_is_a_table_that_other_tools_read(spots: Make, tmp_path: Path) -> None:
    train(_net(), spots(), _recipe(), tmp_path / "run", device="cpu")
    table = pd.read_parquet(tmp_path / "run" / "history.parquet")
    assert table.epoch.tolist() == [1, 2, 3]
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate", "seconds", "images_per_s"} < set(table)


@pytest.mark.parametrize(
    ("net", "changes"),
    [
        *((NET, {"optimizer": optimizer}) for optimizer in ("sgd", "adam", "adamw", "rmsprop", "muon")),
        (NET, {"averaging": "ema"}),
        (NET, {"averaging": "lookahead", "optimizer": "muon"}),
        (NET, {"averaging": "ema", "patience": 5}),
        (NET, {"precision": "bf16", "optimizer": "muon"}),
        ("We c8lo M Bn E c8noe fo", {"optimizer": "muon"}),
    ],
)
def test_interrupted_and_resumed_gives_the_same_bits(
    spots: Make, tmp_path: Path, net: str, changes: dict[str, Any]
) -> None:
    """Stopped in the middle of the second epoch; resumed with a network of other weights; the result is the same file."""
    data, recipe = spots(), _recipe(**{"rate": 0.004} | changes)
    train(_net(text=net), data, recipe, tmp_path / "whole", device="cpu", watcher=Silent())
    stop = _StopAt(1, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(
        StoppedError, match=r"stopped in epoch 2 of 3 after step 2 .*convscope train --resume '.*two halves'$"
    ):
        train(_net(text=net), data, recipe, tmp_path / "two halves", device="cpu", watcher=stop)
    assert not (tmp_path / "two halves" / MODEL).exists()
    train(_net(seed=9, text=net), data, recipe, tmp_path / "two halves", device="cpu", resume=True, watcher=Silent())
    assert _digest(tmp_path / "whole") == _digest(tmp_path / "two halves")
    timeless = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate"]
    whole, halves = (open_run(tmp_path / name).history[timeless] for name in ("whole", "two halves"))
    pd.testing.assert_frame_equal(whole, halves, check_exact=True)


def test_killed_between_checkpoints_and_resumed_gives_the_same_bits(spots: Make, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    data, recipe = spots(), _recipe(patience=5)
    train(_net(), data, recipe, tmp_path / "whole", device="cpu", watcher=Silent())
    with pytest.raises(Killed):
        train(_net(), data, recipe, tmp_path / "halves", device="cpu", watcher=_StopAt(1, 3, die))
    train(_net(seed=9), data, recipe, tmp_path / "halves", device="cpu", resume=True, watcher=Silent())
    assert _digest(tmp_path / "whole") == _digest(tmp_path / "halves")
    assert not (tmp_path / "halves" / CHECKPOINT).exists()


def test_killed_before_the_first_checkpoint_begins_again(spots: Make, tmp_path: Path) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    data = spots()
    with pytest.raises(KeyboardInterrupt):
        train(_net(), data, _recipe(), tmp_path / "run", device="cpu", watcher=_StopAt(0, 1, die))
    train(_net(), data, _recipe(), tmp_path / "run", device="cpu", resume=True, watcher=Silent())
    train(_net(), data, _recipe(), tmp_path / "other", device="cpu", watcher=Silent())
    assert _digest(tmp_path / "run") == _digest(tmp_path / "other")


def test_whitening_is_fitted_once_to_the_training_images(spots: Make, tmp_path: Path) -> None:
    """And is in the model that is reopened; a network that was trained before keeps its filters."""
    data, net = spots(), _net(text="We c8 fo")
    run = train(net, data, _recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    images = data.train.pixels[data.train.index].float() / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    oracle = Whitening(3, 2)
    oracle.fit((images - mean) / std)
    torch.testing.assert_close(net.whiten1.weight, oracle.weight, atol=1e-4, rtol=1e-4)
    assert torch.equal(run.net.whiten1.weight, net.whiten1.weight)
    filters = net.whiten1.weight.clone()
    train(net, spots(seed=5), _recipe(epochs=1), tmp_path / "again", device="cpu", watcher=Silent())
    assert torch.equal(net.whiten1.weight, filters)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_ema_is_the_mean_of_the_weights_of_the_steps(
    spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    data = spots()
    seen: list[dict[str, torch.Tensor]] = []
    step = Averaging.step

    def noted(self: Averaging, number: int, last: bool) -> None:
        seen.append({name: tensor.clone() for name, tensor in self.net.state_dict().items()})
        step(self, number, last)

    monkeypatch.setattr(Averaging, "step", noted)
    net = _net()
    mean = {name: tensor.clone().double() for name, tensor in net.state_dict().items() if tensor.is_floating_point()}
    recipe = _recipe(averaging="ema", ema_decay=0.8, optimizer=optimizer)
    run = train(net, data, recipe, tmp_path / "run", device="cpu", watcher=Silent())
    for number, weights in enumerate(seen):
        decay = min(0.8, (1 + number) / (10 + number))
        mean = {name: decay * value + (1 - decay) * weights[name] for name, value in mean.items()}
    kept = run.net.state_dict()
    for name, value in mean.items():
        torch.testing.assert_close(kept[name].double(), value, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(kept["conv1.weight"], seen[-1]["conv1.weight"], atol=1e-5)


def test_lookahead_takes_half_of_every_five_steps(spots: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a plain loop over the weights that each step ended with; an epoch's end counts as a fifth step."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    step = Averaging.step

    def noted(self: Averaging, number: int, last: bool) -> None:
        before = self.net.conv1.weight.detach().clone()
        step(self, number, last)
        seen.append((before, self.net.conv1.weight.detach().clone()))

    monkeypatch.setattr(Averaging, "step", noted)
    net = _net()
    slow = net.conv1.weight.detach().clone()
    run = train(net, spots(), _recipe(averaging="lookahead"), tmp_path / "run", device="cpu", watcher=Silent())
    a_epoch = len(seen) // 3
    for number, (before, after) in enumerate(seen):
        if (number + 1) % 5 == 0 or (number + 1) % a_epoch == 0:
            slow = slow + 0.5 * (before - slow)
            torch.testing.assert_close(after, slow)
        else:
            assert torch.equal(after, before)
    torch.testing.assert_close(run.net.conv1.weight, slow)


@pytest.mark.parametrize("averaging", ["ema", "lookahead"])
def test_a_mean_that_a_checkpoint_kept_goes_where_the_network_is(averaging: Any) -> None:
    """The device without numbers stands for a GPU."""
    kept = {name: tensor.clone() for name, tensor in _net().state_dict().items() if "conv" in name}
    net = _net().to("meta", memory_format=torch.channels_last)  # type: ignore[call-overload]
    averages = Averaging(net, _recipe(averaging=averaging, ema_decay=0.5), kept)
    averages.step(4, last=True)
    assert {tensor.device.type for tensor in kept.values()} == {"meta"}
    assert kept["conv1.weight"].stride() == net.conv1.weight.stride()


def test_rates_of_modules(spots: Make, tmp_path: Path) -> None:
    """A hundredth of the rate moves plain SGD's weights by a hundredth in the first step; the last name that matches counts."""
    moved = {}
    for name, rates in (("plain", {}), ("slow", {"all": 0.01, "fc*": 1.0, "fc2": 2.0})):
        net = _net(text="c8 f8")
        first = {key: value.clone() for key, value in net.state_dict().items()}
        settings = {"optimizer": "sgd", "momentum": 0, "nesterov": False, "epochs": 1, "rates": rates}
        recipe = _recipe(**settings, batch=len(spots().train), augmentation=Augmentation())
        train(net, spots(), recipe, tmp_path / name, device="cpu", watcher=Silent())
        moved[name] = {key: value - first[key] for key, value in net.state_dict().items()}
    for layer, factor in (("conv1", 0.01), ("fc1", 1.0), ("fc2", 2.0)):
        key = f"{layer}.weight"
        torch.testing.assert_close(moved["slow"][key], factor * moved["plain"][key], rtol=1e-3, atol=1e-6)


def test_rates_of_a_module_that_is_not_there(spots: Make, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"recipe\.rates: module 'fc9'"):
        train(_net(), spots(), _recipe(rates={"fc9": 1}), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_dropout_is_another_in_every_step(spots: Make, tmp_path: Path) -> None:
    """In every step of every epoch, and with another seed; about half of the units are dropped, as was asked for."""
    masks: list[torch.Tensor] = []
    data = spots()
    for seed in (0, 1):
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 40), nn.Dropout(0.5), nn.Linear(40, 3))
        net[2].register_forward_hook(lambda drop, _, output: masks.append(output == 0) if drop.training else None)
        train(net, data, _recipe(epochs=2, seed=seed), tmp_path / str(seed), device="cpu", watcher=Silent())
    assert len(masks) == 2 * 2 * (len(data.train) // 24)
    assert len({mask.numpy().tobytes() for mask in masks}) == len(masks)
    # of some 20,000 units, with a standard deviation of 0.0035
    assert float(torch.cat(masks).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_the_seed_decides(spots: Make, tmp_path: Path) -> None:
    digests = set()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(_net(), spots(), _recipe(seed=seed), tmp_path / name, device="cpu", watcher=Silent())
        digests.add(_digest(tmp_path / name))
    assert len(digests) == 2


@pytest.mark.usefixtures("random_state_kept")
def test_the_global_random_state_is_left_alone(spots: Make, tmp_path: Path) -> None:
    data = spots()
    before = torch.get_rng_state()
    net = _net()
    torch.set_rng_state(before)
    train(net, data, _recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())


def test_the_network_comes_back_trained_and_the_run_can_be_reopened(spots: Make, tmp_path: Path) -> None:
    data, net = spots(), _net()
    run = train(net, data, _recipe(), tmp_path / "run", device="cpu", watcher=Silent())
    images = data.test.images([0, 1])
    assert not net.training
    with torch.no_grad():
        torch.testing.assert_close(open_run(run.path).net(images), net(images))
    assert run.classes == data.classes
    assert run.normalization == (data.mean, data.std)


def test_a_module_of_the_users_own_is_given_again_to_reopen(spots: Make, tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    run = train(make(), spots(), _recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    with pytest.raises(NetworkError, match="open it with open_run"):
        open_run(run.path).net  # noqa: B018
    assert open_run(run.path, make()).net(torch.zeros(1, 3, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize(("layer", "change"), [("relu1", nn.GELU()), ("conv1", nn.Conv2d(3, 8, 5, padding=2))])
def test_a_network_that_was_changed_after_it_was_built_is_one_of_the_users_own(
    spots: Make, tmp_path: Path, layer: str, change: nn.Module
) -> None:
    """Built from the spec's name it would have other layers: other answers, or weights that do not fit."""
    net = _net()
    setattr(net, layer, change)
    run = train(net, spots(), _recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    assert getattr(run.net, layer) is change
    with pytest.raises(NetworkError, match="open it with open_run"):
        open_run(run.path).net  # noqa: B018


def test_patience_stops_and_restores_the_best_weights(spots: Make, tmp_path: Path) -> None:
    recipe = _recipe(epochs=40, rate=0.05, schedule="constant", patience=2, watch="val_accuracy")
    run = train(_net(), spots(), recipe, tmp_path / "run", device="cpu", watcher=Silent())
    accuracies = run.history.val_accuracy
    best = accuracies.idxmax()
    assert len(run.history) == best + 3
    weights, _ = read_tensors(run.path / MODEL)
    until_best = train(  # the schedule is constant, so a training of so many epochs goes the same way
        _net(), spots(), _recipe(epochs=int(best) + 1, rate=0.05, schedule="constant"), tmp_path / "short", device="cpu",
        watcher=Silent(),
    )  # fmt: skip
    expected, _ = read_tensors(until_best.path / MODEL)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_resumed_after_the_best_epoch_the_best_weights_come_back(spots: Make, tmp_path: Path) -> None:
    """Stopped in the epoch after the best: what is best was seen before the stop alone."""
    data, recipe = spots(), _recipe(epochs=40, rate=0.05, schedule="constant", patience=2, watch="val_accuracy")
    whole = train(_net(), data, recipe, tmp_path / "whole", device="cpu", watcher=Silent())
    best = int(whole.history.val_accuracy.idxmax())
    stop = _StopAt(best + 1, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError):
        train(_net(), data, recipe, tmp_path / "halves", device="cpu", watcher=stop)
    halves = train(_net(seed=9), data, recipe, tmp_path / "halves", device="cpu", resume=True, watcher=Silent())
    assert len(halves.history) == len(whole.history) == best + 3
    assert _digest(tmp_path / "halves") == _digest(tmp_path / "whole")


def test_of_equal_epochs_the_first_is_the_best(spots: Make, tmp_path: Path) -> None:
    """At so low a rate the accuracy stays: with a patience of 2 the training ends after 3 epochs."""
    recipe = _recipe(epochs=9, rate=1e-12, optimizer="sgd", schedule="constant", patience=2, watch="val_accuracy")
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    run = train(net, spots(), recipe, tmp_path / "run", device="cpu", watcher=Silent())
    assert run.history.val_accuracy.nunique() == 1
    assert len(run.history) == 3


def test_an_impossible_rate_is_told_with_epoch_step_and_rate(spots: Make, tmp_path: Path) -> None:
    recipe = _recipe(optimizer="sgd", rate=1e9, schedule="constant")
    with pytest.raises(DivergedError, match=r"the loss is .* in epoch 1, step \d+, at rate 1e\+09; there is no good"):
        train(_net(), spots(), recipe, tmp_path / "run", device="cpu", watcher=Silent())
    assert not (tmp_path / "run" / MODEL).exists()


def test_a_gpu_without_memory_for_a_batch_is_told_with_what_to_take(spots: Make, tmp_path: Path) -> None:
    class Large(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().forward(images)

    net = Large(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(FailedError, match=r"step of 24 images of 3×8×8; take a smaller recipe\.batch"):
        train(net, spots(), _recipe(), tmp_path / "run", device="cpu", watcher=Silent())


def test_weights_that_turn_to_nan_name_the_last_good_checkpoint(spots: Make, tmp_path: Path) -> None:
    net = _net()

    def poison() -> None:
        with torch.no_grad():
            net.conv1.weight.fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"in epoch 2, step 3, .*the last good checkpoint is that of epoch 1"):
        train(net, spots(), _recipe(), tmp_path / "run", device="cpu", watcher=_StopAt(1, 2, poison))
    tensors, card = read_tensors(tmp_path / "run" / CHECKPOINT)
    assert card["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_folder_that_is_taken_is_refused(spots: Make, tmp_path: Path) -> None:
    data = spots()
    train(_net(), data, _recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    with pytest.raises(RunFolderError, match="holds a finished run already; choose another --out"):
        train(_net(), data, _recipe(epochs=1), tmp_path / "run", device="cpu")
    with pytest.raises(RunFolderError, match="there is nothing to resume"):
        train(_net(), data, _recipe(epochs=1), tmp_path / "run", device="cpu", resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="exists and is no run"):
        train(_net(), data, _recipe(epochs=1), tmp_path / "mine", device="cpu")


def test_another_spec_or_other_data_is_not_resumed(spots: Make, tmp_path: Path) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(_net(), spots(), _recipe(), tmp_path / "run", device="cpu", watcher=_StopAt(1, 1, die))
    with pytest.raises(RunFolderError, match=r"other settings \(recipe\)"):
        train(_net(), spots(), _recipe(epochs=9), tmp_path / "run", device="cpu", resume=True)
    with pytest.raises(RunFolderError, match="has changed since this run began"):
        train(_net(), spots(210), _recipe(), tmp_path / "run", device="cpu", resume=True)


def test_networks_that_do_not_fit_are_refused_before_anything_is_written(spots: Make, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"gives \(2, 7\); the task needs \(2, 3\)"):
        train(build_net(NET, classes=7, image_size=8), spots(), _recipe(), tmp_path / "run", device="cpu")
    with pytest.raises(NetworkError, match="cannot take images of 3×8×8"):
        train(build_net(NET, classes=3, image_size=12), spots(), _recipe(), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_is_no_network_no_data_or_no_watcher_is_one_line(spots: Make, tmp_path: Path) -> None:
    class Noting(torch.nn.Identity):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

    data, frozen, noting = spots(), _net().requires_grad_(False), torch.nn.Sequential(_net(), Noting())
    for given, error, message in [
        ({"net": "net4"}, NetworkError, "'net4' is no torch.nn.Module; convscope.build_net makes one"),
        ({"net": frozen}, NetworkError, "or all are frozen"),
        ({"net": noting}, NetworkError, "holds '1._extra_state', a dict, and a run keeps tensors alone"),
        ({"net": _net().double()}, NetworkError, "are torch.float64; training keeps them in float32: give net.float()"),
        ({"data": "photos"}, RequestError, "'photos' is no data set; convscope.load_data makes one"),
        ({"data": torch.utils.data.DataLoader([0])}, RequestError, "is no data set; convscope.load_data makes one"),
        ({"watcher": print}, RequestError, "expected an object with begin, stage, step, epoch and end"),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            train(**{"net": _net(), "data": data, "recipe": _recipe(), "out": tmp_path / "run", **given})
    assert not (tmp_path / "run").exists()


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(SettingError, match="device: 'cuda:7' is not in this machine; it has cpu"):
        choose_device("cuda:7")


@pytest.mark.parametrize(
    "changes", [{"precision": "bf16"}, {"channels_last": False}, {"clip_norm": 1.0}, {"label_smoothing": 0.1}]
)
def test_every_way_of_computing_learns(spots: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = _recipe(epochs=10, augmentation=Augmentation(), **changes)
    run = train(_net(), spots(600), recipe, tmp_path / "run", device="cpu", watcher=Silent())
    assert run.history.val_accuracy.iloc[-1] > 0.8


@on_gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # torch.compile's advice on dense float32 layers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
@pytest.mark.parametrize("changes", [{}, {"precision": "fp32"}, {"compile": True}])
def test_it_learns_on_a_gpu(spots: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = _recipe(epochs=12, augmentation=Augmentation(crop=1, flip="none"), **changes)
    run = train(_net(), spots(600), recipe, tmp_path / "run", device="cuda", watcher=Silent())
    assert run.history.val_accuracy.iloc[-1] > 0.8
    assert open_run(run.path).net.fc1.weight.device.type == "cpu"


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
        train(_net(), spots(), _recipe(**changes), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_what_a_kill_left_half_written_is_swept(spots: Make, tmp_path: Path) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    data = spots()
    with pytest.raises(KeyboardInterrupt):
        train(_net(), data, _recipe(), tmp_path / "run", device="cpu", watcher=_StopAt(1, 1, die))
    (tmp_path / "run" / f".checkpoint.safetensors.{dead_process()}-ab.unfinished").write_bytes(b"half")
    train(_net(), data, _recipe(), tmp_path / "run", device="cpu", resume=True, watcher=Silent())
    assert not list((tmp_path / "run").glob(".*"))


def test_one_training_at_a_time_is_in_a_folder(spots: Make, tmp_path: Path) -> None:
    """The second is refused, and the first goes on as if it had not been there."""
    data, refused = spots(), []

    def second() -> None:
        for resume in (True, False):
            with pytest.raises(FolderInUseError, match="is in use: another process is training there") as error:
                train(_net(seed=9), data, _recipe(), tmp_path / "run", device="cpu", resume=resume, watcher=Silent())
            refused.append(error)

    train(_net(), data, _recipe(), tmp_path / "run", device="cpu", watcher=_StopAt(1, 2, second))
    train(_net(), data, _recipe(), tmp_path / "alone", device="cpu", watcher=Silent())
    assert len(refused) == 2
    assert _digest(tmp_path / "run") == _digest(tmp_path / "alone")


@pytest.mark.parametrize("act", [shutil.rmtree, lambda path: path.rename(path.with_name("elsewhere"))])
def test_a_folder_that_is_removed_or_renamed_meanwhile_ends_the_training(
    spots: Make, tmp_path: Path, act: Callable[[Path], object]
) -> None:
    with pytest.raises(FailedError, match="was removed or renamed during the training, which stops here"):
        train(
            _net(),
            spots(),
            _recipe(),
            tmp_path / "run",
            device="cpu",
            watcher=_StopAt(1, 2, lambda: act(tmp_path / "run")),
        )
    assert not (tmp_path / "run").exists()
    if (tmp_path / "elsewhere").exists():
        train(_net(), spots(), _recipe(), tmp_path / "elsewhere", device="cpu", resume=True, watcher=Silent())


def test_a_checkpoint_that_a_kill_left_beside_the_model_is_removed(spots: Make, tmp_path: Path) -> None:
    run = train(_net(), spots(), _recipe(), tmp_path / "run", device="cpu", watcher=Silent())
    (run.path / CHECKPOINT).write_bytes(b"left")
    open_run(run.path)
    assert not run.has(CHECKPOINT)


def test_ctrl_c_after_the_last_step_is_heard(spots: Make, tmp_path: Path) -> None:
    class Last(Silent):
        def epoch(self, row: dict[str, Any]) -> None:
            if row["epoch"] == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="had just come to its end"):
        train(_net(), spots(), _recipe(), tmp_path / "run", device="cpu", watcher=Last())
    assert open_run(tmp_path / "run").is_trained


def test_a_given_network_is_resumed_from_its_own_first_weights(spots: Make, tmp_path: Path) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    data = spots()
    train(_net(seed=3), data, _recipe(), tmp_path / "whole", device="cpu", watcher=Silent())
    with pytest.raises(KeyboardInterrupt):
        train(_net(seed=3), data, _recipe(), tmp_path / "run", device="cpu", watcher=_StopAt(0, 1, die))
    train(_net(seed=9), data, _recipe(), tmp_path / "run", device="cpu", resume=True, watcher=Silent())
    assert _digest(tmp_path / "run") == _digest(tmp_path / "whole")


@on_gpu
@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "sgd"}, {"averaging": "ema"}, {"averaging": "lookahead"}, {"optimizer": "rmsprop", "patience": 2}],
)
def test_a_training_on_a_gpu_is_resumed_and_evaluated(spots: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    from convscope.scans import evaluate

    data, recipe = spots(), _recipe(rate=0.004, **changes)
    stop = _StopAt(1, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError):
        train(_net(), data, recipe, tmp_path / "run", device="cuda", watcher=stop)
    run = train(_net(seed=9), data, recipe, tmp_path / "run", device="cuda", resume=True, watcher=Silent())
    assert len(run.history) == 3
    assert evaluate(run, data, "cuda")["images"] == len(data.test)


@on_gpu
@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_on_a_gpu_as_on_the_cpu(spots: Make, tmp_path: Path, optimizer: str) -> None:
    """Two epochs in float32, without dropout, whose masks differ: rounding grows with the steps, to less than 1e-3 here."""
    data, recipe = spots(), _recipe(optimizer=optimizer, rate=0.001, epochs=2, precision="fp32")
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
    net, before = _net(), torch.cuda.get_rng_state_all()
    train(net, spots(), _recipe(epochs=1), tmp_path / "run", device=device, watcher=Silent())
    assert all(map(torch.equal, torch.cuda.get_rng_state_all(), before))


@on_gpu
def test_number_formats_on_a_gpu(spots: Make, tmp_path: Path) -> None:
    """By default bf16, with weights and optimizer in float32; what comes out is within bf16's 8 bits of float32's."""
    runs = {}
    for precision in ("auto", "bf16", "fp32"):
        recipe = _recipe(epochs=1, rate=1e-4, precision=precision)
        runs[precision] = train(_net(), spots(), recipe, tmp_path / precision, device="cuda", watcher=Silent())
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


def _with_threads(n: int, work: Callable[[], Any]) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def test_a_recipes_threads_give_the_same_bits_on_other_numbers_of_cores(spots: Make, tmp_path: Path) -> None:
    """Each thread sums a part of a batch, so that other numbers of threads give other last bits, unless the recipe has one."""
    data, found = spots(), set()
    for cores in (1, 2, 3):
        torch.manual_seed(0)
        net, out = build_net("c32b M c32b f64b", classes=3, image_size=8), tmp_path / f"{cores}"
        recipe = _recipe(batch=96, threads=2)
        _with_threads(cores, lambda n=net, r=recipe, o=out: train(n, data, r, o, device="cpu", watcher=Silent()))
        found.add(_digest(out))
        assert open_run(out).environment["threads"] == 2
    assert len(found) == 1


@pytest.mark.parametrize(
    ("threads", "note"), [(None, "began with 2 threads and goes on with 1:.*OMP_NUM_THREADS=2"), (2, "")]
)
def test_a_resumed_training_says_where_its_threads_changed(
    threads: int | None, note: str, spots: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, recipe = spots(), _recipe(threads=threads)
    stop = _StopAt(1, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(StoppedError):
        _with_threads(2, lambda: train(_net(), data, recipe, tmp_path / "run", device="cpu", watcher=stop))
    capsys.readouterr()
    _with_threads(1, lambda: train(_net(), data, recipe, tmp_path / "run", device="cpu", resume=True, watcher=Silent()))
    said = capsys.readouterr().err
    assert re.search(note, said) if note else said == ""
