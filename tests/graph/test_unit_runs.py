"""Units ablated one at a time, behind the layer alone, against whole passes of networks edited by hand."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import RequestError
from convscope.graph import INPUT, Intervention, TracedGraph, UnitRuns, trace
from convscope.graph.unit_runs import UnitPlaces, separate_units
from convscope.lenses import ablate
from tests.graph.graph_networks import Mixer, Residual, Shuffle, SqueezeExcite, Transformer, chain
from tests.lenses.lens_networks import ByFunctions, ByModules, Mixed, evaluated, lived_in, state


class Separable(nn.Module):
    """Convolutions of each unit by itself, one of which makes two of it; then one that mixes them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.alone = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 8, 3, groups=4)
        self.norm, self.mixing = nn.BatchNorm2d(8), nn.Conv2d(8, 6, 2, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixing(self.norm(self.alone(F.hardswish(self.stem(x)))))


class Dense(nn.Module):
    """Each layer reads all before it, and the image."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 4, 1), nn.Conv2d(11, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x.relu(), self.two(x)], 1)
        return self.three(F.max_pool2d(x, 3, 1))


class Twice(nn.Module):
    """One convolution used twice in a row, and a dense layer on two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.conv(x).relu())
        y = self.fc(x.mean((2, 3))) - self.fc(x.amax((2, 3)))
        return y[:, :, None, None]


class Functional(nn.Module):
    """Convolutions that are no modules, strided and dilated, and one to the other side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.empty(4, 3, 3, 3)), nn.Parameter(torch.empty(6, 4, 2, 2))
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first, stride=2, padding=1).clamp(min=0)
        return self.up(F.conv2d(F.instance_norm(x), self.second, dilation=2, padding="same"))


class Flat(nn.Module):
    """A map laid flat and joined with others, a norm of single numbers, then dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(3, 2, 3, stride=3)
        self.norm, self.fc = nn.BatchNorm1d(132), nn.Linear(132, 6)

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.cat([self.other(x).flatten(1), self.conv(x).relu().flatten(1)], 1)
        return self.fc(self.norm(flat).tanh())[:, :, None, None]


def with_head(body: nn.Module, units: int) -> nn.Module:
    return chain(body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * units, 3))


NETWORKS: dict[str, nn.Module] = {
    "mixed": Mixed(),
    "modules": ByModules(),
    "functions": ByFunctions(),
    "residual": with_head(Residual(), 4),
    "squeeze": with_head(SqueezeExcite(), 4),
    "mixer": with_head(Mixer(), 4),
    "transformer": Transformer(),
    "shuffle": with_head(Shuffle(), 4),
    "separable": with_head(Separable(), 6),
    "dense": with_head(Dense(), 5),
    "twice": with_head(Twice(), 4),
    "functional": with_head(Functional(), 4),
    "flat": with_head(Flat(), 6),
}
IMAGES = torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@cache
def opened(name: str) -> tuple[nn.Module, TracedGraph]:
    """In float64, so that what differs by rounding differs by little."""
    net = evaluated(deepcopy(NETWORKS[name]).double())
    images = IMAGES[..., :9, :8] if name in ("mixed", "modules", "functions") else IMAGES
    return net, trace(net, images[:1])


def remembered(graph: TracedGraph, images: Tensor, needs: tuple[str, ...]) -> dict[str, Tensor]:
    with torch.no_grad():
        return graph.run(images, [name for name in needs if name != INPUT] or None) | {INPUT: images}


def runs_of(graph: TracedGraph, calls: tuple[str, ...], values: Tensor, axis: int = 1) -> UnitRuns:
    """Those of all units of a layer."""
    return UnitRuns(graph, Intervention(calls, values, torch.ones(len(values), dtype=torch.bool), axis))


