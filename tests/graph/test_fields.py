from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import RequestError
from convscope.graph import positions, receptive_fields, trace
from tests.graph.graph_networks import (
    Branches,
    Calling,
    Cells,
    Dynamic,
    Focus,
    Frozen,
    FullPrecision,
    Hierarchical,
    Mixer,
    Recurrent,
    Residual,
    Shuffle,
    SqueezeExcite,
    Started,
    Transformer,
    Windowed,
    Writing,
    chain,
    net4,
    vgg_like,
)

# Each network with the size of its image: rows and columns differ, so that swapping them shows.
NETWORKS = {
    "plain": (
        chain(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3, padding=1)),
        (1, 11, 9),
    ),
    "strided": (
        chain(nn.Conv2d(3, 2, (3, 5), stride=(2, 3), padding=(1, 2)), nn.BatchNorm2d(2)),
        (3, 10, 11),
    ),
    "even kernel, same": (chain(nn.Conv2d(1, 2, (4, 2), padding="same"), nn.Conv2d(2, 2, 3)), (1, 8, 7)),
    "dilated, odd padding": (
        chain(nn.Conv2d(1, 1, 3, dilation=2, padding=1), nn.Conv2d(1, 1, 2, dilation=3, padding=2)),
        (1, 9, 8),
    ),
    "holes only": (chain(nn.Conv2d(1, 1, 2, dilation=4, padding=4), nn.Conv2d(1, 1, 2, stride=3)), (1, 3, 4)),
    "ceil mode": (
        chain(nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)),
        (1, 10, 9),
    ),
    "grouped": (
        chain(nn.Conv2d(4, 4, 3, groups=2), nn.ChannelShuffle(2), nn.Conv2d(4, 4, 1, groups=4)),
        (4, 6, 5),
    ),
    "adaptive": (chain(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d((3, 2))), (1, 9, 10)),
    "adaptive, uneven": (chain(nn.AdaptiveMaxPool2d((3, 4)), nn.Conv2d(1, 1, 2)), (1, 8, 9)),
    "global and dense": (
        chain(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)),
        (1, 6, 5),
    ),
    "cropped and flat": (chain(nn.Conv2d(1, 1, 2, stride=3), nn.Flatten(), nn.Linear(6, 3)), (1, 9, 7)),
    "reflected": (chain(nn.ReflectionPad2d(2), nn.Conv2d(1, 1, 2, dilation=4)), (1, 6, 7)),
    "zero-padded": (chain(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(1, 1, 3, stride=2)), (1, 7, 6)),
    "transposed": (
        chain(nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), nn.Conv2d(4, 1, 2)),
        (2, 4, 5),
    ),
    "upsampled": (chain(nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3)), (1, 4, 5)),
    "group norm": (
        chain(nn.Conv2d(2, 4, 1, groups=2), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1, groups=2)),
        (2, 4, 4),
    ),
    "instance norm": (chain(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2)), (1, 4, 4)),
    "residual": (Residual(), (3, 9, 8)),
    "two residuals": (chain(Residual(1, 2, 2), Residual(2, 2, 1)), (1, 11, 8)),
    "branches": (Branches(), (2, 8, 7)),
    "squeeze-excite": (SqueezeExcite(), (3, 6, 7)),
    "positions last": (Mixer(), (3, 8, 10)),
    "transformer": (Transformer(), (3, 8, 8)),
    "rnn": (Recurrent(nn.RNN), (1, 7, 8)),
    "lstm, both ways": (Recurrent(nn.LSTM, bidirectional=True), (1, 7, 8)),
    "cells": (Cells(), (1, 7, 8)),
    "a first state from the image": (Started(of_image=True), (1, 7, 8)),
    "learned steps": (Started(of_image=False), (1, 7, 8)),
    "without autocast": (FullPrecision(), (3, 6, 7)),
    "patches by unfold": (Calling(lambda x: x.unfold(2, 3, 2).unfold(3, 2, 2).amax((4, 5))), (1, 7, 8)),
    "spread over patches": (
        Calling(lambda x: x.unfold(2, 3, 1).std(4) + x.movedim(1, 3).mT[:, 1:-1, :, 0, None]),
        (1, 5, 4),
    ),
    "times a vector": (Calling(lambda x: x[:, 0, 2:5] @ torch.ones(6)), (1, 7, 6)),
    "a vector times rows": (Calling(lambda x: torch.ones(2) @ x[:, 0, 3:5]), (1, 7, 6)),
    "the batch for units": (Calling(lambda x: F.max_pool1d(x[:, 0, 0, 1:], 2)[:, 1]), (1, 4, 9)),
    "units for rows": (Calling(lambda x: F.avg_pool3d(x, 2)), (2, 6, 5)),
    "queries that share keys": (
        Calling(lambda x: F.scaled_dot_product_attention(x, *[x[:, 2:, 2:4]] * 2, enable_gqa=True)[:, 0, 2, :1]),
        (4, 5, 3),
    ),
    "gates": (chain(nn.Conv2d(1, 4, 3), nn.GLU(1), nn.Conv2d(2, 1, 2)), (1, 6, 5)),
    "padded patches": (Calling(lambda x: F.unfold(x, (3, 2), dilation=2, padding=1, stride=2)[:, 1:3, 1]), (2, 7, 6)),
    "shuffled": (Shuffle(), (3, 8, 9)),
    "pixels as units": (Focus(), (3, 8, 10)),
    "filters from the image": (Dynamic(), (3, 5, 6)),
    "windows": (Windowed(), (3, 8, 12)),
    "frozen": (Frozen(), (3, 6, 7)),
    "written in place": (Writing(), (3, 6, 5)),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_boxes_are_those_of_a_poisoned_pixel(case: str) -> None:
    net, shape = NETWORKS[case]
    net.eval()
    graph = trace(net, torch.zeros(1, *shape))
    name = graph.outputs[0]
    field = receptive_fields(graph)[name]
    assert torch.equal(field.boxes, poisoned_boxes(net, shape))


