"""Where the units of a layer are read, on a network whose layers are followed by all that there is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import UnknownNameError
from convscope.graph import TracedGraph, relu_after, trace, where_read


class Followed(nn.Module):
    """A block with a shared ReLU and a sum, a pool before a ReLU, a function, a norm that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = (nn.Conv2d(3, 3, 1) for _ in range(5))
        self.norm1, self.norm2, self.norm5 = (nn.BatchNorm2d(3) for _ in range(3))
        self.relu, self.pool, self.fc = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x))))) + x)
        x = self.conv4(torch.relu(self.pool(self.conv3(x)))).relu()
        x = self.norm5(self.conv5(x))
        return self.fc((x + x.sigmoid()).mean((2, 3)))


@pytest.fixture
def graph() -> TracedGraph:
    return trace(Followed().eval(), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("conv1", "relu"),
        ("norm1", "relu"),
        ("relu", "relu"),
        ("conv2", "norm2"),  # what the sum takes
        ("norm2", "norm2"),
        ("conv3", "conv3"),  # the pool takes it
        ("conv4", "relu_4"),
        ("conv5", "norm5"),
        ("fc", "fc"),
    ],
)
def test_where_the_next_layer_reads_a_unit(graph: TracedGraph, layer: str, expected: str) -> None:
    assert where_read(graph, layer) == expected
    assert (relu_after(graph, layer) is None) == ("relu" not in expected)


def test_a_layer_that_is_not_there(graph: TracedGraph) -> None:
    with pytest.raises(UnknownNameError, match="layer 'conv9' is not in this network"):
        where_read(graph, "conv9")
