"""What an intervention puts in place of a layer's activations, by hand."""

from __future__ import annotations

import pytest
import torch

from convscope.graph import Intervention, trace
from tests.graph.graph_networks import chain


def whole(n_units: int, unit_axis: int = 1) -> Intervention:
    """All units of a layer, unit u replaced by u + 0.5."""
    values = torch.arange(n_units, dtype=torch.float64) + 0.5
    return Intervention(("0",), values, torch.ones(n_units, dtype=torch.bool), unit_axis)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4, 5), 1), ((2, 3), 1), ((2, 7, 3), 2), ((2, 4, 5, 3), 3)])
def test_chosen_units_are_replaced_at_all_positions(shape: tuple[int, ...], axis: int) -> None:
    result = torch.full(shape, -1.0)
    replaced = whole(3, axis).of([2, 0]).on(result).movedim(axis, -1)
    assert replaced.reshape(-1, 3).unique(dim=0).tolist() == [[0.5, -1, 2.5]]
    assert replaced.dtype == result.dtype
    assert result.unique().tolist() == [-1]


def test_others_are_chosen_of_the_same() -> None:
    some = whole(4).of([3, 1])
    assert some.units == [1, 3]
    assert some.of([]).units == []
    assert whole(4).units == [0, 1, 2, 3]


def test_in_a_graph_all_chosen_units_are_replaced_at_once() -> None:
    graph = trace(chain(torch.nn.Conv2d(1, 3, 1), torch.nn.ReLU()).eval(), torch.zeros(1, 1, 2, 2))
    images = torch.rand(2, 1, 2, 2)
    before, after = (graph.run(images, instead=instead)["1"] for instead in ({}, {"0": whole(3).of([1]).instead}))
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    assert after[:, 1].unique().tolist() == [1.5]
