"""What a network wants of the images: size and normalisation of its pretrained weights, and their channels."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from torch import nn

from convscope.errors import SettingError, UnknownNameError
from convscope.runs import RunSpec, as_network_wants, make_spec
from tests.zoo import open_zoo

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LITE0 = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}


@pytest.fixture(autouse=True, scope="module")
def zoo() -> None:
    open_zoo()


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own, with a network that says what it wants, and one that does not."""

    def carrying(pretrained: bool = True) -> nn.Module:
        assert not pretrained  # its weights are not fetched to learn what they want
        net = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 10))
        net.pretrained_cfg = {"input_size": (1, 48, 48), "mean": (0.1,), "std": (0.2,)}
        return net

    module = types.ModuleType("mine")
    vars(module).update(carrying=carrying, silent=lambda pretrained=True: nn.Linear(1, 1))
    monkeypatch.setitem(sys.modules, "mine", module)


def _wanted(net: dict[str, Any], **data: Any) -> dict[str, Any]:
    spec = make_spec({"data": {"source": "mnist", **data}, "net": net})
    found = as_network_wants(spec)
    assert as_network_wants(found) == found  # stated once, it stays
    assert found.net == spec.net
    normalize = found.data.normalize
    return {
        "image_size": found.data.image_size,
        "channels": found.data.channels,
        "normalize": normalize.model_dump() if normalize is not None and not isinstance(normalize, str) else normalize,
    }


@pytest.mark.parametrize(
    ("net", "size", "channels", "normalize"),
    [
        ({"name": "lite0", "pretrained": True}, 224, 3, LITE0),
        ({"name": "convscope.nets.zoo:efficientnet_lite0", "pretrained": True}, 224, 3, LITE0),
        ({"name": "timm:test_resnet", "pretrained": True}, 160, 3, HALF),
        ({"name": "timm:resnet18", "pretrained": True}, 224, 3, IMAGENET),
        ({"name": "timm:resnet18", "pretrained": True, "image_size": 96}, 96, 3, IMAGENET),
        ({"name": "torchvision:inception_v3", "pretrained": True, "head": ""}, 299, 3, IMAGENET),
        ({"name": "torchvision:resnet18"}, None, 3, None),
        ({"name": "lite0"}, None, 3, None),
        ({"name": "timm:resnet18"}, None, None, None),  # takes the channels of the data
        ({"name": "timm:resnet18", "pretrained": False}, None, None, None),
        ({"name": "net4", "channels": 3}, None, 3, None),
        ({"name": "net4"}, None, None, None),
        ({"name": "c8 f8"}, None, None, None),
        ({"name": "mine:carrying", "pretrained": True}, 48, None, {"mean": (0.1,), "std": (0.2,)}),
        ({"name": "mine:silent", "pretrained": True}, None, None, None),
    ],
)
def test_what_the_data_do_not_say_the_network_says(
    mine: None, net: dict[str, Any], size: int | None, channels: int | None, normalize: dict[str, Any] | None
) -> None:
    assert _wanted(net) == {"image_size": size, "channels": channels, "normalize": normalize}


def test_channels_of_the_network_are_honoured() -> None:
    """timm fits trained weights to 1 channel, whose normalisation is the mean over the three."""
    found = _wanted({"name": "timm:resnet18", "pretrained": True, "channels": 1})
    assert (found["image_size"], found["channels"]) == (224, None)
    assert found["normalize"]["mean"] == pytest.approx([(0.485 + 0.456 + 0.406) / 3])


def test_what_the_data_say_stays() -> None:
    net = {"name": "lite0", "pretrained": True}
    said = {"image_size": 64, "channels": 3, "normalize": "own"}
    assert _wanted(net, **said) == said
    assert _wanted(net, image_size=64) == {"image_size": 64, "channels": 3, "normalize": LITE0}


def test_lines_have_a_size_of_their_own() -> None:
    found = as_network_wants(make_spec({"data": "lines", "net": {"name": "lite0", "pretrained": True}}))
    assert found.data.image_size is None


@pytest.mark.parametrize("said", [{"grey": True}, {"channels": 1}])
@pytest.mark.parametrize("net", [{"name": "lite0"}, {"name": "torchvision:resnet18"}, {"name": "net4", "channels": 3}])
def test_grey_that_is_asked_for_and_three_channels_contradict(said: dict[str, Any], net: dict[str, Any]) -> None:
    spec = make_spec({"data": {"source": "mnist", **said}, "net": net})
    with pytest.raises(SettingError, match=rf"data.channels: 1, and {net['name']} takes images of 3; leave it"):
        as_network_wants(spec)


def test_a_network_that_is_not_there_is_said_before_the_data_are_loaded() -> None:
    spec: RunSpec = make_spec({"data": "mnist", "net": {"name": "timm:resnet9", "pretrained": True}})
    with pytest.raises(UnknownNameError, match="network 'resnet9' is not in timm"):
        as_network_wants(spec)
