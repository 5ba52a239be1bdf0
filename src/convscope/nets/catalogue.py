"""The networks that come with convscope: each a function from its options to its plan.

A plan is a plain network's text; or, of a network that no text describes, a function that builds it for an input
and a number of outputs.

Parameter counts in the comments are for the defaults, 10 classes, and are met exactly (tests/nets/test_catalogue.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from convscope.nets.blocks import Block, Cell, Join, block_net, residual_net, rows_net
from convscope.nets.natural import NaturalInput
from convscope.nets.text import Count
from convscope.nets.zoo import LITE0_NORMALIZE, efficientnet_lite0

Plan = str | Callable[..., nn.Module]
"""A text, or a function of `classes`, `channels` and `image_size`."""

Share = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=64)]


def _report_b_head(dropout: float = 0.0) -> str:
    """The head that the four networks of report B share; dropout after each hidden layer (its place is assumed)."""
    drop = _drop(dropout)
    return f"f120{drop} f84{drop}"


def _drop(share: float) -> str:
    return f" D{share:g}" if share else ""


def vgg_cifar(batch_norm: bool = True) -> str:
    """Report A's VGG-like network; batch norm (where on) follows each convolution."""
    b = "b" if batch_norm else ""
    return f"c64{b} M c128{b} M c256{b} c256{b} M f1024 f1024"  # 6,216,074 without batch norm


def net1(width: Count = 18, multiplier: Factor = 2.0, kernel: Count = 3, stride: Count = 1) -> str:
    """Report B's first network: two convolutions without padding."""
    second = max(1, round(width * multiplier))
    k = f"k{kernel}s{stride}p0"
    return f"c{width}{k} M c{second}{k} M {_report_b_head()}"  # 173,026


def net2(width: Count = 64, kernel: Count = 5) -> str:
    """Report B's second network: four convolutions. At kernel 7 the last has padding 2, or nothing would be left."""
    last_padding = 2 if kernel == 7 else 1
    unpadded, padded, last = f"k{kernel}p0", f"k{kernel}p1", f"k{kernel}p{last_padding}"
    body = f"c{width}{unpadded} c{2 * width}{padded} M c{4 * width}{unpadded} c{8 * width}{last} M"
    return f"{body} {_report_b_head()}"  # 4,870,654


def net3(width: Count = 96, dropout: Share = 0.1) -> str:
    """Report B's third network: net2 at kernel 3 with batch norm and dropout."""
    body = f"c{width}p0b c{2 * width}p1b M c{4 * width}p0b c{8 * width}p1b M"
    return f"{body} {_report_b_head(dropout)}"  # 6,819,454


def net4(dropout: Share = 0.3) -> str:
    """Report B's fourth network: six convolutions with batch norm, and dropout."""
    return f"c64p0b c64p1b c128p1b M c256p0b c256p1b c512p1b M {_report_b_head(dropout)}"  # 4,403,518


def lenet5() -> str:
    """Report C's LeNet-5 for grey 28×28 images."""
    return "c32k5 M c64k5 M f1024"  # 3,274,634


def lenet_bn(dropout: Share = 0.5) -> str:
    """Report C's improved network: batch norm after each pool, dropout (its share is assumed)."""
    return f"c32k5 M B c64 M B D{dropout:g} c64 Mu B f256 B D{dropout:g}"


def conv7() -> str:
    """Report D's network of part 1: one 7×7 convolution (its shape is assumed)."""
    return "c32k7p0 B M f1024"


def lines_net(
    width: Count = 16, kernel: Count = 3, pool: Literal["max", "stride"] = "max", dropout: Share = 0.0
) -> str:
    """For the Lines set: three pairs of convolutions, narrow, because a line has few pixels.

    Report D's variations: pool "stride" leaves the pools out, and the second convolution of each pair steps by 2.
    """
    k = "" if kernel == 3 else f"k{kernel}"
    second, down = (f"{k}b", " M") if pool == "max" else (f"{k}s2b", "")
    pairs = (f"c{n}{k}b c{n}{second}{down}" for n in (width, 2 * width, 4 * width))
    return f"{' '.join(pairs)} f128b{_drop(dropout)}"  # 159,024, with the 96 classes of the Lines set


def lines_vgg19(width: Count = 64, dense: Count = 128, batch_norm: bool = False, dropout: Share = 0.0) -> str:
    """Report D's VGG19-like stack: the sixteen convolutions of VGG19, and dense layers of 128 units or more.

    Its pools round up, so that five of them fit 28×28 pixels; at 224×224, `dense` 4096 and 1000 classes it is VGG19.
    """
    b, stages = "b" if batch_norm else "", ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4))
    body = " ".join(f"{f'c{factor * width}{b} ' * n}Mu" for factor, n in stages)
    return f"{body} {f'f{dense}{_drop(dropout)} ' * 2}"  # 20,118,944, with the 96 classes of the Lines set


