"""Means of the weights over the steps."""

from pathlib import Path
from typing import Any

import pytest
import torch

from convscope.training import Silent, train
from convscope.training.optimizers import Averaging
from tests.training.trainings import Make, short_recipe, small_net


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
    net = small_net()
    mean = {name: tensor.clone().double() for name, tensor in net.state_dict().items() if tensor.is_floating_point()}
    recipe = short_recipe(averaging="ema", ema_decay=0.8, optimizer=optimizer)
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
    net = small_net()
    slow = net.conv1.weight.detach().clone()
    run = train(net, spots(), short_recipe(averaging="lookahead"), tmp_path / "run", device="cpu", watcher=Silent())
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
    kept = {name: tensor.clone() for name, tensor in small_net().state_dict().items() if "conv" in name}
    net = small_net().to("meta", memory_format=torch.channels_last)  # type: ignore[call-overload]
    averages = Averaging(net, short_recipe(averaging=averaging, ema_decay=0.5), kept)
    averages.step(4, last=True)
    assert {tensor.device.type for tensor in kept.values()} == {"meta"}
    assert kept["conv1.weight"].stride() == net.conv1.weight.stride()
