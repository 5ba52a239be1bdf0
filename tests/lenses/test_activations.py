from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from convscope.errors import UnknownNameError
from convscope.graph import TracedGraph, trace
from convscope.lenses import activations, select_layers


def network() -> nn.Sequential:
    layers = OrderedDict(conv1=nn.Conv2d(3, 4, 3), relu1=nn.ReLU(inplace=True), conv2=nn.Conv2d(4, 2, 3))
    return nn.Sequential(layers | {"relu2": nn.ReLU(), "flatten": nn.Flatten(), "fc1": nn.Linear(2 * 16, 5)})


@pytest.fixture(scope="module")
def graph() -> TracedGraph:
    return trace(network(), torch.zeros(1, 3, 8, 8))


def test_they_are_those_that_hooks_see(graph: TracedGraph) -> None:
    seen = {}
    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output.clone()}))
        for name, module in graph.net.named_children()
    ]
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        graph.net(images)
    for handle in handles:
        handle.remove()
    found = activations(graph, images, list(seen))
    assert list(found) == list(seen)
    for name, value in found.items():
        assert torch.equal(value, seen[name])
        assert not value.requires_grad


def test_names_patterns_and_kinds(graph: TracedGraph) -> None:
    assert select_layers(graph, ["relu1", "conv*"]) == ["conv1", "relu1", "conv2"]
    assert select_layers(graph, ["dense", "fc1"]) == ["fc1"]
    assert select_layers(graph, "conv") == ["conv1", "conv2"]
    assert select_layers(graph, ["*2"]) == ["conv2", "relu2"]


def test_an_unknown_layer(graph: TracedGraph) -> None:
    with pytest.raises(UnknownNameError, match="layer 'conv3' is not in this network; did you mean 'conv2'"):
        activations(graph, torch.zeros(1, 3, 8, 8), ["conv1", "conv3"])