def poisoned_boxes(net: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """The boxes found by putting NaN in one pixel at a time; knows nothing of the graph."""
    _, height, width = shape
    reached = torch.stack([poison(net, shape, y, x) for y, x in itertools.product(range(height), range(width))])
    reached = reached.view(height, width, *reached.shape[1:])
    boxes = torch.zeros(4, *reached.shape[2:], dtype=torch.int64)
    for row, column in itertools.product(*(range(n) for n in reached.shape[2:])):
        pixels = reached[:, :, row, column].nonzero()
        if len(pixels):
            (top, left), (bottom, right) = pixels.amin(0).tolist(), (pixels.amax(0) + 1).tolist()
            boxes[:, row, column] = torch.tensor([top, left, bottom, right])
    return boxes


def poison(net: nn.Module, shape: tuple[int, int, int], y: int, x: int) -> Tensor:
    """Which positions of the output a NaN in this pixel reaches, in any unit."""
    image = torch.rand(1, *shape)
    image[:, :, y, x] = torch.nan
    with torch.no_grad():
        nan = net(image)[0].isnan()
    return nan.any(0) if nan.ndim == 3 else nan.any().view(1, 1)


def test_boxes_where_positions_come_first_or_are_listed() -> None:
    """At each position of layers within a shifted-window transformer: where the gradient of its units is not zero."""
    graph = trace(Hierarchical(), torch.zeros(1, 3, 16, 24))
    where, fields, generator = positions(graph), receptive_fields(graph), torch.Generator().manual_seed(2)
    image = torch.rand(1, 3, 16, 24, generator=generator, requires_grad=True)
    for layer in ("block1.add", "block2.roll", "block2.add", "merge", "norm"):
        map_ = where[layer].as_map(graph.run(image, [layer])[layer])[0]
        weights = torch.rand(len(map_), 1, 1, generator=generator)  # the plain sum after a norm of units never changes
        boxes = torch.zeros(4, *map_.shape[1:], dtype=torch.int64)
        for row, column in itertools.product(*map(range, map_.shape[1:])):
            (gradient,) = torch.autograd.grad((map_ * weights)[:, row, column].sum(), image, retain_graph=True)
            seen = gradient[0].any(0).nonzero()
            boxes[:, row, column] = torch.cat([seen.amin(0), seen.amax(0) + 1])
        assert torch.equal(fields[layer].boxes, boxes), layer
    assert fields["block1.add"].box(5, 3) == (8, 4, 12, 8)  # windows of 2×2 positions, of 2×2 pixels each
    assert receptive_fields(trace(Transformer(), torch.zeros(1, 3, 8, 12)))["transpose"].box(1, 2) == (4, 8, 8, 12)


@pytest.mark.parametrize(
    "case", ["plain", "strided", "dilated, odd padding", "residual", "two residuals", "positions last"]
)
def test_the_plane_agrees_with_boxes_away_from_the_border(case: str) -> None:
    net, (channels, _, _) = NETWORKS[case]
    graph = trace(net, torch.zeros(1, channels, 61, 67))
    field = receptive_fields(graph)[graph.outputs[0]]
    row, column = field.boxes.shape[1] // 2, field.boxes.shape[2] // 2
    top, left, bottom, right = field.box(row, column)
    assert field.size == (bottom - top, right - left)
    assert field.centre is not None
    assert field.stride is not None
    assert field.centre[0] + row * field.stride[0] == (top + bottom - 1) / 2
    assert field.centre[1] + column * field.stride[1] == (left + right - 1) / 2
    below = field.box(row + 1, column + 1)
    assert field.stride == (below[0] - top, below[1] - left)


def test_units_of_unlike_reach_are_told_apart_when_cut() -> None:
    """The last units do not see through the 5×5 branch, so the field of their layer is the smaller one."""
    fields = receptive_fields(trace(Branches(), torch.zeros(1, 2, 31, 31)))
    assert fields["grouped"].size == (7, 7)
    assert (fields["slice_2"].size, fields["slice_2"].stride) == ((5, 5), None)


def test_net4() -> None:
    fields = receptive_fields(trace(net4(), torch.zeros(1, 3, 32, 32)))
    assert [fields[f"conv{i}"].size for i in range(1, 7)] == [(s, s) for s in (3, 5, 7, 12, 16, 20)]
    assert fields["pool2"].size == (22, 22)
    assert fields["pool2"].stride == (4, 4)


def test_a_field_may_be_larger_than_the_image_but_its_boxes_may_not() -> None:
    net = chain(*[nn.Conv2d(1, 1, 3, padding=1) for _ in range(6)])
    field = receptive_fields(trace(net, torch.zeros(1, 1, 8, 8)))["5"]
    assert field.size == (13, 13)
    assert field.centre == (0.0, 0.0)
    assert field.box(0, 7) == (0, 1, 7, 8)


def test_dense_layers_have_one_position_and_no_stride() -> None:
    field = receptive_fields(trace(vgg_like(), torch.zeros(1, 3, 32, 32)))["fc3"]
    assert (field.size, field.stride, field.centre, field.box()) == ((32, 32), None, None, (0, 0, 32, 32))


def test_an_unknown_operation_sees_the_whole_image() -> None:
    class Sorting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(dim=-1).values * 2

    graph = trace(Sorting(), torch.zeros(1, 1, 4, 5))
    assert [op.known for op in graph.operations] == [False, True, True]
    assert receptive_fields(graph)[graph.outputs[0]].box(3, 0) == (0, 0, 4, 5)


def test_a_position_off_the_map_is_refused() -> None:
    field = receptive_fields(trace(nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 4, 5)))["conv"]
    with pytest.raises(RequestError, match=r"position \(2, 0\) is not on this map; it has 2 rows and 3 columns"):
        field.box(2, 0)
