"""A plain network from its text: an nn.Sequential with named layers conv1, bn1, relu1, pool1 … fc1."""

from __future__ import annotations

from collections import Counter, OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convscope.errors import NetworkError
from convscope.nets.text import Count, Word, parse_layers

EPSILON = 5e-4
"""Added to the variances, for images in units of their deviation, so that directions in which nothing varies stay small."""


class Whitening(nn.Conv2d):
    """Patches of k × k pixels along the eigenvectors of their covariance, each divided by its deviation; and the same negated.

    For eigenvectors v and eigenvalues λ of the matrix of second moments of all C·k² values of a patch, the 2·C·k² filters are
    ±v / √(λ + ε), ε = 5e-4 (Jordan 2024, arXiv 2404.00498; after Page 2019, "How to train your ResNet"). They do not learn.

    Attributes:
        fitted: whether the filters are those of some images; until `fit` they are random.

    Args:
        channels: C of the images.
        kernel: k.
    """

    fitted: Tensor

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, 2 * channels * kernel**2, kernel, bias=False)
        self.weight.requires_grad_(False)
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, images: Float[Tensor, "N C H W"]) -> None:
        """Computes the filters from all patches of normalised images."""
        kernel = self.kernel_size[0]
        moments = torch.zeros(self.out_channels // 2, self.out_channels // 2, dtype=torch.float64)
        for batch in images.split(256):
            patches = nn.functional.unfold(batch, kernel).transpose(1, 2).flatten(0, 1).double().cpu()
            moments += patches.T @ patches
        n_patches = len(images) * (images.shape[2] - kernel + 1) * (images.shape[3] - kernel + 1)
        values, vectors = torch.linalg.eigh(moments / n_patches)
        # an eigenvector's sign is the library's choice: the largest part is made positive, so that machines agree
        largest = vectors.abs().argmax(dim=0, keepdim=True)
        filters = (vectors * vectors.gather(0, largest).sign() / (values + EPSILON).sqrt()).T
        self.weight.copy_(torch.cat([filters, -filters]).view_as(self.weight))
        self.fitted.fill_(True)


def plain_net(layers: str, *, classes: Count = 10, channels: Count = 3, image_size: Count = 32) -> nn.Sequential:
    """The network that a line of text describes, with its output layer (`classes` units, no softmax).

    Args:
        layers: the text, see convscope.nets.text.
        classes: number of output units.
        channels: channels of the input images.
        image_size: side of the input images in pixels.
    Raises:
        SettingError: the text is not in the grammar.
        NetworkError: a window does not fit into the map that reaches it; the layer and the map's size are named.

    Example:
        >>> net = plain_net("c8 M f16", classes=3, channels=1, image_size=8)
        >>> [name for name, _ in net.named_children()]
        ['conv1', 'relu1', 'pool1', 'flatten', 'fc1', 'relu2', 'fc2']
    """
    stack = Stack(channels, image_size)
    stack.read(layers)
    return stack.finished(classes)


class Stack:
    """Layers added so far, and the shape of what comes out of them.

    Attributes:
        modules: by name, in order.
        units: channels of the maps, or units of the last dense layer.
        side: of the maps in pixels; None once they are flattened.
        area: positions of a map, for maps that are no squares.
    """

    def __init__(self, channels: int, side: int | None, area: int | None = None) -> None:
        self.modules: OrderedDict[str, nn.Module] = OrderedDict()
        self.units, self.side = channels, side
        self.area = (side or 0) ** 2 if area is None else area
        self._count: Counter[str] = Counter()
        self._output: Word | None = None

    def read(self, layers: str) -> None:
        """Adds the layers that a text describes."""
        for word in parse_layers(layers):
            self.add_word(word)

    def add_word(self, word: Word) -> None:
        """Adds what one word describes."""
        match word.letter:
            case "c":
                self._add_conv(word)
            case "f" if word.number is None:
                self._output = word
            case "f":
                self.dense(int(word.number or 0), bias="o" not in word.flags)
                self._activate(word)
            case "M" | "A":
                self._add_pool(word)
            case "G" | "X":
                self.add("pool", nn.AdaptiveMaxPool2d(1) if word.letter == "X" else nn.AdaptiveAvgPool2d(1))
                self.side = self.area = 1
            case "W":
                whitening = Whitening(self.units, word.settings.get("k", 2))
                self._slide("whiten1", whitening.kernel_size[0], 1, 0)
                self.add("whiten", whitening)
                self.units = whitening.out_channels
                self._activate(word)
            case "B":
                self._normalize(word)
            case "R":
                self.add("relu", nn.ReLU())
            case "E":
                self.add("gelu", nn.GELU())
            case "D":
                self.add("drop", nn.Dropout(word.number or 0.0))

    def finished(self, classes: int) -> nn.Sequential:
        """The network, with its output layer."""
        self.dense(classes, bias=self._output is None or "o" not in self._output.flags)
        return nn.Sequential(self.modules)

    def add(self, kind: str, module: nn.Module) -> None:
        self._count[kind] += 1
        self.modules[f"{kind}{self._count[kind]}"] = module

    def dense(self, units: int, bias: bool = True) -> None:
        if self.side is not None:
            self.modules["flatten"] = nn.Flatten()
            self.units, self.side = self.units * self.area, None
        self.add("fc", nn.Linear(self.units, units, bias))
        self.units = units

    def _add_conv(self, word: Word) -> None:
        units, get = int(word.number or 0), word.settings.get
        kernel, stride, dilation, groups = get("k", 3), get("s", 1), get("d", 1), get("g", 1)
        padding = get("p", dilation * (kernel - 1) // 2)
        name = f"conv{self._count['conv'] + 1}"
        if self.units % groups or units % groups:
            raise NetworkError(f"{name}: {groups} groups do not divide {self.units} inputs and {units} filters")
        self._slide(name, kernel, stride, padding, dilation)
        self.add("conv", nn.Conv2d(self.units, units, kernel, stride, padding, dilation, groups, "o" not in word.flags))
        self.units = units
        self._activate(word)

    def _add_pool(self, word: Word) -> None:
        kernel = word.settings.get("k", 2)
        stride, padding, up = word.settings.get("s", kernel), word.settings.get("p", 0), "u" in word.flags
        name = f"pool{self._count['pool'] + 1}"
        if 2 * padding > kernel:
            raise NetworkError(f"{name}: padding {padding} is more than half of its {kernel}×{kernel} window")
        self._slide(name, kernel, stride, padding, up=up)
        pool = nn.MaxPool2d if word.letter == "M" else nn.AvgPool2d
        self.add("pool", pool(kernel, stride, padding, ceil_mode=up))

    def _slide(self, name: str, kernel: int, stride: int, padding: int, dilation: int = 1, up: bool = False) -> None:
        """Takes the side of the map through one sliding window."""
        assert self.side is not None  # the grammar has no window after a dense layer
        span, room = dilation * (kernel - 1) + 1, self.side + 2 * padding
        if span > room:
            raise NetworkError(
                f"{name}: its {span}×{span} window does not fit the {self.side}×{self.side} map that reaches it"
                f"{f' with padding {padding}' if padding else ''}; take larger images, a smaller kernel or fewer pools"
            )
        steps = -((span - room) // stride) if up else (room - span) // stride
        if up and steps * stride >= self.side + padding:  # PyTorch drops a window that would start in the far padding
            steps -= 1
        self.side, self.area = steps + 1, (steps + 1) ** 2

    def _activate(self, word: Word) -> None:
        if word.flags & {"b", "n"}:
            self._normalize(word)
        if "e" in word.flags:
            self.add("gelu", nn.GELU())
        elif "l" not in word.flags:
            self.add("relu", nn.ReLU())

    def _normalize(self, word: Word) -> None:
        norm = nn.BatchNorm1d(self.units) if self.side is None else nn.BatchNorm2d(self.units)
        if "n" in word.flags:
            norm.weight.requires_grad_(False)
        self.add("bn", norm)
