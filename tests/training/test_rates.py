"""The learning-rate range test: against a plain loop, and what it leaves alone."""

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from convscope.data import DataBundle, batches
from convscope.errors import DivergedError, SettingError
from convscope.nets import build_net
from convscope.runs import FIND, Recipe, RunSpec, make_spec
from convscope.training import find_rate, train

Make = Callable[..., DataBundle]


def _spec(data: DataBundle, net: str = "c8b M f8", **recipe: object) -> RunSpec:
    given = {"batch": 24, "rate": FIND, **recipe}
    return make_spec({"data": data.spec.model_dump(), "net": net, "recipe": given})


def test_its_losses_are_those_of_a_plain_loop(spots: Make) -> None:
    """PyTorch's optimizer on the same batches, the last rate 10⁵ times the first; smoothed as a weighted mean."""
    data = spots()
    rate, found = find_rate(_spec(data, "f8", optimizer="sgd", augmentation={"crop": 1}), data, "cpu")
    torch.manual_seed(0)
    net = build_net("f8", classes=3, channels=3, image_size=8)
    optimizer = torch.optim.SGD(net.parameters(), momentum=0.9, nesterov=True, lr=1.0)
    augmentation = Recipe(augmentation={"crop": 1}).augmentation
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    losses, epoch = [], 0
    while len(losses) < len(found):
        for batch in batches(data.train, 24, seed=0, epoch=epoch, augmentation=augmentation, drop_last=True):
            optimizer.param_groups[0]["lr"] = 1e-4 * 1e5 ** (len(losses) / 99)
            loss = F.cross_entropy(net((batch.images - mean) / std), batch.targets["class"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epoch += 1
    assert epoch > 1  # more steps than the images have batches
    assert found["loss"].tolist() == pytest.approx(losses[: len(found)], rel=1e-3)
    smoothed = []
    for n in range(1, len(found) + 1):
        weights = [0.9 ** (n - 1 - i) for i in range(n)]
        smoothed.append(sum(w * x for w, x in zip(weights, found["loss"], strict=False)) / sum(weights))
    assert found["smoothed"].tolist() == pytest.approx(smoothed)
    assert rate == pytest.approx(found["rate"][found["smoothed"].idxmin()] / 4, rel=0.05)


@pytest.mark.parametrize(("optimizer", "low", "high"), [("sgd", 1e-4, 10), ("adamw", 1e-6, 1), ("rmsprop", 1e-6, 1)])
def test_the_rate_grows_by_one_factor_until_the_loss_explodes(
    spots: Make, optimizer: str, low: float, high: float
) -> None:
    data = spots()
    _, found = find_rate(_spec(data, "c8 M f8", optimizer=optimizer), data, "cpu")
    factor = (high / low) ** (1 / 99)
    assert found["rate"].iloc[0] == pytest.approx(low)
    assert (found["rate"] / found["rate"].shift()).dropna().tolist() == pytest.approx([factor] * (len(found) - 1))
    assert len(found) <= 100
    assert (found["smoothed"] <= 4 * found["smoothed"].cummin()).all()


@pytest.mark.usefixtures("random_state_kept")
def test_its_seed_is_its_own_and_the_random_state_is_left_alone(spots: Make) -> None:
    data = spots()
    (rate, one), (other, two) = (find_rate(_spec(data, "c8b M f8 D0.5", seed=s), data, "cpu") for s in (0, 7))
    assert rate == other
    assert one.equals(two)


def test_only_what_the_recipe_trains_is_trained(spots: Make) -> None:
    data = spots()
    (_, whole), (_, head) = (find_rate(_spec(data, train=names), data, "cpu") for names in ("all", "head"))
    assert head["loss"][0] != whole["loss"][0]  # batch norm of what is frozen is in evaluation mode
    assert head["loss"].iloc[-1] != whole["loss"].iloc[-1]


def test_images_and_networks_that_do_not_fit_are_refused_as_in_training(spots: Make) -> None:
    with pytest.raises(SettingError, match="1 image has no spread for batch norm"):
        find_rate(_spec(spots(), batch=1), spots(), "cpu")


def test_a_loss_that_is_no_number_is_told(spots: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = spots()
    monkeypatch.setattr("convscope.nets.task.Task.loss", lambda self, outputs, *rest: outputs.sum() * float("nan"))
    with pytest.raises(DivergedError, match="no number at any rate"):
        find_rate(_spec(data), data, "cpu")


def test_a_training_by_hand_wants_a_number(spots: Make) -> None:
    with pytest.raises(SettingError, match="find belongs to a spec"):
        train(build_net("f8", classes=3, image_size=8), spots(), Recipe(rate=FIND), "nowhere", device="cpu")
