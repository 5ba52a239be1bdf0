from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from torch import nn

from convscope.runs import Recipe
from convscope.training import make_optimizer, rate_at


def _scheduled(recipe: Recipe, make: object, steps_per_epoch: int, every_step: bool) -> list[float]:
    """The rates that PyTorch's own scheduler gives, as an oracle."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.rate)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for step in range(recipe.epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if every_step or (step + 1) % steps_per_epoch == 0:
            scheduler.step()
    return rates


def _ours(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    return [rate_at(recipe, step, steps_per_epoch) for step in range(recipe.epochs * steps_per_epoch)]


def test_step_schedule_is_pytorchs() -> None:
    recipe = Recipe(rate=0.5, schedule="step", step_epochs=2, step_factor=0.3, epochs=7)
    expected = _scheduled(recipe, lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.3), 3, every_step=False)
    assert _ours(recipe, 3) == pytest.approx(expected)


def test_cosine_schedule_is_pytorchs() -> None:
    recipe = Recipe(rate=0.5, schedule="cosine", epochs=4)
    expected = _scheduled(recipe, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20), 5, every_step=True)
    assert _ours(recipe, 5) == pytest.approx(expected)


def test_one_cycle_rises_to_the_rate_and_falls_to_almost_nothing() -> None:
    rates = _ours(Recipe(rate=1.0, schedule="one-cycle", warmup=0.25, epochs=4), 10)
    peak = rates.index(max(rates))
    assert peak == 10
    assert 0.9 < rates[peak] <= 1
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert 0 < rates[-1] < 0.05
    assert 0 < rates[0] < 0.15


def test_inverse_decay_is_keras() -> None:
    recipe = Recipe(rate=0.1, schedule="inverse", decay=0.5, epochs=1)
    assert _ours(recipe, 3) == pytest.approx([0.1, 0.1 / 1.5, 0.1 / 2])


def test_constant() -> None:
    assert set(_ours(Recipe(rate=0.1, schedule="constant", epochs=2), 4)) == {0.1}


KINDS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_weight_decay_spares_biases_and_norms(name: str, kind: type) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    optimizer = make_optimizer(net, Recipe(optimizer=name, weight_decay=0.1))
    assert isinstance(optimizer, kind)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(net[0].weight), id(net[3].weight)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_steps_are_pytorchs_to_the_bit(name: str, kind: type) -> None:
    """Also after the state was written and read, as between a stop and a resume."""
    recipe = Recipe(optimizer=name, weight_decay=0.1)
    torch.manual_seed(0)
    ours = nn.Linear(5, 3)
    theirs = deepcopy(ours)
    options = {"lr": recipe.rate} | ({"momentum": 0.9, "nesterov": True} if name == "sgd" else {})
    options |= {"fused": True} if name != "rmsprop" else {}
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    optimizer, oracle = make_optimizer(ours, recipe), kind(groups, **options)
    for step in range(4):
        images = torch.rand(7, 5)
        for net, taken in ((ours, optimizer), (theirs, oracle)):
            net(images).square().sum().backward()
            taken.step()
            taken.zero_grad()
        if step == 1:
            state = deepcopy(optimizer.state_dict())
            optimizer = make_optimizer(ours, recipe)
            optimizer.load_state_dict(state)
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
        assert ours.weight.grad is None


def test_frozen_parameters_are_not_trained() -> None:
    net = nn.Linear(3, 2)
    net.weight.requires_grad_(False)
    [group] = make_optimizer(net, Recipe()).param_groups
    assert group["params"] == [net.bias]


def test_defaults_follow_the_optimizer() -> None:
    assert (Recipe(optimizer="sgd").rate, Recipe(optimizer="sgd").momentum) == (0.05, 0.9)
    assert (Recipe(optimizer="adam").rate, Recipe(optimizer="rmsprop").momentum) == (0.002, 0.0)
