import pytest
import torch
from torch.nn import functional as F

from convscope.errors import NetworkError
from convscope.nets import build_net

MAPS = torch.randn(2, 64, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("join", ["concat", "sum"])
def test_an_inception_block_is_its_three_branches(join: str) -> None:
    block = build_net("blocks-cifar", block="inception", join=join).inception1

    def conv(path: str, maps: torch.Tensor) -> torch.Tensor:
        layer = block.get_submodule(path)
        return F.conv2d(maps, layer.weight, layer.bias, padding=1).relu()

    parts = [
        conv("branch1.conv1", MAPS),
        conv("branch2.conv2", conv("branch2.conv1", MAPS)),
        F.max_pool2d(conv("branch3.conv1", MAPS), 3, stride=1, padding=1),
    ]
    expected = torch.cat(parts, 1) if join == "concat" else torch.stack(parts).sum(0)
    torch.testing.assert_close(block(MAPS), expected)


@pytest.mark.parametrize("join", ["concat", "sum"])
def test_a_residual_block_of_silent_weights_passes_its_input(join: str) -> None:
    block = build_net("blocks-cifar", block="residual", join=join).residual1
    torch.nn.init.zeros_(block.way.conv3.weight)
    torch.nn.init.zeros_(block.way.conv3.bias)
    expected = MAPS.relu() if join == "sum" else torch.cat([MAPS.relu(), torch.zeros_like(MAPS)], 1)
    assert torch.equal(block(MAPS), expected)


def test_a_residual_block_adds_what_its_way_makes() -> None:
    block = build_net("blocks-cifar", block="residual", join="sum").residual1
    inner = F.conv2d(MAPS, block.way.conv1.weight, block.way.conv1.bias, padding=1).relu()
    inner = F.conv2d(inner, block.way.conv2.weight, block.way.conv2.bias, padding=1).relu()
    made = F.conv2d(inner, block.way.conv3.weight, block.way.conv3.bias)
    torch.testing.assert_close(block(MAPS), (MAPS + made).relu())


def test_images_too_small_for_the_pools_are_named() -> None:
    with pytest.raises(NetworkError, match="blocks-cifar: pool3: its 2×2 window does not fit the 1×1 map"):
        build_net("blocks-cifar", block="residual", image_size=4)
