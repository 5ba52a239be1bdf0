"""Recurrent networks that read an image row by row."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from convscope.nets.text import Count

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
