"""Inception and residual blocks: branches that read the same maps, and are joined."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.nets.plain import Stack
from convscope.nets.text import Count

Block = Literal["inception", "residual"]
Join = Literal["concat", "sum"]

INCEPTION = ("c64", "c64 c64", "c64 Mk3s1p1")
"""The branches of report E's inception block; its pool's size is assumed."""

RESIDUAL = "c128 c128 c{channels}k1l"
"""The way through report E's residual block; the last convolution brings it back to the channels of its input."""


class Inception(nn.Module):
    """Branches that read the same maps: `branch1`, `branch2` …, their results one above the other, or their sum.

    Args:
        branches: each gives maps of the same size; for a sum of as many channels, too.
        join: "concat" or "sum".
    """

    def __init__(self, branches: list[nn.Sequential], join: Join) -> None:
        super().__init__()
        self.join = join
        for n, branch in enumerate(branches, start=1):
            self.add_module(f"branch{n}", branch)

    def forward(self, maps: Float[Tensor, "N C H W"]) -> Float[Tensor, "N U H W"]:
        return _joined([branch(maps) for branch in self.children()], self.join)


class Residual(nn.Module):
    """Maps joined with what a way of layers makes of them, then ReLU.

    Args:
        way: gives maps of the size of its input; for a sum of as many channels, too.
        join: "sum", as in the source; or "concat", by which report E joins them.

    Source: He, Zhang, Ren & Sun 2015, section 3.2, arXiv 1512.03385.
    """

    def __init__(self, way: nn.Sequential, join: Join) -> None:
        super().__init__()
        self.way, self.join, self.relu = way, join, nn.ReLU()

    def forward(self, maps: Float[Tensor, "N C H W"]) -> Float[Tensor, "N U H W"]:
        return self.relu(_joined([maps, self.way(maps)], self.join))


def block_net(
    body: str, block: Block, join: Join, blocks: int, head: str, *, classes: Count, channels: Count, image_size: Count
) -> nn.Sequential:
    """A plain body, blocks of one kind, a max pool after residual ones, and a plain head.

    Args:
        body, head: texts, see convscope.nets.text.
        block, join: of each block, see Inception and Residual.
        blocks: how many.
        classes, channels, image_size: as of plain_net.
    Raises:
        NetworkError: a window does not fit into the map that reaches it.
    """
    stack = Stack(channels, image_size)
    stack.read(body)
    for _ in range(blocks):
        (_add_inception if block == "inception" else _add_residual)(stack, join)
    if block == "residual":
        stack.read("M")
    stack.read(head)
    return stack.finished(classes)


def residual_net(width: int, dropout: float, *, classes: Count, channels: Count, image_size: Count) -> nn.Sequential:
    """A small residual network for photographs: a convolution that halves the maps, a pool, and four residual blocks.

    Each block has two convolutions with batch norm (He, Zhang, Ren & Sun 2015, arXiv 1512.03385); before each but the first a
    convolution halves the maps and doubles the filters. A global average pool makes it fit any size from 32 px on.

    Args:
        width: filters of the first convolution.
        dropout: share, before the output layer.
        classes, channels, image_size: as of plain_net.
    """
    stack = Stack(channels, image_size)
    stack.read(f"c{width}s2b M")
    for number, n in enumerate(width * 2**power for power in range(4)):
        if number:
            stack.read(f"c{n}s2b")
        stack.add("residual", Residual(nn.Sequential(_branch(stack, f"c{n}b c{n}bl").modules), "sum"))
    stack.read(f"G D{dropout:g}")
    return stack.finished(classes)


def _add_inception(stack: Stack, join: Join) -> None:
    branches = [_branch(stack, text) for text in INCEPTION]
    stack.add("inception", Inception([nn.Sequential(branch.modules) for branch in branches], join))
    stack.units = sum(branch.units for branch in branches) if join == "concat" else branches[0].units


def _add_residual(stack: Stack, join: Join) -> None:
    way = _branch(stack, RESIDUAL.format(channels=stack.units))
    stack.add("residual", Residual(nn.Sequential(way.modules), join))
    stack.units *= 2 if join == "concat" else 1


def _branch(stack: Stack, layers: str) -> Stack:
    """The layers of a text over the maps that a stack has come to."""
    assert stack.side is not None  # blocks come before the dense layers
    branch = Stack(stack.units, stack.side)
    branch.read(layers)
    return branch


def _joined(maps: list[Tensor], join: Join) -> Tensor:
    return torch.cat(maps, dim=1) if join == "concat" else sum(maps[1:], start=maps[0])


Cell = Literal["rnn", "lstm", "gru"]
_CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Rows(nn.Module):
    """The rows of each image from the top down, as the steps of a sequence; a step holds the row of every channel."""

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N H C*W"]:
        return images.transpose(1, 2).flatten(2)


class LastStep(nn.Module):
    """The answer of a recurrent layer after its last step."""

    def forward(self, found: tuple[Tensor, object]) -> Float[Tensor, "N U"]:
        return found[0][:, -1]


def rows_net(cell: Cell, hidden: int, *, classes: Count, channels: Count, image_size: Count) -> nn.Sequential:
    """A recurrent layer over the rows of an image; its last answer goes through a dense layer.

    Args:
        cell: "rnn" (tanh), "lstm" or "gru", with both of PyTorch's biases.
        hidden: its units.
        classes: number of output units.
        channels, image_size: of the images.

    Example:
        >>> net = rows_net("lstm", 64, classes=10, channels=1, image_size=28)
        >>> [name for name, _ in net.named_children()]
        ['rows', 'lstm1', 'last', 'fc1']
    """
    layers: dict[str, nn.Module] = {
        "rows": Rows(),
        f"{cell}1": _CELLS[cell](channels * image_size, hidden, batch_first=True),
        "last": LastStep(),
        "fc1": nn.Linear(hidden, classes),
    }
    return nn.Sequential(OrderedDict(layers))
