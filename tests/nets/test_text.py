import pytest

from convscope.errors import SettingError
from convscope.nets import parse_layers


def test_words_with_all_letters() -> None:
    conv, pool, drop, dense = parse_layers("c64k5s2p0d2g4b Mk3s2p1u D0.3 f10bl")
    assert (conv.letter, conv.number, conv.settings) == ("c", 64, {"k": 5, "s": 2, "p": 0, "d": 2, "g": 4})
    assert conv.flags == {"b"}
    assert (pool.settings, pool.flags) == ({"k": 3, "s": 2, "p": 1}, {"u"})
    assert drop.number == 0.3
    assert dense.flags == {"b", "l"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("x3", "'x3' is no layer"),
        ("c", "needs a whole number"),
        ("c0", "needs a whole number"),
        ("c3.5", "needs a whole number"),
        ("D", "needs a share"),
        ("D1", "needs a share"),
        ("D.", "needs a share"),
        ("M2", "takes no number; a kernel is written Mk2"),
        ("c8u", "letter 'u' does not go with 'c'"),
        ("f8k3", "letter 'k' does not go with 'f'"),
        ("f8 c8", "after a dense layer"),
        ("c8k", "is no layer"),
        ("c8 W", "'W' is not the first word"),
        ("W3", "takes no number; a kernel is written Wk3"),
        ("Ws2", "letter 's' does not go with 'W'"),
        ("f c8", "'f' has no number of units"),
        ("c8 fob", "'fob' has no number of units"),
        ("E2", "takes no number$"),
        ("c8 X5", "'X5' takes no number$"),
        ("c8 X.", "'X.' takes no number$"),
        ("c8s0", "'c8s0': s takes a whole number from 1 to 65536"),
        ("c8p65537", "'c8p65537': p takes a whole number from 0 to 65536"),
        ("Wk0", "k takes a whole number from 1"),
        ("f65537", "needs a whole number of units from 1 to 65536, such as f64"),
    ],
)
def test_wrong_words_are_named(text: str, expected: str) -> None:
    with pytest.raises(SettingError, match=expected):
        parse_layers(text)


def test_x_is_the_largest_of_each_map_at_any_size() -> None:
    import torch

    from convscope.nets import build_net

    torch.manual_seed(0)
    net = build_net("c6 X", classes=3, image_size=8).eval()
    for side in (8, 5, 13):
        images = torch.rand(4, 3, side, side)
        maps = net.relu1(net.conv1(images))
        expected = net.fc1(maps.flatten(2).amax(2))
        torch.testing.assert_close(net(images), expected)


def test_air_cifar_pools_as_before_at_32_pixels() -> None:
    import torch

    from convscope.nets import build_net

    torch.manual_seed(1)
    net = build_net("air-cifar", width=4).eval()
    before = build_net("W c4lo M Bn R c4no c16lo M Bn R c16no c16lo M Bn R c16no Mk3 fo").eval()
    before.load_state_dict(net.state_dict())
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(net(images), before(images))
    assert net(torch.rand(2, 3, 16, 16)).shape == (2, 10)
