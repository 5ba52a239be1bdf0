"""Parameter counts of the five reports, from shared/experiments.md, met exactly."""

from typing import Any

import pytest
import torch

from convscope.nets import build_net, catalogue, natural_input

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


def conv(inputs: int, filters: int, kernel: int = 3) -> int:
    return kernel**2 * inputs * filters + filters


def dense(inputs: int, units: int) -> int:
    return inputs * units + units


def gates(n: int, inputs: int, hidden: int) -> int:
    """A recurrent layer's: for each gate weights of the input, of the state, and a bias of each."""
    return n * (inputs * hidden + hidden * hidden + 2 * hidden)


BODY = conv(3, 32) + conv(32, 32) + conv(32, 64) + conv(64, 64)
INCEPTION, RESIDUAL = 4 * conv(64, 64), conv(64, 128) + conv(128, 128) + conv(128, 64, 1)
END = dense(512, 10)
# inputs and filters of each convolution in units of 64, but for the three colours
VGG19 = [(3, 1), (1, 1), (1, 2), (2, 2), (2, 4), *[(4, 4)] * 3, (4, 8), *[(8, 8)] * 7]


def bare(inputs: int, filters: int) -> int:
    """A convolution without biases, and a batch norm behind it."""
    return 9 * inputs * filters + 2 * filters


def vgg19_body() -> int:
    return sum(conv(a if a == 3 else 64 * a, 64 * b) for a, b in VGG19)


BY_HAND = [
    ("blocks-cifar", {}, BODY + dense(8 * 8 * 64, 512) + END),
    ("blocks-cifar", {"block": "inception"}, BODY + INCEPTION + dense(8 * 8 * 192, 512) + END),
    ("blocks-cifar", {"block": "inception", "join": "sum"}, BODY + INCEPTION + dense(8 * 8 * 64, 512) + END),
    ("blocks-cifar", {"block": "residual"}, BODY + RESIDUAL + dense(4 * 4 * 128, 512) + END),
    ("blocks-cifar", {"block": "residual", "join": "sum"}, BODY + RESIDUAL + dense(4 * 4 * 64, 512) + END),
    (
        "blocks-cifar",
        {"block": "residual", "join": "sum", "blocks": 2},
        BODY + 2 * RESIDUAL + dense(4 * 4 * 64, 512) + END,
    ),
    ("rows", {"cell": "rnn"}, gates(1, 28, 128) + dense(128, 10)),
    ("rows", {"cell": "lstm", "hidden": 64}, gates(4, 28, 64) + dense(64, 10)),
    ("rows", {"cell": "gru", "hidden": 32}, gates(3, 28, 32) + dense(32, 10)),
    ("rows", {"channels": 3, "image_size": 32, "classes": 2}, gates(3, 96, 128) + dense(128, 2)),
    (
        "cats-dogs-net",
        {"classes": 1},
        conv(3, 32) + 64 + conv(32, 64) + conv(64, 128) + conv(128, 128)
        + dense(8 * 8 * 128, 512) + dense(512, 64) + dense(64, 1),
    ),
    (
        "air-cifar",
        {"width": 8},  # whitening has 24 filters of 2×2×3
        24 * 12 + bare(24, 8) + bare(8, 8) + bare(8, 32) + 3 * bare(32, 32) + 32 * 10,
    ),
    (
        "photo-net",
        {"width": 8},
        conv(3, 8) + sum(2 * (conv(n, n) + 2 * n) for n in (8, 16, 32, 64)) + sum(conv(n, 2 * n) for n in (8, 16, 32))
        + 2 * (8 + 16 + 32 + 64) + dense(64, 2),
    ),
    ("lines-vgg19", {}, vgg19_body() + dense(512, 128) + dense(128, 128) + dense(128, 96)),
    ("lines-vgg19", {"image_size": 224, "classes": 1000, "dense": 4096}, 143_667_240),  # VGG19 as it is published
    (
        "lines-net",
        {"pool": "stride"},  # 28, 14, 7 and 4 pixels; the seven batch norms have two numbers a unit
        conv(3, 16) + conv(16, 16) + conv(16, 32) + conv(32, 32) + conv(32, 64) + conv(64, 64) + 2 * (2 * 112 + 128)
        + dense(4 * 4 * 64, 128) + dense(128, 96),
    ),
    (
        "lines-net",
        {"kernel": 2, "width": 32},  # 28, 27, 26, 13, 12, 11, 5, 4, 3 and 1 pixels
        conv(3, 32, 2) + conv(32, 32, 2) + conv(32, 64, 2) + conv(64, 64, 2) + conv(64, 128, 2) + conv(128, 128, 2)
        + 2 * (2 * 224 + 128) + dense(128, 128) + dense(128, 96),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "count"), REPORTED + BY_HAND)
def test_parameter_counts_of_the_reports_and_by_hand(name: str, options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):  # the largest has 143 million
        net = build_net(name, **options)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize("name", catalogue())
def test_every_network_takes_its_natural_input(name: str) -> None:
    if name == "lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    shape = natural_input(name).options()
    net = build_net(name).eval()
    outputs = net(torch.zeros(2, shape["channels"], shape["image_size"], shape["image_size"]))
    assert outputs.shape == (2, shape["classes"])


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("width", [18, 32, 64])
def test_the_whole_grid_of_net2_can_be_built(width: int, kernel: int) -> None:
    assert build_net("net2", width=width, kernel=kernel).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_every_network_says_what_it_is() -> None:
    assert all(len(about) > 20 for about in catalogue().values())
