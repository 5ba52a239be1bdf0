"""Passes over images that differ from a remembered one in a box, against whole passes over those images."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.graph import Box, BoxValues, Incremental, Span, trace
from convscope.graph.plans import areas, edge_values
from tests.graph import graph_networks as networks
from tests.graph.graph_networks import chain
from tests.lenses.lens_networks import Mixed, evaluated


class Doing(nn.Module):
    """A convolution, then whatever the function does."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x)).flatten(1)


def flat(*layers: nn.Module) -> nn.Sequential:
    return chain(*layers, nn.Flatten())


def conv(*args: int, **settings: object) -> nn.Sequential:
    return flat(nn.Conv2d(*args, **settings), nn.SiLU(), nn.Conv2d(args[1], 2, 3, padding=1))  # type: ignore[arg-type]


def reused_in_place() -> nn.Sequential:
    relu = nn.ReLU(inplace=True)
    return flat(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), relu, nn.Conv2d(4, 4, 3, padding=1), relu, nn.Dropout())


def split_and_joined(x: Tensor) -> Tensor:
    """Units last: a slice, a split, a norm and a softmax of them, and constants along them."""
    first, second = x.permute(0, 2, 3, 1).relu().chunk(2, dim=-1)
    joined = torch.cat([F.layer_norm(second, (2,)), first[..., 1:] * torch.tensor([2.0])], dim=3)
    return joined.softmax(-1).permute(0, 3, 1, 2) * 3


# All that stays in boxes up to a classifier's head; the note must be None.
FOLLOWED: dict[str, Callable[[], nn.Module]] = {
    "stride": lambda: conv(3, 4, 3, stride=2, padding=1),
    "stride larger than the kernel": lambda: conv(3, 4, 2, stride=3, padding=1),
    "dilation, which outputs skip the box": lambda: conv(3, 4, (3, 2), dilation=(4, 3), padding=(4, 1)),
    "padding larger than the kernel": lambda: conv(3, 4, 2, padding=5),
    "rectangular": lambda: conv(3, 4, (1, 4), stride=(1, 2), padding=(0, 3)),
    "same, even kernel": lambda: conv(3, 4, (4, 2), padding="same", dilation=(1, 2)),
    "valid": lambda: conv(3, 4, 3, padding="valid"),
    "groups": lambda: conv(3, 6, 3, groups=3, padding=2),
    "depthwise": lambda: flat(nn.Conv2d(3, 3, 5, groups=3, padding=2, bias=False), nn.Hardswish(), nn.Conv2d(3, 4, 1)),
    "asymmetric pad": lambda: flat(nn.ZeroPad2d((1, 0, 2, 3)), nn.Conv2d(3, 4, 3, stride=2)),
    "pad of a constant": lambda: flat(nn.ConstantPad2d((0, 3, 1, 0), 0.7), nn.Conv2d(3, 4, 3)),
    "negative pad": lambda: flat(nn.ZeroPad2d((-2, 1, -1, -3)), nn.Conv2d(3, 4, 3)),
    "max pool with padding": lambda: flat(nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 4, 2)),
    "max pool, ceil_mode": lambda: flat(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 4, 2)),
    "max pool, dilation": lambda: flat(nn.MaxPool2d(2, 3, 1, dilation=3), nn.Conv2d(3, 4, 2)),
    "avg pool": lambda: flat(nn.AvgPool2d(3, 2, 1), nn.Conv2d(3, 4, 2)),
    "avg pool, padding not counted": lambda: flat(nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(3, 4, 2)),
    "avg pool, ceil_mode and padding": lambda: flat(nn.AvgPool2d((3, 4), 3, 1, ceil_mode=True), nn.Conv2d(3, 4, 2)),
    "avg pool, divisor": lambda: flat(nn.AvgPool2d(3, 2, divisor_override=2), nn.Conv2d(3, 4, 2)),
    "adaptive pool, even": lambda: flat(nn.AdaptiveAvgPool2d((4, 6)), nn.Conv2d(3, 4, 2)),
    "adaptive pool, uneven": lambda: flat(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((3, 4))),
    "adaptive max pool": lambda: flat(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d((3, 4))),
    "global pool": lambda: Doing(lambda x: x.mean((2, 3))),
    "reused ReLU in place": reused_in_place,
    "prelu": lambda: flat(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 2, 3)),
    "softmax over units": lambda: Doing(lambda x: x.softmax(1)),
    "slice and sum of units": lambda: Doing(lambda x: F.relu(x[:, 1:]) + x[:, :3] * 2),
    "a constant map": lambda: Doing(lambda x: (x * torch.arange(12.0)[:, None]).relu() + torch.ones(12, 12)),
    "no operation": nn.Flatten,
    "positions last": lambda: chain(networks.Mixer(), nn.Flatten()),
    "positions last, split and joined": lambda: Doing(split_and_joined),
    "rows and columns swapped": lambda: Doing(lambda x: F.softmax(x.transpose(2, 3), 1).transpose(2, 3).relu()),
    "pixels to units": lambda: chain(networks.Focus(), nn.Flatten()),
    "every third row from the second on": lambda: Doing(lambda x: F.max_pool2d(x[:, :, 1:11:3], 2)),
    "slices of positions last": lambda: Doing(lambda x: x.permute(0, 2, 3, 1)[:, -9:, ::2].sigmoid()),
    "a dense layer along columns": lambda: Doing(nn.Linear(12, 5)),
    "residual": lambda: chain(networks.Residual(), nn.Flatten()),
    "branches": lambda: chain(nn.Conv2d(3, 2, 1), networks.Branches(), nn.Flatten()),
    "mixed": Mixed,
    "frozen": lambda: chain(networks.Frozen(), nn.Flatten()),
}  # fmt: skip

