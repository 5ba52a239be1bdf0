"""Shapes, counts and receptive fields on paper, against PyTorch, a counted loop, gradients and the traced graph."""

from itertools import product

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from convscope import courses
from convscope.errors import SettingError
from convscope.graph import anatomy
from convscope.nets import build_net

SMALL = st.integers(1, 3)
PAIRS = st.tuples(SMALL, SMALL)


def test_the_shapes_of_report_e() -> None:
    assert courses.conv((32, 128, 128), 16, kernel=3).output_shape == (16, 126, 126)
    strided = courses.conv((32, 128, 128), 16, kernel=3, stride=2)
    assert strided.output_shape == (16, 63, 63)
    assert strided.steps[0].formulas["height"] == "floor((128 − 3 + 2·0)/2) + 1 = 63"
    assert courses.conv((32, 64, 64), 16, kernel=1).output_shape == (16, 64, 64)


def test_the_formulas_hold_the_numbers() -> None:
    dilated = courses.conv((3, 9, 9), 4, kernel=3, dilation=2, padding="same").steps[0].formulas
    assert dilated["height"] == "floor((9 − 5 + 2·2)/1) + 1 = 9; 5 = 2·(3 − 1) + 1"
    assert dilated["parameters"] == "4·(3·3·3 + 1) = 112"
    assert dilated["multiply_adds"] == "4·3·3·3 · 9·9 = 8,748"
    uneven = courses.conv((1, 8, 8), 1, kernel=3, stride=2, padding="same").steps[0].formulas
    assert uneven["width"] == "floor((8 − 3 + 0 + 1)/2) + 1 = 4"
    up = courses.conv((8, 4, 4), 2, 4, 2, 1, transposed=True, bias=False).steps[0].formulas
    assert up["height"] == "(4 − 1)·2 − 2·1 + 4 = 8"
    assert up["parameters"] == "2·8·4·4 = 256"
    assert up["multiply_adds"] == "2·8·4·4 · 4·4 = 4,096"
    ceil = courses.pool((1, 5, 5), kernel=1, stride=3, up=True, padding=0).steps[0].formulas
    assert ceil["height"] == "ceil((5 − 1 + 2·0)/3) + 1 − 1 = 2"


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    PAIRS,
    PAIRS,
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    PAIRS,
)
@settings(max_examples=60, deadline=None)
def test_convolutions_have_the_shape_and_counts_that_pytorch_gives_them(
    size, kernel, stride, padding, dilation
) -> None:
    assume(all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    net = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups=2)
    found = courses.conv((4, *size), 6, kernel, stride, padding, dilation, groups=2)
    assert found.output_shape == tuple(net(torch.zeros(1, 4, *size)).shape[1:])
    assert found.parameters == sum(p.numel() for p in net.parameters())


@given(st.tuples(st.integers(1, 5), st.integers(1, 5)), PAIRS, PAIRS, st.integers(0, 1), PAIRS, st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_so_have_transposed_ones(size, kernel, stride, padding, dilation, extra) -> None:
    assume(all(extra < max(s, d) for s, d in zip(stride, dilation, strict=True)))
    ends = [
        (n - 1) * s - 2 * padding + d * (k - 1) + 1 + extra
        for n, s, d, k in zip(size, stride, dilation, kernel, strict=True)
    ]
    assume(min(ends) > 0)
    net = nn.ConvTranspose2d(4, 6, kernel, stride, padding, extra, groups=2, dilation=dilation)
    found = courses.conv((4, *size), 6, kernel, stride, padding, dilation, 2, True, extra)
    assert found.output_shape == tuple(net(torch.zeros(1, 4, *size)).shape[1:])
    assert found.parameters == sum(p.numel() for p in net.parameters())


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), SMALL, st.booleans())
@settings(max_examples=80, deadline=None)
def test_and_pools(n, kernel, stride, padding, dilation, up) -> None:
    assume(2 * padding <= kernel and n + 2 * padding > dilation * (kernel - 1))
    pooled = F.max_pool2d(torch.zeros(1, 1, n, n), kernel, stride, padding, dilation, up)
    assert courses.pool((1, n, n), "max", kernel, stride, padding, dilation, up).output_shape == tuple(pooled.shape[1:])


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (4, 1), (2, 3), (1, 1)])
def test_same_is_what_pytorch_takes_for_it(kernel: int, dilation: int) -> None:
    """Also where the sum of padding is odd: what one position sees tells at which end the spare one lies."""
    image = torch.zeros(1, 1, 7, 7, requires_grad=True)
    F.conv2d(image, torch.ones(1, 1, kernel, kernel), padding="same", dilation=dilation)[0, 0, 3, 3].backward()
    rows = image.grad[0, 0].sum(1).nonzero().flatten().tolist()
    found = courses.conv((1, 7, 7), 1, kernel, padding="same", dilation=dilation)
    assert found.output_shape == (1, 7, 7)
    assert found.box(3, 3)[::2] == (rows[0], rows[-1] + 1)


