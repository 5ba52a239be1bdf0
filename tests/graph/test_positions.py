from __future__ import annotations

import torch
from torch import Tensor, nn

from convscope.graph import Positions, positions, trace
from tests.graph.graph_networks import Branches, Mixer, Recurrent, Shuffle, SqueezeExcite, Transformer, Windowed, chain


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
    assert found["concat"] == found["norm"] == found["add"] == Positions((1,), (2, 3), first=1)
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


def test_where_they_are_lost() -> None:
    found = of(Windowed(), 3, 8, 12)
    assert found["permute"] == Positions((1, 2), (4, 6))
    assert not [name for name in found if name.startswith(("roll", "reshape", "attention"))]
    assert of(Recurrent(), 1, 7, 8) == {}


def test_as_map() -> None:
    channels_first = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5).float()
    channels_last = channels_first.permute(0, 2, 3, 1)
    tokens = torch.cat([torch.full((2, 1, 3), -1.0), channels_first.flatten(2).transpose(1, 2)], dim=1)
    for result, where in (
        (channels_first, Positions((2, 3), (4, 5))),
        (channels_last, Positions((1, 2), (4, 5))),
        (channels_first.transpose(2, 3), Positions((3, 2), (4, 5))),
        (channels_first.flatten(2), Positions((2,), (4, 5))),
        (tokens, Positions((1,), (4, 5), first=1)),
    ):
        assert torch.equal(where.as_map(result), channels_first)
