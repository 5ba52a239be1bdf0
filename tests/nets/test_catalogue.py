"""Parameter counts of the five reports, from shared/experiments.md, met exactly."""

from typing import Any

import pytest
import torch

from convscope.nets import build_net, catalogue, natural_shape

REPORTED = [
    ("vgg-cifar", {"batch_norm": False}, 6_216_074),
    ("net1", {"width": 18, "multiplier": 2, "kernel": 3, "stride": 1}, 173_026),
    ("net2", {"width": 64, "kernel": 5}, 4_870_654),
    ("net2", {"width": 18, "kernel": 3}, 756_442),
    ("net2", {"width": 32, "kernel": 3}, 1_505_470),
    ("net2", {"width": 64, "kernel": 3}, 3_773_950),
    ("net3", {"width": 32}, 1_506_430),
    ("net3", {"width": 64}, 3_775_870),
    ("net3", {"width": 96}, 6_819_454),
    ("net4", {"dropout": 0.5}, 4_403_518),
    ("lenet5", {}, 3_274_634),
]


@pytest.mark.parametrize(("name", "options", "count"), REPORTED)
def test_parameter_counts_of_the_reports(name: str, options: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in build_net(name, **options).parameters()) == count


@pytest.mark.parametrize("name", catalogue())
def test_every_network_takes_its_natural_input(name: str) -> None:
    shape = natural_shape(name)
    net = build_net(name).eval()
    outputs = net(torch.zeros(2, shape["channels"], shape["image_size"], shape["image_size"]))
    assert outputs.shape == (2, shape["classes"])


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("width", [18, 32, 64])
def test_the_whole_grid_of_net2_can_be_built(width: int, kernel: int) -> None:
    assert build_net("net2", width=width, kernel=kernel).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_every_network_says_what_it_is() -> None:
    assert all(len(about) > 20 for about in catalogue().values())