# Where whole maps have to be run before the head; the note must name what ends the boxes.
WHOLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "squeeze and excitation": (lambda: chain(networks.SqueezeExcite(), nn.Flatten()), r"0\.mean \(aten\.mean\.dim\)"),
    "transformer": (networks.Transformer, "flatten"),
    "shuffled units": (lambda: chain(networks.Shuffle(), nn.Flatten()), "reshape"),
    "filters made of the image": (lambda: chain(networks.Dynamic(), nn.Flatten()), "mean"),
    "windowed attention": (lambda: chain(networks.Windowed(), nn.Flatten()), "roll"),
    "reflected border": (lambda: conv(3, 4, 3, padding=1, padding_mode="reflect"), "pad"),
    "layer norm": (lambda: flat(nn.LayerNorm(SHAPE), nn.Conv2d(3, 2, 3)), "layer_norm"),
    "group norm": (lambda: flat(nn.GroupNorm(1, 3), nn.Conv2d(3, 2, 3)), "group_norm"),
    "batch statistics of the image": (lambda: flat(nn.InstanceNorm2d(3), nn.Conv2d(3, 2, 3)), "instance_norm"),
    "upsampling": (lambda: flat(nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 3)), "upsample"),
    "transposed convolution": (lambda: flat(nn.ConvTranspose2d(3, 2, 3, stride=2), nn.Conv2d(2, 2, 3)), "0 "),
    "adaptive pool, uneven": (lambda: flat(nn.AdaptiveAvgPool2d((5, 12)), nn.Conv2d(3, 2, 3)), "adaptive_avg_pool"),
    "flipped": (lambda: Doing(lambda x: F.max_pool2d(x.flip(3), 2)), "flip"),
    "softmax over positions": (lambda: Doing(lambda x: F.max_pool2d(x.softmax(3), 2)), "softmax"),
    "constants along rows, positions last": (
        lambda: Doing(lambda x: (x.permute(0, 2, 3, 1) * torch.arange(12.0)[:, None]).permute(0, 3, 1, 2)), "mul"
    ),
    "a norm over positions too": (lambda: Doing(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (12, 4))), "layer_norm"),
    "joined along rows": (lambda: Doing(lambda x: F.max_pool2d(torch.cat([x, x], 2), 2)), "cat"),
}  # fmt: skip

SHAPE = (3, 12, 12)
BOXES = [Box(Span(top, top + height), Span(left, left + width)) for top, left, height, width in [
    (4, 5, 3, 2), (0, 0, 1, 1), (11, 11, 1, 1), (7, 0, 5, 4), (0, 8, 2, 4), (5, 5, 1, 1), (0, 0, 12, 12), (0, 3, 12, 1),
]]  # fmt: skip


def whole_passes(net: nn.Module, image: Tensor, patches: list[BoxValues]) -> Tensor:
    """The oracle: the network itself, on each changed image."""
    found = []
    for patch in patches:
        (top, bottom), (left, right) = patch.box
        for values in patch.values:
            changed = image.clone()
            changed[0, :, top:bottom, left:right] = values
            found.append(net(changed))
    return torch.cat(found)


