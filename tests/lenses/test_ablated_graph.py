"""The graph of an edited network, made from that of the network before: as if traced again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.graph import trace
from convscope.lenses import ablate, ablated_graph
from convscope.lenses.occlusion import occlusion
from convscope.scope import Scope
from tests.lenses.lens_networks import Mixed, evaluated

IMAGES = torch.randn(3, 3, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LAYERS = {"dilated": [0, 2], "branches.grouped": [1]}


@pytest.mark.parametrize("how", ["zero_weights", "zero_activation", "mean_activation"])
def test_it_runs_as_the_edited_network_does(how: str) -> None:
    """Also where only what a square reaches is run, and when an edited network is edited again."""
    net = evaluated(Mixed().double())
    once = ablate(net, LAYERS, how, IMAGES)
    graph = ablated_graph(trace(net, IMAGES), once, LAYERS, how)
    assert graph is not None
    twice = ablate(once, {"fc": [1], "dilated": [1]}, how, IMAGES)
    again = ablated_graph(graph, twice, {"fc": [1], "dilated": [1]}, how)
    found = [(once, graph)] if again is None else [(once, graph), (twice, again)]
    for edited, its_graph in found:
        pixels = IMAGES.clone().requires_grad_()
        logits = its_graph.run(pixels)[its_graph.outputs[0]]
        torch.testing.assert_close(logits, edited(IMAGES), rtol=0, atol=1e-12)
        anew = trace(edited, IMAGES)
        assert [op.name for op in its_graph.operations] == [op.name for op in anew.operations]
        torch.testing.assert_close(_map(its_graph), _map(anew), rtol=0, atol=1e-12)
        assert torch.autograd.grad(logits[:, 2].sum(), pixels)[0].any()
    assert not torch.equal(once(IMAGES), net(IMAGES))


def _map(graph: object) -> Tensor:
    return occlusion(graph, IMAGES, torch.zeros_like(IMAGES), 3, 3).probabilities  # type: ignore[arg-type]


def test_a_part_of_several_operations_is_traced_again() -> None:
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Flatten(), nn.Linear(4 * 7 * 6, 3)).double()
    edited = ablate(net, {"0": [1]}, "zero_activation", IMAGES)
    assert ablated_graph(trace(net, IMAGES), edited, {"0": [1]}, "zero_activation") is None


@pytest.mark.parametrize("layer", ["0", "2"])
def test_of_two_modules_with_the_same_weights_one_is_silenced(layer: str) -> None:
    net: Any = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(216, 4))
    net[2].weight = net[0].weight
    images = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(1))
    scope = Scope(net, images)
    scope.logits(images)  # it has been traced
    found = scope.ablate({layer: [1]})
    torch.testing.assert_close(found.logits(images), found.net(images), rtol=0, atol=1e-6)
