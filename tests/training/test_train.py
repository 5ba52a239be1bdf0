"""Training: it learns as by a plain loop, repeats to the bit, and hands back what it made."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from convscope.data import Augmentation, batches
from convscope.errors import (
    NetworkError,
    UnknownNameError,
)
from convscope.nets import Whitening, build_net
from convscope.runs import MODEL, Recipe, open_run, read_tensors
from convscope.training import Silent, train
from tests.training.trainings import Make, digest_of, short_recipe, small_net, with_threads


def test_it_learns(spots: Make, tmp_path: Path) -> None:
    run = train(
        small_net(), spots(600), short_recipe(epochs=12, augmentation=Augmentation()), tmp_path / "run", device="cpu"
    )
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
    train(small_net(), spots(), short_recipe(), tmp_path / "run", device="cpu")
    table = pd.read_parquet(tmp_path / "run" / "history.parquet")
    assert table.epoch.tolist() == [1, 2, 3]
    assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate", "seconds", "images_per_s"} < set(table)


def test_whitening_is_fitted_once_to_the_training_images(spots: Make, tmp_path: Path) -> None:
    """And is in the model that is reopened; a network that was trained before keeps its filters."""
    data, net = spots(), small_net(text="We c8 fo")
    run = train(net, data, short_recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    images = data.train.pixels[data.train.index].float() / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    oracle = Whitening(3, 2)
    oracle.fit((images - mean) / std)
    torch.testing.assert_close(net.whiten1.weight, oracle.weight, atol=1e-4, rtol=1e-4)
    assert torch.equal(run.net.whiten1.weight, net.whiten1.weight)
    filters = net.whiten1.weight.clone()
    train(net, spots(seed=5), short_recipe(epochs=1), tmp_path / "again", device="cpu", watcher=Silent())
    assert torch.equal(net.whiten1.weight, filters)


def test_rates_of_modules(spots: Make, tmp_path: Path) -> None:
    """A hundredth of the rate moves plain SGD's weights by a hundredth in the first step; the last name that matches counts."""
    moved = {}
    for name, rates in (("plain", {}), ("slow", {"all": 0.01, "fc*": 1.0, "fc2": 2.0})):
        net = small_net(text="c8 f8")
        first = {key: value.clone() for key, value in net.state_dict().items()}
        settings = {"optimizer": "sgd", "momentum": 0, "nesterov": False, "epochs": 1, "rates": rates}
        recipe = short_recipe(**settings, batch=len(spots().train), augmentation=Augmentation())
        train(net, spots(), recipe, tmp_path / name, device="cpu", watcher=Silent())
        moved[name] = {key: value - first[key] for key, value in net.state_dict().items()}
    for layer, factor in (("conv1", 0.01), ("fc1", 1.0), ("fc2", 2.0)):
        key = f"{layer}.weight"
        torch.testing.assert_close(moved["slow"][key], factor * moved["plain"][key], rtol=1e-3, atol=1e-6)


