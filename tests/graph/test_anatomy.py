from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from convscope.errors import NetworkError
from convscope.graph import Anatomy, anatomy
from convscope.graph.anatomy import hooked_layers
from convscope.nets import build_net
from tests.graph.graph_networks import (
    Branches,
    Cells,
    Deciding,
    Failing,
    Mixer,
    Recurrent,
    Residual,
    SqueezeExcite,
    Transformer,
    vgg_like,
)


@pytest.fixture(scope="module")
def vgg() -> Anatomy:
    return anatomy(vgg_like(), torch.zeros(1, 3, 32, 32), name="vgg")


def test_report_a(vgg: Anatomy) -> None:
    assert (vgg.parameters, vgg.trainable, vgg.neurons) == (6_216_074, 6_216_074, 133_130)
    assert (vgg.convolutional.parameters, vgg.dense.parameters) == (960_896, 5_255_178)
    assert (vgg.convolutional.neurons, vgg.dense.neurons) == (131_072, 2_058)
    assert round(vgg.convolutional.neurons_share, 4) == 0.9845
    assert round(vgg.dense.parameters_share, 4) == 0.8454
    conv2 = next(layer for layer in vgg.layers if layer.name == "conv2")
    assert (conv2.output_shape, conv2.parameters, conv2.neurons) == ((128, 16, 16), 73_856, 32_768)
    assert conv2.multiply_adds == 128 * 16 * 16 * 64 * 9
    assert (conv2.receptive_field, conv2.stride) == ((8, 8), (2, 2))
    assert vgg.note is None


NETWORKS = {
    "vgg": (vgg_like(), (3, 32, 32)),
    "residual": (Residual(), (3, 9, 8)),
    "branches": (Branches(), (2, 8, 7)),
    "squeeze-excite": (SqueezeExcite(), (3, 6, 7)),
    "positions last": (Mixer(), (3, 8, 10)),
    "transformer": (Transformer(), (3, 8, 8)),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.Conv2d(6, 2, 1)),
        (4, 5, 6),
    ),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_multiply_adds_are_half_of_the_flops_that_torch_counts(case: str) -> None:
    net, shape = NETWORKS[case]
    net.train()  # in evaluation torch's attention layer takes a fused path that the counter does not see
    plain = sdpa_kernel(SDPBackend.MATH)  # and so is the fused attention on the CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        net(torch.zeros(1, *shape).expand(2, -1, -1, -1))
    assert anatomy(net, torch.zeros(2, *shape)).multiply_adds == counter.get_total_flops() / 4


def test_products_of_activations() -> None:
    class Products(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores = torch.matmul(x, x.transpose(2, 3))  # N 2 4 4, each a sum over 5
            return torch.einsum("ncij,ncjk->nik", scores, x)

    table = anatomy(Products(), torch.zeros(1, 2, 4, 5))
    assert [layer.multiply_adds for layer in table.layers] == [0, 2 * 4 * 4 * 5, 2 * 4 * 4 * 5]
    assert table.note == "taken to see the whole image, for want of a rule: matmul_2 (aten.einsum.default)"


def test_an_ellipsis_stands_for_the_axes_it_takes_in() -> None:
    """Products of rows of 5 with each other, in 2 maps; then 2 units into 3, at 4×5 positions."""

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 2))

        def forward(self, x: Tensor) -> Tensor:
            scores = torch.einsum("...ij,...kj->...ik", x, x)
            return torch.einsum("uc,nc...->nu...", self.weight, x) + scores.sum((1, 2, 3))[:, None, None, None]

    table = anatomy(Mixing(), torch.zeros(1, 2, 4, 5))
    assert [layer.multiply_adds for layer in table.layers if layer.kind == "matmul"] == [2 * 4 * 4 * 5, 3 * 2 * 4 * 5]


def test_recurrent_layers_use_each_weight_at_each_step() -> None:
    table = anatomy(Recurrent(nn.GRU), torch.zeros(1, 1, 7, 8))
    gru = next(layer for layer in table.layers if layer.kind == "gru")
    assert (gru.name, gru.output_shape, gru.multiply_adds) == ("rnn", (7, 6), 7 * 3 * (8 * 6 + 6 * 6))


def test_cells_use_each_weight_at_each_call() -> None:
    """Also where the network cannot be traced and its modules are asked."""
    net, image = Cells(), torch.zeros(1, 1, 7, 8)
    lstm, gru = 4 * 6 * (8 + 6), 3 * 5 * (6 + 5)
    for rows in (anatomy(net, image).layers, hooked_layers(net, image)):
        cells = [(row.kind, row.multiply_adds) for row in rows if row.kind in ("lstm", "gru")]
        assert cells == 3 * [("lstm", lstm), ("gru", gru)]
    assert anatomy(net, image).recurrent.neurons == 3 * (6 + 5)


def test_rows_that_the_image_decides_are_named() -> None:
    class Expert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2).transpose(1, 2)
            result = torch.zeros(*x.shape[:2], 2)
            result[x[..., 0] > 0] = self.fc(x[x[..., 0] > 0])
            return result.sum(1)

    note = anatomy(Expert(), torch.zeros(1, 3, 4, 4)).note
    assert "depends on the image, and neurons and multiply-adds are of one: fc" in note


@pytest.mark.parametrize("case", NETWORKS)
def test_parameters_of_the_layers_sum_to_the_networks(case: str) -> None:
    net, shape = NETWORKS[case]
    table = anatomy(net, torch.zeros(1, *shape))
    assert sum(layer.parameters for layer in table.layers) == table.parameters


