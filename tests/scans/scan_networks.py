"""Small networks to scan, with planted truths, and images for them."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from convscope.data import ImageSet
from convscope.scope import Scope

CLASSES = ("a", "b", "c")
HEIGHT, WIDTH = 9, 12  # not equal, here and in other scans' tests: rows taken for columns give another result


def network(seed: int = 0) -> nn.Sequential:
    """conv1 – batch norm – ReLU – conv2 – ReLU – fc, with weights and statistics that are not those of the start.

    Of conv1, unit 2 is dead (behind batch norm, not before), unit 4 a copy of unit 1, unit 5 always on.
    """
    torch.manual_seed(seed)
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 6, 3, padding=1), bn1=nn.BatchNorm2d(6), relu1=nn.ReLU(inplace=True),
        conv2=nn.Conv2d(6, 5, 3, stride=2), relu2=nn.ReLU(), flatten=nn.Flatten(), fc=nn.Linear(100, 3),
    )  # fmt: skip
    net = nn.Sequential(layers)
    with torch.no_grad():
        net.bn1.running_mean.normal_().mul_(0.3)
        net.bn1.bias[2], net.bn1.bias[5] = -50.0, 50.0
        net.conv1.weight[4], net.conv1.bias[4] = net.conv1.weight[1], net.conv1.bias[1]
    return net


def make_scope(net: nn.Module | None = None) -> Scope:
    normalize = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    return Scope(net or network(), torch.zeros(1, 3, HEIGHT, WIDTH), CLASSES, normalize)


def make_images(n: int = 50, seed: int = 1) -> ImageSet:
    """Noise with three classes; some images are the same, so that responses tie."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    pixels[n // 2 : n // 2 + 5] = pixels[3]
    labels = torch.randint(0, 3, (n,), generator=generator)
    return ImageSet(pixels, torch.arange(n), {"class": labels}, {"class": CLASSES})


def bytes_of(record: object) -> dict[str, object]:
    """All that a record holds, so that `==` compares every bit."""
    return {
        name: value.numpy().tobytes() if isinstance(value, Tensor) else value for name, value in vars(record).items()
    }