def test_rates_of_a_module_that_is_not_there(spots: Make, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"recipe\.rates: module 'fc9'"):
        train(small_net(), spots(), short_recipe(rates={"fc9": 1}), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_dropout_is_another_in_every_step(spots: Make, tmp_path: Path) -> None:
    """In every step of every epoch, and with another seed; about half of the units are dropped, as was asked for."""
    masks: list[torch.Tensor] = []
    data = spots()
    for seed in (0, 1):
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 40), nn.Dropout(0.5), nn.Linear(40, 3))
        net[2].register_forward_hook(lambda drop, _, output: masks.append(output == 0) if len(output) == 24 else None)
        train(net, data, short_recipe(epochs=2, seed=seed), tmp_path / str(seed), device="cpu", watcher=Silent())
    assert len(masks) == 2 * 2 * (len(data.train) // 24)
    assert len({mask.numpy().tobytes() for mask in masks}) == len(masks)
    # of some 20,000 units, with a standard deviation of 0.0035
    assert float(torch.cat(masks).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_the_seed_decides(spots: Make, tmp_path: Path) -> None:
    digests = set()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(small_net(), spots(), short_recipe(seed=seed), tmp_path / name, device="cpu", watcher=Silent())
        digests.add(digest_of(tmp_path / name))
    assert len(digests) == 2


@pytest.mark.usefixtures("random_state_kept")
def test_the_global_random_state_is_left_alone(spots: Make, tmp_path: Path) -> None:
    data = spots()
    before = torch.get_rng_state()
    net = small_net()
    torch.set_rng_state(before)
    train(net, data, short_recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())


def test_the_network_comes_back_trained_and_the_run_can_be_reopened(spots: Make, tmp_path: Path) -> None:
    data, net = spots(), small_net()
    run = train(net, data, short_recipe(), tmp_path / "run", device="cpu", watcher=Silent())
    images = data.test.images([0, 1])
    assert not net.training
    with torch.no_grad():
        torch.testing.assert_close(open_run(run.path).net(images), net(images))
    assert run.classes == data.classes
    assert run.normalization == (data.mean, data.std)


def test_a_module_of_the_users_own_is_given_again_to_reopen(spots: Make, tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    run = train(make(), spots(), short_recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    with pytest.raises(NetworkError, match="open it with open_run"):
        open_run(run.path).net  # noqa: B018
    assert open_run(run.path, make()).net(torch.zeros(1, 3, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize(("layer", "change"), [("relu1", nn.GELU()), ("conv1", nn.Conv2d(3, 8, 5, padding=2))])
def test_a_network_that_was_changed_after_it_was_built_is_one_of_the_users_own(
    spots: Make, tmp_path: Path, layer: str, change: nn.Module
) -> None:
    """Built from the spec's name it would have other layers: other answers, or weights that do not fit."""
    net = small_net()
    setattr(net, layer, change)
    run = train(net, spots(), short_recipe(epochs=1), tmp_path / "run", device="cpu", watcher=Silent())
    assert str(getattr(run.net, layer)) == str(change)
    with pytest.raises(NetworkError, match="open it with open_run"):
        open_run(run.path).net  # noqa: B018


def test_patience_stops_and_restores_the_best_weights(spots: Make, tmp_path: Path) -> None:
    recipe = short_recipe(epochs=40, rate=0.05, schedule="constant", patience=2, watch="val_accuracy")
    run = train(small_net(), spots(), recipe, tmp_path / "run", device="cpu", watcher=Silent())
    accuracies = run.history.val_accuracy
    best = accuracies.idxmax()
    assert len(run.history) == best + 3
    weights, _ = read_tensors(run.path / MODEL)
    until_best = train(  # the schedule is constant, so a training of so many epochs goes the same way
        small_net(),
        spots(),
        short_recipe(epochs=int(best) + 1, rate=0.05, schedule="constant"),
        tmp_path / "short",
        device="cpu",
        watcher=Silent(),
    )
    expected, _ = read_tensors(until_best.path / MODEL)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_of_equal_epochs_the_first_is_the_best(spots: Make, tmp_path: Path) -> None:
    """At so low a rate the accuracy stays: with a patience of 2 the training ends after 3 epochs."""
    recipe = short_recipe(epochs=9, rate=1e-12, optimizer="sgd", schedule="constant", patience=2, watch="val_accuracy")
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    run = train(net, spots(), recipe, tmp_path / "run", device="cpu", watcher=Silent())
    assert run.history.val_accuracy.nunique() == 1
    assert len(run.history) == 3


@pytest.mark.parametrize(
    "changes", [{"precision": "bf16"}, {"channels_last": False}, {"clip_norm": 1.0}, {"label_smoothing": 0.1}]
)
def test_every_way_of_computing_learns(spots: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = short_recipe(epochs=10, augmentation=Augmentation(), **changes)
    run = train(small_net(), spots(600), recipe, tmp_path / "run", device="cpu", watcher=Silent())
    assert run.history.val_accuracy.iloc[-1] > 0.8


def test_a_recipes_threads_give_the_same_bits_on_other_numbers_of_cores(spots: Make, tmp_path: Path) -> None:
    """Each thread sums a part of a batch, so that other numbers of threads give other last bits, unless the recipe has one."""
    data, found = spots(), set()
    for cores in (1, 2, 3):
        torch.manual_seed(0)
        net, out = build_net("c32b M c32b f64b", classes=3, image_size=8), tmp_path / f"{cores}"
        recipe = short_recipe(batch=96, threads=2)
        with_threads(cores, lambda n=net, r=recipe, o=out: train(n, data, r, o, device="cpu", watcher=Silent()))
        found.add(digest_of(out))
        assert open_run(out).environment["threads"] == 2
    assert len(found) == 1


def test_gradients_that_the_owner_left_on_a_network_are_not_in_the_first_step(spots: Make, tmp_path: Path) -> None:
    data, recipe = spots(), short_recipe(epochs=1, train="fc*", clip_norm=0.1)
    for name in ("clean", "left"):
        net = small_net()
        if name == "left":
            net(torch.randn(8, 3, 8, 8)).square().sum().backward()
            net.load_state_dict(small_net().state_dict())
        train(net, data, recipe, tmp_path / name, device="cpu", watcher=Silent())
    assert digest_of(tmp_path / "left") == digest_of(tmp_path / "clean")


def test_two_runs_of_one_module_have_networks_of_their_own(spots: Make, tmp_path: Path) -> None:
    """Also where a forward pass left a tensor on the module that hangs on gradients, which PyTorch does not copy."""

    class Mine(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.last = super().forward(images)
            return self.last

    net, data = Mine(nn.Flatten(), nn.Linear(192, 3)), spots()
    runs = [train(net, data, short_recipe(epochs=1), tmp_path / n, device="cpu", watcher=Silent()) for n in "ab"]
    first, second = (run.net[1].weight for run in runs)
    assert not torch.equal(first, second)
    assert torch.equal(second, net[1].weight)
    assert torch.equal(first, read_tensors(tmp_path / "a" / MODEL)[0]["1.weight"])


class Spectral(nn.Module):
    """Weights in the frequency domain, and a convolution over three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Conv3d(1, 2, 3, padding=1)
        self.filter = nn.Parameter(torch.ones(2, 3, 8, 5, dtype=torch.complex64))
        self.fc = nn.Linear(384, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.fft.irfft2(torch.fft.rfft2(self.depth(images[:, None])) * self.filter, s=(8, 8))
        return self.fc(maps.flatten(1).relu())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_complex_weights_and_those_of_five_axes_learn_as_real_ones_of_four(
    spots: Make, tmp_path: Path, optimizer: Any
) -> None:
    """A complex weight goes as a pair of real ones: here a module that holds the pair and says so itself is the oracle."""

    class Pair(Spectral):
        def __init__(self) -> None:
            super().__init__()
            self.pair = nn.Parameter(torch.view_as_real(self._parameters.pop("filter").detach()).clone())

        @property
        def filter(self) -> torch.Tensor:
            return torch.view_as_complex(self.pair)

    recipe, data, runs = short_recipe(optimizer=optimizer, averaging="ema", clip_norm=1.0), spots(), []
    for kind in (Spectral, Pair):
        torch.manual_seed(1)
        runs.append(train(kind(), data, recipe, tmp_path / kind.__name__, device="cpu", watcher=Silent()))
    weights, pair = runs[0].net.filter, runs[1].net.pair
    assert not torch.equal(weights, torch.ones_like(weights))
    torch.testing.assert_close(torch.view_as_real(weights), pair, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_it_trains_where_gradients_are_off(spots: Make, tmp_path: Path, around: Callable[[], Any]) -> None:
    """As in a notebook that begins with torch.set_grad_enabled(False)."""
    net, data = small_net(), spots()
    with around():
        train(net, data, short_recipe(epochs=1), tmp_path / "off", device="cpu", watcher=Silent())
    train(small_net(), data, short_recipe(epochs=1), tmp_path / "on", device="cpu", watcher=Silent())
    assert digest_of(tmp_path / "off") == digest_of(tmp_path / "on")


@pytest.mark.parametrize("changes", [{"optimizer": "muon"}, {"class_weights": "balanced", "mixup": 0.3}])
def test_it_trains_the_same_with_another_default_type(spots: Make, tmp_path: Path, changes: dict[str, Any]) -> None:
    data, recipe, nets = spots(), short_recipe(epochs=1, **changes), (small_net(), small_net())
    train(nets[0], data, recipe, tmp_path / "float32", device="cpu", watcher=Silent())
    torch.set_default_dtype(torch.float64)
    try:
        train(nets[1], data, recipe, tmp_path / "float64", device="cpu", watcher=Silent())
    finally:
        torch.set_default_dtype(torch.float32)
    assert digest_of(tmp_path / "float32") == digest_of(tmp_path / "float64")


def test_a_head_of_any_weight_is_not_taken_for_a_loss_that_exploded(spots: Make, tmp_path: Path) -> None:
    task, recipe = {"class": {"kind": "softmax", "weight": 1e5}}, short_recipe(epochs=1, clip_norm=1.0)
    run = train(small_net(), spots(), recipe, tmp_path / "run", task=task, device="cpu", watcher=Silent())
    assert 1e4 < run.history.train_loss.iloc[0] < 1e6
