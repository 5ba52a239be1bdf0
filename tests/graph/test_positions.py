from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.graph import Positions, positions, trace, without_positions
from convscope.graph.positions import found_again
from tests.graph.graph_networks import (
    Branches,
    Calling,
    Dynamic,
    Hierarchical,
    Mixer,
    Recurrent,
    Shuffle,
    SqueezeExcite,
    Transformer,
    Windowed,
    chain,
)


def of(net: nn.Module, *shape: int) -> dict[str, Positions]:
    return positions(trace(net, torch.zeros(1, *shape)))


def test_maps() -> None:
    found = of(SqueezeExcite(), 3, 6, 7)
    assert found["conv"] == found["gelu"] == found["mul"] == Positions((2, 3), (6, 7))
    assert not {"mean", "fc", "act", "sigmoid"} & set(found)
    found = of(Branches(), 2, 8, 7)
    assert {found[name].size for name in ("small", "pool", "concat", "grouped", "concat_2")} == {(8, 7)}
    assert of(Shuffle(), 3, 8, 9)["grouped"].size == (3, 4)
    net = chain(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2), nn.Flatten(), nn.Linear(72, 3))
    assert of(net, 1, 5, 5) == {"0": Positions((2, 3), (3, 3)), "1": Positions((2, 3), (6, 6))}


def test_positions_last() -> None:
    found = of(Mixer(), 3, 8, 10)
    assert found["norm"] == found["up"] == found["down"] == Positions((1, 2), (4, 5))
    assert found["stem"] == found["add"] == Positions((2, 3), (4, 5))


def test_tokens_after_a_class_token() -> None:
    found = of(Transformer(), 3, 8, 12)
    assert found["flatten"] == Positions((2,), (2, 3))
    assert found["transpose"] == Positions((1,), (2, 3))
    assert found["concat"] == found["norm"] == found["add"] == Positions((1,), (2, 3), range(1, 7))
    assert not {"select", "head"} & set(found)