def answers(
    graph: TracedGraph, calls: tuple[str, ...], images: Tensor, values: Tensor, n_rows: int, axis: int = 1
) -> tuple[Tensor, list[tuple[int, int]]]:
    """The outputs without each unit, (U, N, K), and the (unit, image) that were worked out."""
    with torch.no_grad():
        before = graph.run(images)[graph.outputs[0]]
    found, seen = before.repeat(len(values), 1, 1), []
    runs = runs_of(graph, calls, values, axis)
    for rows in runs.run(remembered(graph, images, runs.needs), n_rows):
        found[rows.unit, rows.image] = rows.outputs
        seen += list(zip(rows.unit.tolist(), rows.image.tolist(), strict=True))
    return found, seen


def layers_of(name: str) -> list[tuple[str, tuple[str, ...], int]]:
    """(module, calls, axis of the units) of the layers with filters of their own and a row for each image."""
    found: dict[str, list[str]] = {}
    for op in opened(name)[1].operations:
        if op.kind in ("conv", "conv_transpose", "dense") and op.module not in ("0", "attention"):
            found.setdefault(op.module, []).append(op.name)
    last = {"0.up", "0.down"} if name == "mixer" else set()  # dense layers with the units behind the positions
    return [(module, tuple(calls), 3 if module in last else 1) for module, calls in found.items()]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_rows", [1, 7, 100])
def test_as_whole_passes_of_edited_weights(name: str, n_rows: int) -> None:
    """To 1e-12 of the largest output: some hundred float64 terms are summed up in another order."""
    net, graph = opened(name)
    images = IMAGES[..., : graph.input_shape[1], : graph.input_shape[2]]
    for module, calls, axis in layers_of(name):
        n_units = graph.operation(calls[0]).output_shape[axis - 1]
        found, _ = answers(graph, calls, images, torch.zeros(n_units), n_rows, axis)
        with torch.no_grad():
            expected = torch.stack([ablate(net, {module: unit})(images) for unit in range(n_units)])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("weight", ["first", "second"])
def test_convolutions_that_are_no_modules(weight: str) -> None:
    net, graph = opened("functional")
    call = [op.name for op in graph.operations if op.kind == "conv"][weight == "second"]
    n_units = graph.operation(call).output_shape[0]
    found, _ = answers(graph, (call,), IMAGES, torch.zeros(n_units), 8)
    for unit in range(n_units):
        edited: Any = deepcopy(net)
        with torch.no_grad():
            getattr(edited[0], weight)[unit] = 0
            torch.testing.assert_close(found[unit], edited(IMAGES), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["mixed", "dense", "separable"])
