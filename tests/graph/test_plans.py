"""The choice between boxes and whole passes, on networks where it is plain."""

from __future__ import annotations

import torch
from torch import nn

from convscope.graph import Incremental, Span, trace
from convscope.graph.plans import Way, edge_values
from tests.graph import graph_networks as networks
from tests.graph.graph_networks import chain

PIXELS: Way = ([(Span(i, i + 1), 1) for i in range(32)],) * 2
WHOLE_IMAGE: Way = ([(Span(0, 32), 32)],) * 2


def incremental(net: nn.Module) -> Incremental:
    return Incremental(trace(net.eval(), torch.zeros(1, 3, 32, 32)))


def cheapest(network: Incremental, *ways: Way) -> tuple[int, int]:
    return network.cheapest(ways, 16, torch.device("cpu"))


def wide(kernel: int) -> nn.Module:
    """Layers of many products; a kernel of 63 lets a pixel reach all of the map."""
    first = nn.Conv2d(3, 64, kernel, padding=kernel // 2)
    return chain(first, nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.MaxPool2d(2), nn.Flatten())


def test_boxes_where_a_change_stays_small() -> None:
    """Single pixels through both convolutions, in place of blocks that cover the image."""
    way, n_steps = cheapest(incremental(wide(3)), WHOLE_IMAGE, PIXELS)
    assert way == 1
    assert n_steps >= 3


def test_whole_passes_where_the_image_changes_as_a_whole() -> None:
    assert cheapest(incremental(wide(3)), WHOLE_IMAGE) == (0, 0)


def test_whole_passes_where_nothing_is_followed() -> None:
    assert cheapest(incremental(chain(nn.Flatten(), nn.Linear(3072, 10))), PIXELS) == (0, 0)


def test_whole_passes_from_where_a_change_reaches_everything() -> None:
    """One pixel takes few products in the first layer; its outputs all change, and so all after it is run whole."""
    assert cheapest(incremental(wide(63)), PIXELS)[1] in (1, 2)


def test_the_image_as_it_is_counts() -> None:
    """One changed image needs two passes if it is followed: one to remember and one to follow."""
    one: Way = ([(Span(0, 16), 1)],) * 2
    assert cheapest(incremental(wide(3)), one) == (0, 0)


def test_edge_by_hand() -> None:
    """The image; the map that both branches read; both branches; their sum."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 2, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return (x.sigmoid() + x).flatten(1)

    assert edge_values(incremental(Branching())) == [3 * 32 * 32, 4 * 16 * 16, 2 * 4 * 16 * 16, 4 * 16 * 16]


def test_no_edge_splits_several_results() -> None:
    """Between `split` and its parts there is nothing that a run could start from."""
    values = edge_values(incremental(chain(nn.Conv2d(3, 2, 1), networks.Branches(), nn.Flatten())))
    assert [v == float("inf") for v in values].count(True) >= 1
    assert values[-1] < float("inf")