def mnist_net(width: Count = 16) -> str:
    """For MNIST: two pairs of convolutions with batch norm and a little dropout."""
    return f"c{width}b c{width}b M c{2 * width}b c{2 * width}b M f128b D0.3"


def lean_cifar(width: Count = 32) -> str:
    """For CIFAR-10 on a laptop: one convolution at full size, pooled at once, then pairs of twice the width."""
    return f"c{width}b M c{2 * width}b c{2 * width}b M c{4 * width}b c{4 * width}b M"


def air_cifar(width: Count = 32) -> str:
    """For CIFAR-10, in the fewest seconds: whitened patches, then three pairs of convolutions; see study cifar10.

    After airbench94 (Jordan 2024, arXiv 2404.00498), which has width 64 and GELU, and a last pool of 3×3, at
    32×32 pixels the global one; begin it with init dirac.
    """
    pairs = (f"c{n}lo M Bn R c{n}no" for n in (width, 4 * width, 4 * width))
    return f"W {' '.join(pairs)} X fo"  # 498,080, and 288 + 576 of them, filters of W and factors of batch norm, do not learn


def cats_dogs_net(dropout: Share = 0.0) -> str:
    """Report E's own network for cats and dogs, with batch norm behind the first convolution.

    Its second model; padding and the images' size are assumed. For the one output of the report set task: sigmoid.
    """
    drop = _drop(dropout)
    return f"c32 B M c64 M c128 M c128 M f512{drop} f64{drop}"  # 4,468,609 with one output


def photo_net(width: Count = 32, dropout: Share = 0.0) -> Plan:
    """For photographs of 64 to 224 px, from scratch: a small residual network that ends in a global average pool."""
    return partial(residual_net, width, dropout)  # 1,959,490 with two classes


def blocks_cifar(
    block: Literal["none"] | Block = "none", join: Join = "concat", blocks: Annotated[int, Field(ge=1, le=8)] = 1
) -> Plan:
    """Report E's network for comparing blocks: before its dense layer an inception or a residual block, or none.

    How a block's branches are joined is the report's ("concat"), or a sum. Padding is assumed.
    """
    body, head = "c32 c32 M D0.25 c64 c64 M D0.25", "f512 D0.25"
    if block == "none":
        return f"{body} {head}"  # 2,168,362
    return partial(block_net, body, block, join, blocks, head)  # inception 6,510,378, residual 1,349,482


def rows(cell: Cell = "gru", hidden: Count = 128) -> Plan:
    """Report C's recurrent network, which reads an image row by row: an RNN, an LSTM or a GRU."""
    return partial(rows_net, cell, hidden)  # gru 61,962, lstm 82,186, rnn 21,514


def lite0(pretrained: bool = False) -> Plan:
    """EfficientNet-Lite0, 4.7 million parameters, with its ImageNet weights where pretrained; needs convscope[lite0]."""
    return partial(efficientnet_lite0, pretrained=pretrained)


_CIFAR = NaturalInput()
_DIGITS = NaturalInput(channels=1, height=28, width=28)
_LINES = NaturalInput(classes=96, height=28, width=28)
_PHOTOS = NaturalInput(classes=2, height=128, width=128)


@dataclass(frozen=True)
class CatalogueNet:
    """One network of the catalogue: its plan from its options, and the input it was made for."""

    plan: Callable[..., Plan]
    input: NaturalInput = _CIFAR

    @property
    def about(self) -> str:
        return (self.plan.__doc__ or "").split("\n")[0]


CATALOGUE: dict[str, CatalogueNet] = {
    "vgg-cifar": CatalogueNet(vgg_cifar),
    "net1": CatalogueNet(net1),
    "net2": CatalogueNet(net2),
    "net3": CatalogueNet(net3),
    "net4": CatalogueNet(net4),
    "lenet5": CatalogueNet(lenet5, _DIGITS),
    "lenet-bn": CatalogueNet(lenet_bn, _DIGITS),
    "conv7": CatalogueNet(conv7, NaturalInput(height=28, width=28)),
    "lines-net": CatalogueNet(lines_net, _LINES),
    "lines-vgg19": CatalogueNet(lines_vgg19, _LINES),
    "mnist-net": CatalogueNet(mnist_net, _DIGITS),
    "rows": CatalogueNet(rows, _DIGITS),
    "lean-cifar": CatalogueNet(lean_cifar),
    "air-cifar": CatalogueNet(air_cifar),
    "blocks-cifar": CatalogueNet(blocks_cifar),
    "photo-net": CatalogueNet(photo_net, _PHOTOS),
    "cats-dogs-net": CatalogueNet(cats_dogs_net, _PHOTOS),
    "lite0": CatalogueNet(lite0, NaturalInput(1000, 3, 224, 224, LITE0_NORMALIZE)),
}


def catalogue() -> dict[str, str]:
    """The names of the networks that come with convscope, each with a line about it."""
    return {name: entry.about for name, entry in CATALOGUE.items()}