def test_any_value_may_take_the_place_of_a_unit(name: str) -> None:
    graph = opened(name)[1]
    images = IMAGES[..., : graph.input_shape[1], : graph.input_shape[2]]
    for op in graph.operations:
        if op.kind in ("conv", "batch_norm", "gelu") and op.name != graph.outputs[0]:
            values = torch.linspace(-1, 2, op.output_shape[0], dtype=torch.float64)
            found, _ = answers(graph, (op.name,), images, values, 100)
            for unit, value in enumerate(values):
                with torch.no_grad():
                    maps = graph.run(images, [op.name])[op.name].clone()
                    maps[:, unit] = value
                    beside = {n: graph.run(images, [n])[n] for n in _before(graph, op.name)}
                    expected = graph.run(images, given=beside | {op.name: maps})[graph.outputs[0]]
                torch.testing.assert_close(found[unit], expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def _before(graph: TracedGraph, layer: str) -> list[str]:
    names = [op.name for op in graph.operations]
    return [n for n in names[: names.index(layer)] if isinstance(graph.by_name[n].node.meta["val"], Tensor)]


@pytest.mark.parametrize(
    ("name", "layer", "last", "linear", "whole"),
    [
        ("modules", "conv1", "slice", {"conv2"}, {"slice"}),
        ("modules", "conv3", "flatten", {"fc1"}, set()),
        ("mixed", "residual.conv2", "branches.pool", {"branches.small", "branches.large"}, {"branches.pool"}),
        ("separable", "0.stem", "0.norm", {"0.mixing"}, set()),
        ("dense", "0.one", "0.relu", {"0.two"}, {"0.relu"}),
        ("squeeze", "0.conv", "0.mean", {"0.fc"}, {"0.gelu"}),
        ("flat", "0.conv", "0.tanh", {"0.fc"}, set()),
        ("twice", "0.conv_2", "0.max", {"0.fc", "0.fc_2"}, set()),
        ("shuffle", "0.stem", "0.stem", set(), {"0.stem"}),
        ("transformer", "patches", "flatten", set(), {"flatten"}),
    ],
)
def test_units_are_followed_as_far_as_they_stay_apart(
    name: str, layer: str, last: str, linear: set[str], whole: set[str]
) -> None:
    graph = opened(name)[1]
    runs = runs_of(graph, (layer,), torch.zeros(graph.operation(layer).output_shape[0]))
    assert set(runs.linear) == linear
    assert {plain(name) for name in runs.whole} == whole
    assert plain(list(runs.blocks)[-1]) == last


def plain(name: str) -> str:
    """Without the number of a second use."""
    return name.rstrip("0123456789").removesuffix("_") if "_" in name.split(".")[-1] else name


def test_where_units_lie_once_they_are_laid_flat() -> None:
    """Two units of 4 × 4 come first, four of 5 × 5 after them; twice as many places in a convolution that doubles."""
    assert separate_units(opened("flat")[1], "0.conv")["0.concat"] == UnitPlaces(32, 25)
    found = separate_units(opened("separable")[1], "0.stem")["0.norm"]
    assert found == UnitPlaces(0, 2)
    assert found.of(3) == slice(6, 8)
    assert separate_units(opened("dense")[1], "0.one")["0.relu"] == UnitPlaces(3, 1)


def test_a_pool_over_units_mixes_them() -> None:
    pooled = chain(nn.Conv2d(3, 4, 1), nn.AvgPool3d((3, 1, 1), 1, (1, 0, 0)), nn.Flatten(), nn.Linear(16, 2))
    assert list(separate_units(trace(pooled, torch.zeros(1, 3, 2, 2)), "0")) == ["0"]


def test_a_unit_that_makes_no_difference_is_not_run() -> None:
    """Unit 1 is dead, unit 0 silent in the second of two images: 0 with it and without it."""
    net: Any = chain(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1, 1]).view(3, 1, 1, 1))
        net[0].bias.copy_(torch.tensor([-0.5, 0, 0]))
    images = torch.stack([torch.ones(1, 2, 2), torch.full((1, 2, 2), 0.25)])
    graph = trace(net, images[:1])
    found, seen = answers(graph, ("0",), images, torch.zeros(3), 10)
    assert seen == [(0, 0), (2, 0), (2, 1)]
    assert torch.equal(found[1], graph.run(images)[graph.outputs[0]])


def test_a_layer_that_the_answer_does_not_hang_on() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.left = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.conv(x).mean((2, 3)), self.left(x)

    graph = trace(Unused().eval(), torch.zeros(1, 3, 4, 4))
    images = torch.rand(2, 3, 4, 4)
    found, _ = answers(graph, ("left",), images, torch.zeros(2), 10)
    assert torch.equal(found, graph.run(images)["mean"].expand(2, 2, 3))


def test_images_that_are_normalized_together_are_refused() -> None:
    net = chain(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(400, 3))
    graph = trace(net.eval(), torch.zeros(1, 3, 12, 12))
    with pytest.raises(RequestError, match=r"^layer '1' normalizes by the batch it is in .*running statistics$"):
        runs_of(graph, ("0",), torch.zeros(4))


def test_the_network_is_left_as_it_was_found() -> None:
    net = lived_in(evaluated(Mixed()))
    graph = trace(net, torch.zeros(1, 3, 9, 8))
    runs = runs_of(graph, ("dilated",), torch.zeros(4))
    images = torch.rand(3, 3, 9, 8)
    known, before = remembered(graph, images, runs.needs), state(net)
    copies = {name: value.clone() for name, value in known.items()}
    n_rows = 0
    for rows in runs.run(known, 5):
        n_rows += len(rows.unit)
        assert state(net) == before
    assert n_rows == 12
    assert state(net) == before
    assert all(torch.equal(copies[name], known[name]) for name in known)