def test_tokens_before_others_and_joined_lists() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.last = nn.Conv2d(1, 4, 2, stride=2), nn.Parameter(torch.ones(1, 2, 4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).permute(0, 2, 1)
            x = torch.cat([x, self.last.expand(x.shape[0], -1, -1)], dim=1)
            return x.relu()

    assert of(Tokens(), 1, 6, 4)["relu"] == Positions((1,), (3, 2))


def test_through_windows() -> None:
    found = of(Windowed(), 3, 8, 12)
    assert found["permute"] == Positions((1, 2), (4, 6))
    shifted = [(row + 3) % 4 * 6 + (column + 5) % 6 for row in range(4) for column in range(6)]
    assert found["roll"] == Positions((1, 2), (4, 6), tuple(shifted))
    assert found["roll_2"] == Positions((1, 2), (4, 6))  # back again
    assert found["permute_4"] == Positions((2, 3), (4, 6))
    assert "attention" not in found  # its windows are folded into the batch


def test_where_there_are_none() -> None:
    assert of(Recurrent(), 1, 7, 8) == {}


def test_through_a_hierarchy() -> None:
    graph = trace(Hierarchical(), torch.zeros(1, 3, 16, 24))
    found = positions(graph)
    for name in ("block1.norm", "block1.add", "block2.norm", "block2.add"):
        assert found[name] == Positions((1, 2), (8, 12)), name
    for name in ("concat", "merge_norm", "merge", "block3.norm", "block3.add", "norm"):
        assert found[name] == Positions((1, 2), (4, 6)), name
    assert not {"mean", "head", "block3.proj"} & set(found)
    assert without_positions(graph) == set()


def in_windows(x: Tensor) -> Tensor:
    """N C H W → N, windows, 2·2, C."""
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(n, h * w // 4, 4, c)


def together(x: Tensor) -> Tensor:
    """Back from windows folded into the batch, of a map of 4×6."""
    return x.view(-1, 2, 3, 2, 2, x.shape[-1]).permute(0, 5, 1, 3, 2, 4).reshape(-1, x.shape[-1], 4, 6)


def merged(x: Tensor) -> Tensor:
    """As newer versions of Swin merge patches: N H W C → N, H / 2, W / 2, 4 C."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "shifted": lambda x: torch.roll(x, (-1, 2), (2, 3)),
    "mirrored": lambda x: x.flip(3),
    "rows for columns": lambda x: x.transpose(2, 3),
    "units last": lambda x: x.permute(0, 2, 3, 1),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "tokens by columns": lambda x: x.transpose(2, 3).flatten(2).transpose(1, 2),
    "behind a class token": lambda x: F.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0)),
    "before another": lambda x: F.pad(x.flatten(2), (0, 2)),
    "padded": lambda x: F.pad(x, (1, 2, 0, 3)),
    "padded and cropped": lambda x: F.pad(x, (1, 2, 0, 3))[:, :, :4, 1:7],
    "in windows": in_windows,
    "in shifted windows": lambda x: in_windows(torch.roll(x, (-1, -1), (2, 3))),
    "out of windows": lambda x: together(in_windows(x).flatten(0, 1)),
    "out of shifted windows": lambda x: torch.roll(
        together(in_windows(torch.roll(x, (1, 1), (2, 3))).flatten(0, 1)), (-1, -1), (2, 3)
    ),
    "halves of units": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "gated": lambda x: F.glu(torch.cat([x, torch.full_like(x, 99.0)], 1), 1).transpose(2, 3),
    "summed by what is not known": lambda x: torch.einsum("nchw->nchw", x.flip(3)),
    "by index": lambda x: x.flatten(2)[:, :, torch.arange(23, -1, -1)],
}


@pytest.mark.parametrize("move", MOVES)
def test_moved_pixels_are_found_again(move: str) -> None:
    """Read as a map, the result is the image, whatever was done to it."""
    images = torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    graph = trace(Calling(MOVES[move]), images)
    name = graph.outputs[0]
    expected = torch.cat(images.chunk(2, 1)[::-1], 1) if move == "halves of units" else images
    assert torch.equal(positions(graph)[name].as_map(graph.run(images)[name]), expected)


MERGED: dict[str, Callable[[Tensor], Tensor]] = {
    "slices": lambda x: torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1),
    "reshape and flatten": merged,
    "of a shifted map": lambda x: torch.roll(merged(x), (1, -1), (1, 2)),
    "unshuffle": lambda x: F.pixel_unshuffle(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1),
    "tokens": lambda x: merged(x).flatten(1, 2),
    "unfold": lambda x: F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2),
}


@pytest.mark.parametrize("way", MERGED)
def test_merged_patches(way: str) -> None:
    """A dense layer that takes the mean of each merged patch gives the image, averaged over 2×2 pixels."""

    class Merging(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(MERGED[way](x.permute(0, 2, 3, 1)), torch.full((1, 8), 1 / 8))

    images = torch.randn(2, 2, 8, 12, generator=torch.Generator().manual_seed(1))
    graph = trace(Merging(), images)
    where, result = positions(graph), graph.run(images)
    assert where[graph.outputs[0]].size == (4, 6)
    found = where[graph.outputs[0]].as_map(result[graph.outputs[0]])
    torch.testing.assert_close(found, F.avg_pool2d(images, 2).mean(1, keepdim=True))


def test_every_other_position_and_a_part_of_the_image() -> None:
    images = torch.randn(2, 3, 8, 12)
    graph = trace(Calling(lambda x: x[:, :, ::2, 1::2]), images)
    name = graph.outputs[0]
    assert torch.equal(positions(graph)[name].as_map(graph.run(images)[name]), images[:, :, ::2, 1::2])
    quarter = trace(Calling(lambda x: x[:, :, :4, :6]), images)
    assert quarter.outputs[0] not in positions(quarter)  # drawn over the whole image it would mislead


def test_the_query_has_the_place() -> None:
    class Queries(nn.Module):
        """Every other position asks all of them, as in LeViT, with products written out; nothing goes past."""

        def __init__(self) -> None:
            super().__init__()
            self.patches, self.q, self.kv = nn.Conv2d(3, 4, 2, stride=2), nn.Linear(4, 4), nn.Linear(4, 8)
            self.proj = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).permute(0, 2, 3, 1)
            q = self.q(x[:, ::2, ::2].flatten(1, 2)).unflatten(2, (2, 2)).transpose(1, 2)
            k, v = self.kv(x.flatten(1, 2)).unflatten(2, (2, 4)).transpose(1, 2).chunk(2, dim=-1)
            return self.proj(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))

    assert of(Queries(), 3, 16, 24)["proj"] == Positions((1,), (4, 6))


def test_attention_between_units_keeps_positions() -> None:
    class ByUnits(nn.Module):
        """As in XCiT: units attend to each other, and each position stays where it is."""

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2)
            return (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens

    assert of(ByUnits(), 3, 4, 6)["matmul_2"] == Positions((2,), (4, 6))


def test_found_again_behind_an_operation_that_is_not_known() -> None:
    def resampled(x: Tensor) -> Tensor:
        grid = F.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), [x.shape[0], 3, 4, 6], align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    images = torch.randn(2, 3, 8, 12)
    graph = trace(Calling(resampled), images)
    [output] = graph.outputs
    found = positions(graph)[output].as_map(graph.run(images)[output])
    torch.testing.assert_close(found, F.avg_pool2d(images, 2))


def test_found_again_in_one_way_only() -> None:
    assert found_again((1, 49, 8), (14, 14)) == Positions((1,), (7, 7))
    assert found_again((1, 50, 8), (7, 7)) == Positions((1,), (7, 7), range(1, 50))
    assert found_again((1, 9, 26), (8, 12)) == Positions((2,), (4, 6), range(2, 26))
    assert found_again((1, 4, 6, 3), (8, 12)) == Positions((1, 2), (4, 6))
    assert found_again((1, 3, 4, 6), (8, 12)) == Positions((2, 3), (4, 6))
    assert found_again((1, 49, 49), (7, 7)) is None  # which of the two are the units?
    assert found_again((1, 8, 26), (8, 12)) is None  # 4×6 and two tokens, or 2×3 and two
    assert found_again((1, 52, 8), (7, 7)) is None  # three tokens too many
    assert found_again((1, 49, 8), (8, 8)) is None
    assert found_again((1, 4, 4, 4), (8, 8)) is None
    assert found_again((1, 49), (7, 7)) is None


@pytest.mark.parametrize("move", [lambda x: x.flip(3), lambda x: x.rot90(1, (2, 3)), lambda x: x.roll((3, 2), (2, 3))])
@pytest.mark.parametrize("size", [8, 7])
def test_a_stride_on_a_map_in_another_order(move: Callable[[Tensor], Tensor], size: int) -> None:
    """A bright corner of the image is in that corner of the map, as it is without the move."""
    images = torch.zeros(1, 1, size, size)
    images[:, :, :2, :2] = 1
    graph = trace(Calling(lambda x: F.avg_pool2d(move(x), 1, 2)), images)
    [output] = graph.outputs
    found = positions(graph)[output].as_map(graph.run(images)[output])[0, 0]
    assert found.flatten().argmax() == 0
    assert float(found[2:].sum() + found[:, 2:].sum()) == 0


def test_weights_between_tokens_are_no_map() -> None:
    class Talking(nn.Module):
        """The heads of an attention are mixed by a convolution over queries and keys."""

        def __init__(self) -> None:
            super().__init__()
            self.patches, self.heads = nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)
            return self.heads((x @ x.transpose(1, 2))[:, None].repeat(1, 2, 1, 1)).softmax(-1)

    assert "heads" not in of(Talking(), 3, 8, 8)


def test_images_side_by_side() -> None:
    """Each with filters of its own, as conditional convolutions run them."""
    assert of(Dynamic(), 3, 5, 6) == {"reshape_3": Positions((2, 3), (3, 4))}


def test_what_belongs_nowhere() -> None:
    class Latents(nn.Module):
        """Tokens of its own read the image, and the layers behind have no positions."""

        def __init__(self) -> None:
            super().__init__()
            self.patches, self.tokens = nn.Conv2d(3, 4, 2, stride=2), nn.Parameter(torch.ones(1, 3, 4))
            self.mixed, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = F.scaled_dot_product_attention(self.tokens.expand(x.shape[0], -1, -1), x, x)
            return self.head(self.mixed(x).mean(1))

    graph = trace(Latents(), torch.zeros(1, 3, 8, 12))
    assert not {"attention", "mixed", "head"} & set(positions(graph))
    assert without_positions(graph) == {"mixed"}


def test_as_map() -> None:
    channels_first = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).float()
    channels_last = channels_first.permute(0, 2, 3, 1)
    tokens = torch.cat([torch.full((2, 1, 3), -1.0), channels_first.flatten(2).transpose(1, 2)], dim=1)
    for result, where in (
        (channels_first, Positions((2, 3), (4, 5))),
        (channels_last, Positions((1, 2), (4, 5))),
        (channels_first.transpose(2, 3), Positions((3, 2), (4, 5))),
        (channels_first.flatten(2), Positions((2,), (4, 5))),
        (tokens, Positions((1,), (4, 5), range(1, 21))),
    ):
        assert torch.equal(where.as_map(result), channels_first)
