"""`head` and `last_block` of many networks: of the catalogue, EfficientNet-Lite0, timm, torchvision, and odd ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from convscope.errors import NetworkError
from convscope.nets import build_natural, build_net, put_head
from convscope.training.parts import named_part
from tests.zoo import open_zoo

ZOO = {
    "timm:resnet18": (["fc"], ["layer4"]),
    "timm:vit_tiny_patch16_224": (["head"], ["blocks.11", "norm"]),
    "timm:deit_tiny_distilled_patch16_224": (["head", "head_dist"], ["blocks.11", "norm"]),
    "timm:mobilenetv3_small_050": (
        ["classifier"],
        ["blocks.4", "blocks.5", "conv_head"],
    ),  # blocks.5 is one convolution
    "timm:convnext_atto": (["head.fc"], ["stages.3"]),
    "timm:densenet121": (["classifier"], ["features.denseblock4", "features.norm5"]),
    "torchvision:resnet18": (["fc"], ["layer4"]),
    "torchvision:mobilenet_v3_small": (["classifier.3"], ["features.11", "features.12", "classifier.0"]),
    "torchvision:vit_b_16": (["heads.head"], ["encoder.layers.encoder_layer_11", "encoder.ln"]),
    "torchvision:convnext_tiny": (["classifier.2"], ["features.7", "classifier.0"]),
    "torchvision:squeezenet1_1": (["classifier.1"], ["features.12"]),  # its head is a 1×1 convolution, then a pool
    "torchvision:googlenet": (["fc"], ["inception5b"]),  # the auxiliary heads, registered behind, give no output
}
OWN = {
    "net1": (["fc3"], ["conv2", "fc1", "fc2"]),
    "lean-cifar": (["fc1"], ["conv5", "bn5"]),
    "rows": (["fc1"], ["gru1"]),
    "c8b M c8b f16b D0.3": (["fc2"], ["conv2", "bn2", "fc1", "bn3"]),
    "c8 M c8b G": (["fc1"], ["conv2", "bn1"]),
    "f8": (["fc2"], ["fc1"]),
}


def _of(net: nn.Module, shape: tuple[int, int, int] = (3, 8, 8)) -> tuple[list[str], list[str]]:
    return named_part(net, "head", shape), named_part(net, "last_block", shape)


def _parts(name: str, **options: object) -> tuple[list[str], list[str]]:
    net, made_for = build_natural(name, None, options)
    return _of(net, made_for.shape)


@pytest.mark.parametrize("name", OWN)
def test_of_our_own_networks(name: str) -> None:
    assert _parts(name) == OWN[name]


@pytest.mark.parametrize("block", ["inception", "residual"])
def test_a_block_of_branches_is_one_block(block: str) -> None:
    assert _parts("blocks-cifar", block=block) == (["fc2"], [f"{block}1", "fc1"])
    assert _parts("blocks-cifar", block=block, blocks=3) == (["fc2"], [f"{block}3", "fc1"])


@pytest.mark.parametrize("name", ["lite0", "convscope.nets.zoo:efficientnet_lite0"])
def test_of_efficientnet_lite0(name: str) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    assert _parts(name) == (["_fc"], ["_blocks.15", "_conv_head", "_bn1"])


_LARGE = {"torchvision:vit_b_16", "timm:densenet121", "torchvision:convnext_tiny"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in _LARGE else []) for name in ZOO]
)
def test_of_the_zoos(name: str) -> None:
    open_zoo()
    assert _parts(name, classes=5) == ZOO[name]


@pytest.mark.parametrize(
    ("head", "replaces", "expected"),
    [("f8 D0.5", None, ["classifier.3"]), ("", None, ["classifier.3"]), ("f8", "classifier", ["classifier"])],
)
def test_a_new_head_is_the_head_with_all_inside_it(head: str, replaces: str | None, expected: list[str]) -> None:
    net = nn.Sequential()
    net.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    net.classifier = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 9))
    put_head(net, head, classes=2, input_shape=(3, 8, 8), replaces=replaces)
    assert _of(net) == (expected, ["features.2", *(["classifier.1"] if replaces is None else [])])


def test_a_built_network_knows_its_new_head() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    assert _of(build_net("lite0", head="f8 D0.2", classes=2), (3, 64, 64))[0] == ["_fc"]


class Odd(nn.Module):
    """Its head is registered first, another never computes, and `end` makes of the last maps what is answered."""

    def __init__(self, end: Callable[[Odd, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.other = nn.Linear(6, 3), nn.Linear(6, 2)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.norm, self.unused = nn.BatchNorm1d(3), nn.Linear(6, 6)
        self.end = end

    def forward(self, images: Tensor) -> Tensor:
        return self.end(self, self.body(images.mul_(2)).mean((2, 3)))


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda net, given: 2 * net.fc(given), ["fc"]),
        (lambda net, given: torch.cat([net.fc(given), net.other(given)], 1), ["fc", "other"]),
        (lambda net, given: net.norm(net.fc(given)), ["fc", "norm"]),
        (lambda net, given: net.fc(given).log_softmax(1), ["fc"]),
    ],
)
def test_the_head_is_found_from_the_output(end: Callable[[Odd, Tensor], Tensor], expected: list[str]) -> None:
    """In whatever state the network is, and it is left in that state."""
    net = Odd(end).train()
    net.fc.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert _of(net) == (expected, ["body"])
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    assert (net.training, net.fc.weight.requires_grad, net.body[0].weight.requires_grad) == (True, False, True)


def test_a_weight_that_is_computed_belongs_to_the_layer_that_uses_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), weight_norm(nn.Linear(4, 2)))
    assert _of(net) == (["3"], ["0"])


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) @ self.weight.T


class Named(Own):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(images)}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Own, "no module with weights gives the output by itself"),
        (Named, "its output is no tensor that depends on its weights"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), "there is no layer with weights before the head"),
    ],
)
def test_what_has_no_such_parts_says_why(make: Callable[[], nn.Module], expected: str) -> None:
    with pytest.raises(NetworkError, match=expected):
        named_part(make(), "last_block", (3, 8, 8))


def test_a_single_layer_is_a_head_without_a_block_before_it() -> None:
    assert named_part(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), "head", (3, 8, 8)) == ["1"]
