"""Small networks of every shape that the graph has to understand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def vgg_like() -> nn.Sequential:
    """Report A's network without batch norm: 6,216,074 parameters, 133,130 neurons."""
    layers: dict[str, nn.Module] = {}
    widths = ((3, 64), (64, 128), (128, 256), (256, 256))
    for i, (before, after) in enumerate(widths, start=1):
        layers |= {f"conv{i}": nn.Conv2d(before, after, 3, padding=1), f"relu{i}": nn.ReLU(inplace=True)}
        if i != 3:
            layers[f"pool{min(i, 3)}"] = nn.MaxPool2d(2)
    layers |= {"flatten": nn.Flatten(), "fc1": nn.Linear(4096, 1024), "relu5": nn.ReLU()}
    layers |= {"fc2": nn.Linear(1024, 1024), "relu6": nn.ReLU(), "fc3": nn.Linear(1024, 10)}
    return nn.Sequential(OrderedDict(layers))


def net4() -> nn.Sequential:
    """The body of report B's Net 4: c p p M c p p M."""
    widths, paddings = (3, 64, 64, 128, 256, 256, 512), (0, 1, 1, 0, 1, 1)
    layers: dict[str, nn.Module] = {}
    for i, padding in enumerate(paddings, start=1):
        layers[f"conv{i}"] = nn.Conv2d(widths[i - 1], widths[i], 3, padding=padding)
        layers |= {f"bn{i}": nn.BatchNorm2d(widths[i]), f"relu{i}": nn.ReLU(inplace=True)}
        if i % 3 == 0:
            layers[f"pool{i // 3}"] = nn.MaxPool2d(2)
    return nn.Sequential(OrderedDict(layers))


class Residual(nn.Module):
    """A residual block with one ReLU used twice, in place, and a strided shortcut."""

    def __init__(self, before: int = 3, after: int = 4, stride: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        y += self.shortcut(x)
        return self.relu(y)


class Branches(nn.Module):
    """An inception block: branches of unlike reach, joined, then kept apart by a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Conv2d(2, 2, 1)
        self.large = nn.Conv2d(2, 2, 5, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.grouped = nn.Conv2d(6, 6, 3, groups=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.small(x), F.relu(self.large(x)), self.pool(x)], dim=1)
        first, rest = self.grouped(x).split([2, 4], dim=1)
        return torch.cat([rest, first], dim=1)[:, 3:]


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding="same", dilation=2)
        self.fc = nn.Linear(4, 4)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.conv(x))
        weight = self.act(self.fc(x.mean((2, 3)))).sigmoid()
        return x * weight[:, :, None, None]


class Mixer(nn.Module):
    """A ConvNeXt block: positions last, dense layers over units, back again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, stride=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.LayerNorm(4)
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(x[:, 0])


class Recurrent(nn.Module):
    """Reads the image row by row."""

    def __init__(self, cell: type[nn.RNNBase] = nn.LSTM, bidirectional: bool = False) -> None:
        super().__init__()
        self.rnn = cell(8, 6, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(12 if bidirectional else 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.squeeze(1))[0][:, 4])


class Cells(nn.Module):
    """A cell of an LSTM, then one of a GRU, take the first rows of the image one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(8, 6), nn.GRUCell(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        states, state = None, None
        for row in range(3):
            states = self.lstm(x[:, 0, row], states)
            state = self.gru(states[0], state)
        return state


class Started(nn.Module):
    """Learned steps, or rows of the image, with a first state that is made of its last pixels."""

    def __init__(self, of_image: bool) -> None:
        super().__init__()
        self.first, self.rnn = nn.Linear(2, 6), nn.GRU(8, 6)
        self.steps = None if of_image else nn.Parameter(torch.ones(3, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0].transpose(0, 1) if self.steps is None else self.steps.expand(-1, x.shape[0], -1)
        return self.rnn(rows, self.first(x[:, 0, -1, -2:])[None])[0][1]


class Calling(nn.Module):
    """Does to its images what a function does."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class FullPrecision(nn.Module):
    """A part of it, and a part of that, runs without autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.conv(x.float())
            with torch.autocast("cuda", enabled=False):
                x = self.relu(x)
        return self.fc(x.mean((2, 3)))


class Writing(nn.Module):
    """Writes into a view: no plain out-of-place twin gives the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        x[:, 0] += 1
        y = self.drop(x)
        return y.relu_() + x


class Deciding(nn.Module):
    """Its path depends on pixel values, so it cannot be exported."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.conv(x) * self.scale
        if x.mean() > 0:
            x = self.conv(x.repeat(1, 1, 1, 1)[:, :3])
        return self.fc(x.mean((2, 3)))


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.left_over = x
        raise ValueError("no forward today\nand a second line")


class Shuffle(nn.Module):
    """A ShuffleNet unit: half of the units pass by, then the halves are interleaved by reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.grouped = nn.Conv2d(8, 4, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        passed, seen = self.stem(x).chunk(2, dim=1)
        x = torch.cat([passed, self.depthwise(seen)], dim=1)
        n, c, h, w = x.shape
        return self.grouped(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Focus(nn.Module):
    """Neighbouring pixels become units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1))


class Dynamic(nn.Module):
    """The image itself makes the filters, and the batch is folded into the units."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(3, 27)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        filters = self.make(x.mean((2, 3))).view(n * c, 1, 3, 3)
        return F.conv2d(x.reshape(1, n * c, h, w), filters, groups=n * c).view(n, c, h - 2, w - 2)


class Windowed(nn.Module):
    """Attention within shifted windows, which are folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 2, stride=2)
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        x = torch.roll(x, (-1, -1), (1, 2)).view(n, h // 2, 2, w // 2, 2, c)
        x = F.scaled_dot_product_attention(*self.qkv(x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)).chunk(3, dim=-1))
        x = x.view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(x, (1, 1), (1, 2)).permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Attention within 2×2 windows, shifted by one or not, with what goes past it."""

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2)).view(n, h // 2, 2, w // 2, 2, c)
        windows = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(windows).view(-1, 4, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)  # two heads
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 4, c)
        y = self.proj(y).view(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return x + torch.roll(y, (self.shift, self.shift), (1, 2))


class Hierarchical(nn.Module):
    """A shifted-window transformer of three blocks, with positions first; patches are merged before the last."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 2, stride=2)
        self.block1, self.block2, self.block3 = WindowAttention(4, 0), WindowAttention(4, 1), WindowAttention(6, 0)
        self.merge_norm, self.merge = nn.LayerNorm(16), nn.Linear(16, 6)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.block1(self.patches(x).permute(0, 2, 3, 1)))
        x = torch.cat([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=-1)
        x = self.block3(self.merge(self.merge_norm(x)))
        return self.head(self.norm(x).mean((1, 2)))


class Frozen(nn.Module):
    """A backbone under no_grad, as for a new head on pre-trained features."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.backbone(x)
        return self.head(x)