def compare(
    net: nn.Module, shape: tuple[int, ...], boxes: list[Box], dtype: torch.dtype = torch.float64
) -> Incremental:
    """Asserts that incremental and whole passes agree, to some roundings of the largest logit.

    Followed in boxes for any number of steps, none to all.
    """
    net = evaluated(net.to(dtype))
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(1, *shape, generator=generator, dtype=dtype)
    network = Incremental(trace(net, image))
    patches = [
        BoxValues(box, torch.randn(2, shape[0], *(s.length for s in box), generator=generator, dtype=dtype))
        for box in boxes
    ]
    with torch.no_grad():
        expected = whole_passes(net, image, patches)
    rounding = torch.finfo(dtype).eps * max(1.0, float(expected.abs().max()))
    for n_steps in (n for n, values in enumerate(edge_values(network)) if values < inf):
        found = network.shortened(n_steps).remember(image).run(patches, at_once=3)
        assert (found.dtype, found.requires_grad) == (dtype, False)
        torch.testing.assert_close(found, expected, rtol=0, atol=100 * rounding)
    return network


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_boxes_reach_the_head(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    assert compare(FOLLOWED[name](), SHAPE, BOXES, dtype).note is None


@pytest.mark.parametrize("name", WHOLE)
def test_what_has_no_rule_is_run_whole_and_named(name: str) -> None:
    make, culprit = WHOLE[name]
    note = compare(make(), SHAPE, BOXES).note or ""
    assert re.search(f"^run whole, with all that follows: .*{culprit}", note)


@st.composite
def layers(draw: st.DrawFn) -> list[nn.Module]:
    """A random stack of convolutions and pools on an image of 2×13×12 that leaves something of it."""
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))  # noqa: E731
    found: list[nn.Module] = []
    units = 2
    for _ in range(draw(st.integers(1, 4))):
        kernel, stride = pair(1, 4), pair(1, 3)
        half = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
        match draw(st.sampled_from(["conv", "max", "avg", "pad", "norm"])):
            case "conv":
                groups, more = draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 4]))
                dilation = pair(1, 2)
                found.append(nn.Conv2d(units, more, kernel, stride, pair(0, 3), dilation, groups))
                units = more
            case "max":
                found.append(nn.MaxPool2d(kernel, stride, half, pair(1, 2), ceil_mode=draw(st.booleans())))
            case "avg":
                count, ceil_mode = draw(st.booleans()), draw(st.booleans())
                found.append(nn.AvgPool2d(kernel, stride, half, ceil_mode, count))
            case "pad":
                found.append(nn.ConstantPad2d(pair(-1, 3) + pair(-1, 3), 0.5))
            case "norm":
                found += [nn.BatchNorm2d(units), nn.ReLU(inplace=True)]
    return found


@given(layers(), st.data())
@settings(derandomize=True, deadline=None, max_examples=60, database=None)
def test_random_stacks(stack: list[nn.Module], data: st.DataObject) -> None:
    net = flat(*stack)
    try:
        with torch.no_grad():
            left = net(torch.zeros(2, 2, 13, 12)).numel()
    except (RuntimeError, ValueError):  # nothing is left of the image
        return
    spans = []
    for size in (13, 12):
        start = data.draw(st.integers(0, size - 1))
        spans.append(Span(start, data.draw(st.integers(start + 1, size))))
    if left:
        assert compare(net, (2, 13, 12), [Box(*spans)]).note is None


def test_reach_by_hand() -> None:
    """A pixel reaches 3×3 outputs of a 3×3 convolution, and of those 2×2 of a pool by 2 with stride 2."""
    net = chain(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.Flatten())
    network = Incremental(trace(net, torch.zeros(1, 1, 8, 8)))
    one = [(Span(3, 4), 1)]
    assert list(areas(network, (one, one)).values()) == [1, 9, 4]
    corner = [(Span(0, 1), 1)]
    assert list(areas(network, (corner, corner)).values()) == [1, 4, 1]


def test_a_change_that_nothing_reads() -> None:
    """A pool with stride leaves out the last row, so there is nothing to work out and the answer stays."""
    net = evaluated(flat(nn.MaxPool2d(2), nn.Conv2d(3, 2, 1)))
    image = torch.rand(1, 3, 7, 7)
    remembered = Incremental(trace(net, image)).remember(image)
    found = remembered.run([BoxValues(Box(Span(6, 7), Span(0, 7)), torch.rand(2, 3, 1, 7))])
    torch.testing.assert_close(found, net(image).detach().expand(2, -1))


def test_the_caller_keeps_his_tensors() -> None:
    net = evaluated(FOLLOWED["mixed"]())
    image, values = torch.rand(1, *SHAPE), torch.rand(4, 3, 2, 3)
    before = image.clone(), values.clone()
    remembered = Incremental(trace(net, image)).remember(image)
    patch = BoxValues(Box(Span(1, 3), Span(2, 5)), values)
    first = remembered.run([patch])
    assert torch.equal(remembered.run([patch]), first)
    assert torch.equal(image, before[0])
    assert torch.equal(values, before[1])
    assert image.is_contiguous()
    assert values.is_contiguous()
    assert all(p.is_contiguous() for p in net.parameters())
