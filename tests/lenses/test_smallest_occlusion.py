"""The smallest square that changes the answer, against a loop over all squares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import RequestError
from convscope.scope import Scope


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 16, 4))


def by_loop(scope: Scope, image: Tensor, fill: float) -> tuple[tuple[int, int, int], int, float] | None:
    before = int(scope.probabilities(image)[0].argmax())
    for side in range(1, 9):
        found = []
        for top in range(9 - side):
            for left in range(9 - side):
                covered = image.clone()
                covered[:, top : top + side, left : left + side] = fill
                probabilities = scope.probabilities(covered)[0]
                if int(probabilities.argmax()) != before:
                    found.append((float(probabilities[before]), (left, top, side), int(probabilities.argmax())))
        if found:
            probability, box, after = min(found)
            return box, after, probability
    return None


@pytest.mark.parametrize("seed", range(6))
def test_it_is_that_of_a_loop_over_all_squares(seed: int) -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed))
    scope = Scope(network(seed), image[None])
    found, expected = scope.smallest_occlusion(image, 0.0), by_loop(scope, image, 0.0)
    if expected is None:
        assert (found.box, found.after, found.largest) == (None, found.before, 8)
        return
    box, after, probability = expected
    assert (found.box, found.after) == (box, after)
    assert found.probability == pytest.approx(probability, abs=1e-5)
    assert found.whole == pytest.approx(float(scope.probabilities(image)[0, found.before]), abs=1e-6)


def test_a_network_that_sees_nothing_is_changed_by_none() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
    nn.init.zeros_(net[1].weight)
    found = Scope(net, torch.zeros(1, 3, 8, 8)).smallest_occlusion(torch.rand(3, 8, 8))
    assert (found.box, found.step, found.largest) == (None, 1, 8)


def test_a_photograph_is_tried_in_steps_of_a_sixteenth() -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    nn.init.zeros_(net[2].weight)
    found = Scope(net, torch.zeros(1, 3, 96, 112)).smallest_occlusion(torch.rand(3, 96, 112))
    assert (found.box, found.step, found.largest) == (None, 6, 96)


def test_of_several_images_none_is_chosen() -> None:
    scope = Scope(network(0), torch.zeros(1, 3, 8, 8))
    with pytest.raises(RequestError, match="expected one"):
        scope.smallest_occlusion(torch.rand(2, 3, 8, 8))