def test_shared_and_unused_and_frozen_parameters() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    net[1].weight = net[0].weight
    net.register_parameter("unused", nn.Parameter(torch.zeros(5)))
    net[0].bias.requires_grad_(False)
    table = anatomy(net, torch.zeros(1, 2, 3, 3))
    assert [layer.parameters for layer in table.layers] == [6, 2]
    assert (table.parameters, table.trainable) == (13, 11)


def test_json(vgg: Anatomy) -> None:
    table = json.loads(json.dumps(vgg.to_json()))
    assert list(table)[:6] == ["network", "input", "parameters", "trainable", "neurons", "multiply_adds"]
    assert (table["network"], table["input"]) == ("vgg", [3, 32, 32])
    assert table["layers"][0] == {
        "name": "conv1",
        "kind": "conv",
        "output_shape": [64, 32, 32],
        "parameters": 1792,
        "neurons": 65536,
        "multiply_adds": 1769472,
        "receptive_field": 3,
        "stride": 1,
    }
    assert table["layers"][-1]["stride"] is None
    assert Anatomy.from_json(table) == vgg


def test_json_of_a_field_that_is_not_square() -> None:
    table = anatomy(nn.Conv2d(1, 1, (3, 5), stride=(1, 2)), torch.zeros(1, 1, 8, 8))
    row = table.to_json()["layers"][0]
    assert (row["receptive_field"], row["stride"]) == ([3, 5], [1, 2])
    assert Anatomy.from_json(table.to_json()) == table


def test_hooks_where_export_fails() -> None:
    net = Deciding()
    with torch.no_grad():
        net.conv.bias.fill_(-10)
    table = anatomy(net, torch.zeros(1, 3, 8, 8))
    assert [(layer.name, layer.kind, layer.output_shape) for layer in table.layers] == [
        ("conv", "conv", (4, 6, 6)),
        ("fc", "dense", (2,)),
        ("deciding", "deciding", (2,)),
    ]
    assert (table.neurons, table.multiply_adds) == (4 * 36 + 2, 36 * 4 * 27 + 8)
    assert table.parameters == sum(layer.parameters for layer in table.layers)
    assert table.layers[0].receptive_field is None
    assert table.note is not None
    assert table.note.startswith("read by forward hooks")
    assert "\n" not in table.note
    assert Anatomy.from_json(table.to_json()) == table


class Conv(nn.Module):
    """A user's layer, with weights of another name than torch's have."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None]


class Dense(Conv):
    pass


class Giving(nn.Module):
    """Gives no tensor."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Tensor) -> object:
        return self.result


class Oddities(Deciding):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.giving = nn.Sequential(Conv(), Dense()), nn.ModuleList(map(Giving, (None, 3, {"a": "b"})))
        self.up = nn.ConvTranspose2d(3, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.giving:
            layer(x)
        return super().forward(self.up(input=self.own(x)))


def test_hooks_on_layers_that_are_not_as_torchs() -> None:
    table = anatomy(Oddities(), torch.zeros(1, 3, 8, 8))
    assert [(layer.name, layer.kind, layer.parameters, layer.multiply_adds) for layer in table.layers[:3]] == [
        ("own.0", "conv", 3, 0),
        ("own.1", "dense", 3, 0),
        ("up", "conv_transpose", 39, 3 * 3 * 4 * 64),
    ]
    assert table.layers[3].name == "conv"  # what gives no tensor has no row


def test_a_layer_is_numbered_by_its_own_calls_alone() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv_1, self.conv, self.fc = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Linear(3, 2)
            self.conv_2 = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.conv_1(x))
            if x.isfinite().all():
                x = self.conv_2(self.conv(x))
            return self.fc(x.mean((2, 3)))

    layers = anatomy(Named(), torch.zeros(1, 3, 8, 8)).layers
    assert [layer.name for layer in layers] == ["conv_1", "conv", "conv_3", "conv_2", "fc"]


def test_an_example_of_the_wrong_size() -> None:
    with pytest.raises(NetworkError, match="does not run on 3×30×30 images") as error:
        anatomy(vgg_like(), torch.zeros(1, 3, 30, 30))
    assert "\n" not in str(error.value)
    with pytest.raises(NetworkError, match="no forward today"):
        anatomy(Failing(), torch.zeros(1, 3, 8, 8))


def test_html(vgg: Anatomy) -> None:
    html = vgg._repr_html_()
    assert "<td>6,216,074</td>" in html
    assert html.count("<tr>") == len(vgg.layers) + 2


def test_a_network_over_the_rows_of_an_image_by_hand() -> None:
    table = anatomy(build_net("rows", cell="gru", hidden=128), torch.zeros(1, 1, 28, 28))
    by_name = {layer.name: layer for layer in table.layers}
    gru, fc = by_name["gru1"], by_name["fc1"]
    assert (gru.kind, gru.output_shape, gru.neurons) == ("gru", (28, 128), 28 * 128)
    assert gru.parameters == 3 * (28 * 128 + 128 * 128 + 2 * 128)
    assert gru.multiply_adds == 28 * 3 * (28 * 128 + 128 * 128)
    assert (fc.parameters, fc.multiply_adds) == (1_290, 1_280)
    assert table.neurons == 28 * 128 + 10
    assert (table.recurrent.parameters, table.recurrent.neurons) == (gru.parameters, 28 * 128)
    assert table.recurrent.parameters + table.dense.parameters == table.parameters
    assert {layer.receptive_field for layer in (gru, by_name["last"], fc)} == {(28, 28)}
    assert table.note is None