@pytest.mark.parametrize(("n", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (9, 2, 3), (5, 1, 2)])
def test_same_with_a_stride_gives_a_position_for_each_step_and_backwards(n: int, kernel: int, stride: int) -> None:
    assert courses.conv((1, n, n), 1, kernel, stride, "same").output_shape == (1, -(-n // stride), -(-n // stride))
    grown = courses.conv((1, n, n), 1, kernel, stride, "same", transposed=True)
    assert grown.output_shape == (1, n * stride, n * stride)


@pytest.mark.parametrize("transposed", [False, True])
def test_multiply_adds_are_those_of_a_counted_loop(transposed: bool) -> None:
    channels, filters, groups, size, kernel, stride = 4, 6, 2, (5, 4), (3, 2), (2, 1)
    found = courses.conv((channels, *size), filters, kernel, stride, 0, 1, groups, transposed)
    places = size if transposed else found.output_shape[1:]
    count = 0
    for unit, channel in product(range(filters), range(channels)):
        if unit // (filters // groups) == channel // (channels // groups):
            for _place in product(*map(range, (*places, *kernel))):
                count += 1
    assert found.multiply_adds == count


CHAINS = [
    "c64k3p0 M c128",
    "c8k5s2b c8d2 A c16k3x5s2x1p0x2",
    "c4s3 t4 c6k3",
    "c4 t4k3s2p1o1 t2k4s4 c3",
    "t4k3s3d2p1 M c2k4",
]


@pytest.mark.parametrize("text", CHAINS)
def test_boxes_and_fields_are_those_of_the_gradient(text: str) -> None:
    found = courses.chain((2, 15, 13), text)
    net = _as_torch(found)
    image = torch.zeros(1, 2, 15, 13, dtype=torch.float64, requires_grad=True)
    output = net(image)
    assert tuple(output.shape[1:]) == found.output_shape
    sizes = []
    for row, column in product(_ends(output.shape[2]), _ends(output.shape[3])):
        [gradient] = torch.autograd.grad(output[0, :, row, column].sum(), image, retain_graph=True)
        seen = gradient[0].sum(0).nonzero()
        box = found.box(row, column)
        if not len(seen):
            assert box is None
            continue
        assert box == (*seen.min(0).values.tolist(), *(seen.max(0).values + 1).tolist())
        sizes.append((box[2] - box[0], box[3] - box[1]))
    assert all(field >= max(side) for field, side in zip(found.receptive_field, zip(*sizes, strict=True), strict=True))


def _ends(size: int) -> list[int]:
    """All positions of a small map; of a large one those near its borders."""
    return [place for place in range(size) if min(place, size - 1 - place) < 12]


@pytest.mark.parametrize("text", CHAINS)
def test_the_field_is_the_largest_box_in_the_middle_of_a_large_image(text: str) -> None:
    found = courses.chain((1, 161, 161), text)
    rows, columns = found.output_shape[1:]
    middle = product(range(rows // 2 - 4, rows // 2 + 5), range(columns // 2 - 4, columns // 2 + 5))
    boxes = [box for place in middle if (box := found.box(*place))]
    assert found.receptive_field == (max(b[2] - b[0] for b in boxes), max(b[3] - b[1] for b in boxes))


def _as_torch(found: courses.Chain) -> nn.Sequential:
    """The same layers in PyTorch, with weights of 1; averages for pools, whose gradient reaches the whole window."""
    modules = []
    for step in found.steps:
        if step.axes is None:
            continue
        kernel, stride, padding, dilation, extra = (
            tuple(getattr(axis, name) for axis in step.axes)
            for name in ("kernel", "stride", "before", "dilation", "output_padding")
        )
        channels, units = step.input_shape[0], step.output_shape[0]
        if step.kind == "conv":
            layer = nn.Conv2d(channels, units, kernel, stride, padding, dilation)
        elif step.kind == "conv_transpose":
            layer = nn.ConvTranspose2d(channels, units, kernel, stride, padding, extra, dilation=dilation)
        else:
            layer = nn.AvgPool2d(kernel, stride, padding)
        for parameter in layer.parameters():
            nn.init.ones_(parameter)
        modules.append(layer)
    return nn.Sequential(*modules).double()


@pytest.mark.parametrize(
    "text", ["c64b M c128b M f100b D0.5", "c8k5p0 A c16k3s2 B G", "c6k4 Mk3s2p1 c8g2d2l f10", "c4 Mk3s2u c8k1 G"]
)
def test_a_chain_is_what_the_traced_network_says(text: str) -> None:
    """The anatomy is read off the graph that torch.export makes of the built network."""
    table = anatomy(build_net(text, classes=7, image_size=32), torch.zeros(1, 3, 32, 32))
    layers = {layer.name: layer for layer in table.layers}
    found = courses.chain((3, 32, 32), f"{text} f7")
    assert found.parameters == table.parameters
    assert found.multiply_adds == table.multiply_adds
    for step in found.steps:
        layer = layers.get(step.name)
        if layer is not None and step.kind != "flatten":
            assert step.output_shape == layer.output_shape, step.name
            assert (step.parameters, step.multiply_adds) == (layer.parameters, layer.multiply_adds), step.name
            assert (step.receptive_field, step.stride) == (layer.receptive_field, layer.stride), step.name
    assert {step.name for step in found.steps} <= set(layers)


@pytest.mark.parametrize(
    "text", [*CHAINS, "c4k1x5p2x0s1x3 Ak2x1 c6k3x2d2x1p1x0", "Ak3x2p1x0s2x1 c5k4x1s1x2 t4k2x3s2x1o0"]
)
def test_so_are_windows_that_are_not_square_and_transposed_ones(text: str) -> None:
    """Behind a transposed convolution the graph has no field on the plane; the gradient's boxes stand for it above."""
    found = courses.chain((2, 15, 13), text)
    table = anatomy(_as_torch(found), torch.zeros(1, 2, 15, 13, dtype=torch.float64))
    steps = [step for step in found.steps if step.axes]
    transposed = False
    for step, layer in zip(steps, table.layers, strict=True):
        transposed |= step.kind == "conv_transpose"
        assert step.output_shape == layer.output_shape, step.name
        assert (step.parameters, step.multiply_adds) == (layer.parameters, layer.multiply_adds), step.name
        assert transposed or (step.receptive_field, step.stride) == (layer.receptive_field, layer.stride), step.name


def test_a_chain_as_a_page_and_as_json() -> None:
    found = courses.chain((3, 32, 32), "c64k3p0 t8 f10")
    assert "<td>64×30×30</td>" in found._repr_html_()
    assert found.to_json()["layers"][1]["stride"] == [0.5, 0.5]
    assert found.to_json()["parameters"] == found.parameters == 64 * 28 + 8 * (64 * 4 + 1) + 10 * (8 * 60 * 60 + 1)


BAD = {
    "c8k9p0": "conv1: kernel: a window of 9 does not fit into 8 positions; take",
    "c8k4d3p0": "dilation 3 makes it 10 wide",
    "c8s0": "s takes a whole number from 1 to 65536",
    "c8k0": "k takes a whole number from 1 to 65536",
    "c8g2": "groups: 2 groups do not divide 3 channels and 8 filters",
    "Mp2": "padding: 2 is more than half of the pool's window of 2",
    "t8k2p9": "cuts off the whole output",
    "t8o2": "output padding: 2 is out of range",
    "x8": "'x8' is no layer",
    "f10 c8": "comes after a dense layer",
    "": "is empty",
    "c70000k1 c0": "needs a whole number of units from 1 to 65536",
    "c70000k1": "needs a whole number of units from 1 to 65536",
    "c8p70000": "p takes a whole number from 0 to 65536",
}


@pytest.mark.parametrize("text", BAD)
def test_what_does_not_fit_is_told_in_a_line(text: str) -> None:
    with pytest.raises(SettingError) as error:
        courses.chain((3, 8, 8), text)
    assert BAD[text] in str(error.value)


def test_without_layers_a_pixel_sees_itself() -> None:
    chain = courses.Chain((3, 8, 8))
    assert (chain.output_shape, chain.receptive_field, chain.box(2, 5)) == ((3, 8, 8), (1, 1), (2, 5, 3, 6))


def test_other_requests_that_cannot_be_met(annotations_unchecked: None) -> None:
    with pytest.raises(SettingError, match="expected channels, height and width"):
        courses.chain((3, 0, 8), "c8")
    with pytest.raises(SettingError, match=r"position: \(9, 0\)"):
        courses.chain((3, 8, 8), "c8").box(9, 0)
    for word in "GX":
        chain = courses.chain((3, 9, 9), f"c8k3p0 {word}")
        assert (chain.output_shape, chain.box()) == ((8, 1, 1), (0, 0, 9, 9))
    with pytest.raises(SettingError, match="pool: \\['max'\\] is not known"):
        courses.pool((3, 8, 8), ["max"])  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="leave one of both out"):
        courses.conv((3, 8, 8), 8, 3, 2, "same", transposed=True, output_padding=1)
    with pytest.raises(SettingError, match="positions along an axis"):
        courses.conv((3, 8, 8), 8, 3, 65536, transposed=True)
