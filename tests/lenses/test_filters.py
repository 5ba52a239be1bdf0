from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm

from convscope.errors import UnknownNameError
from convscope.lenses import filters


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 6, (3, 5), groups=2), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 2))


def test_a_copy_of_the_weights() -> None:
    net = network()
    weights = filters(net, "0")
    assert weights.shape == (6, 2, 3, 5)
    assert torch.equal(weights, net[0].weight)
    weights.zero_()
    assert net[0].weight.abs().sum() > 0
    assert not weights.requires_grad
    assert filters(net, "3").shape == (2, 6)


@pytest.mark.parametrize("layer", ["1", "conv1"])
def test_a_layer_without_filters(layer: str) -> None:
    with pytest.raises(UnknownNameError, match=f"layer with filters '{layer}' is not in this network; there is 0, 3"):
        filters(network(), layer)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "set_hook", [weight_norm, spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", 3)]
)
def test_weights_that_a_hook_computes_are_the_present_ones(set_hook: Callable[[nn.Module], nn.Module]) -> None:
    net = nn.Sequential(set_hook(nn.Conv2d(2, 3, 3))).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(torch.rand_like(parameter))
        before, weights = net[0].weight, filters(net, "0")
        assert net[0].weight is before
        net(torch.zeros(1, 2, 3, 3))
    torch.testing.assert_close(weights, net[0].weight)
    assert not torch.equal(weights, before)
