import pytest
import torch
from hypothesis import given, settings, strategies as st

from convscope.errors import NetworkError
from convscope.nets import plain_net


def test_layers_and_names_in_order() -> None:
    net = plain_net("c4b M D0.5 f6b", classes=3, channels=1, image_size=8)
    names = ["conv1", "bn1", "relu1", "pool1", "drop1", "flatten", "fc1", "bn2", "relu2", "fc2"]
    assert [name for name, _ in net.named_children()] == names
    assert net.fc1.in_features == 4 * 4 * 4  # 4 maps of 4×4
    assert net.fc2.out_features == 3


def test_whitened_and_normalized_without_factors() -> None:
    net = plain_net("Wk3e c8lo M Bn R c8noe f6nl fo", classes=2, channels=1, image_size=9)
    names = ["whiten1", "gelu1", "conv1", "pool1", "bn1", "relu1", "conv2", "bn2", "gelu2"]
    assert [name for name, _ in net.named_children()] == [*names, "flatten", "fc1", "bn3", "fc2"]
    assert net.whiten1.weight.shape == (2 * 9, 1, 3, 3)
    learning = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    expected = {
        "conv1.weight",
        "bn1.bias",
        "conv2.weight",
        "bn2.bias",
        "fc1.weight",
        "fc1.bias",
        "bn3.bias",
        "fc2.weight",
    }
    assert learning == expected
    net.eval()
    reached: list[torch.Tensor] = []
    net.bn3.register_forward_hook(lambda *call: reached.append(call[2]))
    image = torch.rand(2, 1, 9, 9)
    torch.testing.assert_close(net(image), reached[0] @ net.fc2.weight.T)


def test_same_padding_keeps_the_map_whatever_the_dilation() -> None:
    net = plain_net("c2k3d2 c2k5d3 c2k1", image_size=16, channels=1)
    assert net.fc1.in_features == 2 * 16 * 16


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.integers(1, 5), stride=st.integers(1, 3), padding=st.integers(0, 2), side=st.integers(5, 17),
    letter=st.sampled_from("cMA"), up=st.booleans(),
)  # fmt: skip
def test_shape_arithmetic_agrees_with_pytorch(
    kernel: int, stride: int, padding: int, side: int, letter: str, up: bool
) -> None:
    """The builder works shapes out to size the dense layer; if it were wrong by one, the forward pass would fail."""
    if letter == "c":
        word = f"c3k{kernel}s{stride}p{padding}"
    else:
        if 2 * padding > kernel:
            return
        word = f"{letter}k{kernel}s{stride}p{padding}{'u' if up else ''}"
    net = plain_net(word, classes=2, channels=1, image_size=side).eval()
    assert net(torch.zeros(1, 1, side, side)).shape == (1, 2)


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("c4 M M M", 4, "pool3: its 2×2 window does not fit the 1×1 map"),
        ("c4k7p0", 5, "conv1: its 7×7 window does not fit the 5×5 map"),
        ("c4g3", 8, "conv1: 3 groups do not divide"),
        ("Mk2p2", 8, "pool1: padding 2 is more than half"),
    ],
)
def test_layers_that_do_not_fit_are_named(text: str, size: int, expected: str) -> None:
    with pytest.raises(NetworkError, match=expected):
        plain_net(text, image_size=size)
