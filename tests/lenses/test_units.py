from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import RequestError
from convscope.graph import trace
from convscope.lenses.ablation import interventions
from convscope.lenses.units import choose_units, convolutions


@pytest.mark.parametrize(
    ("units", "expected"),
    [(None, (0, 1, 2)), (1, (1,)), ([2, 0, 2], (2, 0, 2)), (range(2), (0, 1)), (torch.tensor([1]), (1,))],
)
def test_units(units: Any, expected: tuple[int, ...]) -> None:
    assert choose_units(units, 3, "conv1") == expected


@pytest.mark.parametrize(
    ("units", "message"),
    [(3, "unit 3 is not in layer 'conv1'; it has 0 to 2"), ([0, -1], "unit -1 is not in layer 'conv1'"),
     ([], "expected a whole number or a list of them")],
)  # fmt: skip
def test_wrong_units(units: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        choose_units(units, 3, "conv1")


class Routed(nn.Module):
    """A convolution over units, which has one filter; and an expert that runs on the images of a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 4, 3), nn.Conv1d(1, 1, 3, padding=1)
        self.expert, self.fc = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        means = self.conv(x).relu().mean((2, 3))
        means = means * self.gate(means.unsqueeze(1)).squeeze(1).sigmoid()
        chosen = means[:, 0] > means[:, 1]
        mixed = means.clone()
        mixed[chosen] = self.expert(means[chosen])
        return self.fc(mixed)


def test_layers_by_kind_are_those_whose_units_are_known() -> None:
    graph = trace(Routed().eval(), torch.zeros(1, 3, 6, 5))
    assert convolutions(graph) == ["conv"]
    assert list(interventions(graph, "conv", "zero_weights")) == ["conv"]
    assert list(interventions(graph, ["*"], "zero_activation")).count("expert") == 0
    with pytest.raises(RequestError, match="layer 'gate' gives 1×4 numbers an image, and which are a unit's"):
        interventions(graph, ["gate"], "zero_weights")
    with pytest.raises(RequestError, match="layer 'expert' runs on as many rows as the images decide"):
        interventions(graph, ["expert"], "zero_weights")
