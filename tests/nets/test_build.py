import itertools
import sys
import types
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

from convscope.errors import ConvscopeError, NetworkError, SettingError, UnknownNameError
from convscope.nets import build_net, check_name


def test_a_plain_text_is_a_network() -> None:
    net = build_net("c4 M f8", classes=3, channels=1, image_size=8)
    assert net(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize("text", ["Wek3 c16 M f10", "X f10", "Mus2 c8", "c8k0", "fo", "M"])
def test_whatever_is_in_the_grammar_is_a_text_and_no_name(text: str) -> None:
    check_name(text)


@pytest.mark.parametrize("name", ["net9", "Bert", "Convnet 2", "mixer_b16", "efficientnet_b0", "regnet"])
def test_a_longer_word_is_a_name_and_no_text(name: str) -> None:
    with pytest.raises(UnknownNameError):
        check_name(name)


def test_every_short_text_builds_a_network_that_runs_or_gives_one_error() -> None:
    numbers, many = ("", "0", "4", ".", "9" * 5000), ("0", "2", "9" * 5000, "0" * 5000 + "9")
    settings = ("", *"bneluo", *(f"{key}{n}" for key in "kspdg" for n in many))
    words = [f"{letter}{number}{setting}" for letter in "cfMAGXBDREW" for number in numbers for setting in settings]
    pair = ("c4", "c4bk1", "c4d2p0", "f4", "f4n", "Mk3s2p1u", "Ap1", "G", "X", "Bn", "D0.5", "W", "fo")
    images, n_built = torch.zeros(2, 3, 5, 5), 0
    for text in (*words, *map(" ".join, itertools.product(pair, repeat=2))):
        with suppress(ConvscopeError):
            net = build_net(text, classes=3, image_size=5).eval()
            assert net(images).shape == (2, 3), text
            n_built += 1
    assert n_built > 100


def test_weights_that_no_memory_holds_give_one_line() -> None:
    with pytest.raises(NetworkError, match=r"^c65536k9999p9999: cannot be built: .*memory"):
        build_net("c65536k9999p9999")


def test_the_same_seed_gives_the_same_weights() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(build_net("net1", init="he"))
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_initialisations_have_their_spread() -> None:
    torch.manual_seed(0)
    shape = (128, 64, 3, 3)  # conv2 of vgg-cifar
    fan_in, fan_out = shape[1] * 9, shape[0] * 9
    xavier = build_net("vgg-cifar", init="xavier").conv2
    he = build_net("vgg-cifar", init="he").conv2
    assert xavier.weight.std().item() == pytest.approx((2 / (fan_in + fan_out)) ** 0.5, rel=0.02)
    assert he.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert not xavier.bias.any()
    assert not he.bias.any()


@pytest.mark.parametrize(
    ("name", "options", "error", "expected"),
    [
        ("net9", {}, UnknownNameError, "network 'net9' is not in the catalogue; did you mean 'net4'|there is"),
        ("net1", {"wdth": 3}, UnknownNameError, "option 'wdth' is not one of net1's; did you mean 'width'"),
        ("net1", {"width": 0}, SettingError, "net.width: 0"),
        ("net1", {"width": "wide"}, SettingError, "net.width: 'wide'"),
        ("net3", {"dropout": 1.5}, SettingError, "net.dropout: 1.5"),
        ("net2", {"image_size": 16}, NetworkError, "net2: conv4"),
        ("c4 M x", {}, SettingError, "'x' is no layer"),
        ("nowhere.to:find", {}, NetworkError, "cannot be imported"),
        ("os:no_such", {}, UnknownNameError, "callable 'no_such' is not in module os"),
        ("os:getcwd", {}, NetworkError, "gave a str"),
    ],
)
def test_what_cannot_be_built_says_why(name: str, options: dict[str, Any], error: type, expected: str) -> None:
    with pytest.raises(error, match=expected):
        build_net(name, **options)


def test_a_users_callable_gets_the_shape_options_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_nets")
    module.tiny = lambda classes, depth=1: nn.Sequential(nn.Flatten(), nn.LazyLinear(classes * depth))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_nets", module)
    net = build_net("my_nets:tiny", classes=4, channels=1, image_size=8, depth=2)
    assert net(torch.zeros(1, 1, 8, 8)).shape == (1, 8)
    with pytest.raises(SettingError, match="does not take these options"):
        build_net("my_nets:tiny", classes=4, no_such=1)


def test_a_network_carries_its_spec() -> None:
    spec = build_net("net4", dropout=0.5).convscope_spec
    assert (spec.name, spec.options) == ("net4", {"dropout": 0.5})
