from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import RequestError, UnknownNameError
from convscope.graph import trace
from tests.gpus import CUDA, assert_near, on_gpu
from tests.graph.graph_networks import (
    Branches,
    Dynamic,
    Focus,
    Frozen,
    Mixer,
    Recurrent,
    Residual,
    Shuffle,
    SqueezeExcite,
    Transformer,
    Windowed,
    Writing,
    chain,
    net4,
    vgg_like,
)

NETWORKS = {
    "residual": (Residual(), (3, 9, 8)),
    "branches": (Branches(), (2, 8, 7)),
    "squeeze-excite": (SqueezeExcite(), (3, 6, 7)),
    "positions last": (Mixer(), (3, 8, 10)),
    "transformer": (Transformer(), (3, 8, 8)),
    "lstm": (Recurrent(nn.LSTM), (1, 7, 8)),
    "gru": (Recurrent(nn.GRU), (1, 7, 8)),
    "shuffled": (Shuffle(), (3, 8, 9)),
    "pixels as units": (Focus(), (3, 8, 10)),
    "filters from the image": (Dynamic(), (3, 5, 6)),
    "windows": (Windowed(), (3, 8, 12)),
    "frozen": (Frozen(), (3, 6, 7)),
    "written in place": (Writing(), (3, 6, 5)),
    "net4": (net4(), (3, 32, 32)),
}


@pytest.fixture(autouse=True)
def _plain_attention() -> Iterator[None]:
    """In evaluation torch's attention takes a fused path of other rounding; the graph has the plain one."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("case", NETWORKS)
@pytest.mark.parametrize("n", [1, 3])
def test_the_same_bits_as_the_network(case: str, n: int) -> None:
    net, shape = NETWORKS[case]
    net.eval()
    images = torch.randn(n, *shape)
    before = images.clone()
    graph = trace(net, torch.zeros(1, *shape))
    with torch.no_grad():
        (found,) = graph.run(images).values()
        assert torch.equal(found, net(images.clone()))
    assert torch.equal(images, before)


@pytest.mark.parametrize("case", NETWORKS)
def test_from_any_operation_on_gives_the_same(case: str) -> None:
    net, shape = NETWORKS[case]
    graph = trace(net, torch.zeros(1, *shape))
    images = torch.randn(3, *shape)
    with torch.no_grad():
        whole = graph.run(images, [op.name for op in graph.operations])
        for name, value in whole.items():
            if not isinstance(graph.by_name[name].node.meta["val"], Tensor):
                with pytest.raises(RequestError, match="has several results"):
                    graph.run(images, given={name: value})
                continue
            again = graph.run(images, given={name: value})
            assert torch.equal(again[graph.outputs[0]], whole[graph.outputs[0]])


def test_partial_execution_needs_no_image_where_nothing_goes_round() -> None:
    net = vgg_like()
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    images = torch.rand(2, 3, 32, 32)
    hidden = graph.run(images, ["conv3", "pool1"])
    assert list(hidden) == ["conv3", "pool1"]
    assert torch.equal(graph.run(None, given={"conv3": hidden["conv3"]})["fc3"], graph.run(images)["fc3"])
    with pytest.raises(RequestError, match="pass images as well"):
        graph.run(None, ["conv1"], given={"conv3": hidden["conv3"]})
    with pytest.raises(RequestError, match="nothing to run on"):
        graph.run(None)


def test_what_is_kept_for_the_next_run_changes_nothing_and_is_bounded() -> None:
    graph = trace(net4(), torch.zeros(1, 3, 32, 32))
    image, names = torch.rand(1, 3, 32, 32), [op.name for op in graph.operations]
    with torch.no_grad():
        whole = graph.run(image, names)
        for _ in range(2):
            for first in names:
                for wanted in ([first], [first, names[-1]], [names[0], first], [names[-1], first]):
                    found = graph.run(image, wanted)
                    assert list(found) == list(dict.fromkeys(wanted))
                    assert all(torch.equal(found[name], whole[name]) for name in wanted)
                    found = graph.run(image, [names[-1]], given={first: whole[first]})
                    assert torch.equal(found[names[-1]], whole[names[-1]])
                    assert len(graph._plans) <= 64


def test_it_stops_after_the_last_wanted_operation() -> None:
    class Counting(torch.utils._python_dispatch.TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += "convolution" in str(func)
            return func(*args, **(kwargs or {}))

    graph = trace(net4(), torch.zeros(1, 3, 32, 32))
    with Counting() as counting:
        graph.run(torch.rand(1, 3, 32, 32), ["conv2"])
    assert counting.calls == 2


def test_an_in_place_relu_leaves_what_came_before_it() -> None:
    net = chain(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
    results = trace(net, torch.zeros(1, 1, 5, 5)).run(torch.randn(1, 1, 5, 5), ["0", "1"])
    assert results["0"].min() < 0
    assert torch.equal(results["0"].relu(), results["1"])


def test_weights_are_the_networks_own() -> None:
    net = chain(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    graph = trace(net, torch.zeros(1, 1, 5, 5))
    with torch.no_grad():
        net[0].weight.mul_(2)
        net[1].running_mean.fill_(3)
    net[0].bias = nn.Parameter(torch.ones(2))
    images = torch.randn(2, 1, 5, 5)
    assert torch.equal(graph.run(images)["1"], net(images))
    graph.run(images)["1"].sum().backward()
    assert net[0].weight.grad is not None


def test_weights_that_are_worked_out_belong_to_the_layer_that_uses_them() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    graph = trace(chain(conv), torch.zeros(1, 1, 5, 5))
    assert [(op.name, op.kind, op.n_parameters) for op in graph.operations] == [("0", "conv", 2 + 18 + 2)]


class Iterated(nn.Module):
    """Reads each of its steps twice, as an orthogonal weight's iteration does."""

    def forward(self, weight: Tensor) -> Tensor:
        for _ in range(40):
            weight = 1.5 * weight - 0.5 * weight**3
        return weight


def test_a_weight_is_worked_out_once_however_often_its_steps_are_read() -> None:
    """Each of 40 steps anew for each of its readers would never end."""
    conv = nn.Conv2d(1, 2, 3)
    nn.utils.parametrize.register_parametrization(conv, "weight", Iterated())
    graph = trace(chain(conv), torch.zeros(1, 1, 5, 5))
    op = graph.operation("0")
    assert op.parameters == ("0.parametrizations.weight.original", "0.bias")
    assert torch.equal(graph.constant(op.node.args[1], 1), conv.weight)


def test_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.relu_2 = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.ReLU()
            self.block = Residual(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.relu(self.relu(self.relu_2(self.conv(x)))))
            return self.block(F.relu(self.conv(x))) * 2

    graph = trace(Net(), torch.zeros(1, 3, 6, 6))
    names = [op.name for op in graph.operations]
    assert names[:7] == ["conv", "relu_2", "relu", "relu_3", "relu_4", "conv_2", "relu_5"]
    assert names[7:11] == ["block.conv1", "block.bn1", "block.relu", "block.conv2"]
    assert names[11:] == ["block.shortcut", "block.add", "block.relu_2", "mul"]
    by_name = graph.by_name
    assert by_name["block.add"].module == "block"
    assert by_name["block.add"].inputs == ("block.conv2", "block.shortcut")
    assert by_name["conv"].parameters == ("conv.weight", "conv.bias")
    assert (by_name["conv"].n_parameters, by_name["conv_2"].n_parameters) == (12, 0)
    assert by_name["conv"].inputs == ("input",)


def test_functions_in_place_of_operations() -> None:
    graph = trace(Residual(), torch.zeros(1, 3, 9, 8))
    images = torch.randn(2, 3, 9, 8)
    whole = graph.run(images, ["bn1", "relu", "conv2", "add"])
    instead = {"relu": lambda operator, x: operator(-x), "conv2": lambda operator, *arguments: operator(*arguments) * 2}
    found = graph.run(images, ["bn1", "relu", "conv2"], instead=instead)
    assert torch.equal(found["bn1"], whole["bn1"])
    assert torch.equal(found["relu"], (-whole["bn1"]).relu())
    expected = F.conv2d(found["relu"], graph.net.conv2.weight, graph.net.conv2.bias, padding=1) * 2
    assert torch.equal(found["conv2"], expected)
    with pytest.raises(UnknownNameError, match="layer 'relu9' is not in this network"):
        graph.run(images, instead={"relu9": lambda operator, x: x})


def test_several_outputs() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            x = x.flatten(1)
            return {"a": self.a(x), "b": self.b(x)}

    graph = trace(Heads(), torch.zeros(1, 1, 2, 2))
    assert {name: tuple(t.shape) for name, t in graph.run(torch.zeros(5, 1, 2, 2)).items()} == {
        "a": (5, 2),
        "b": (5, 3),
    }


def test_bad_requests() -> None:
    graph = trace(vgg_like(), torch.zeros(1, 3, 32, 32))
    with pytest.raises(UnknownNameError, match="layer 'conv9' is not in this network; did you mean 'conv4'"):
        graph.run(torch.zeros(1, 3, 32, 32), ["conv9"])
    with pytest.raises(RequestError, match="images have the shape 1×3×30×32; this graph was traced for N×3×32×32"):
        graph.run(torch.zeros(1, 3, 30, 32))


class Placed(nn.Module):
    """Makes numbers where the images are."""

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2], device=x.device, dtype=x.dtype)[:, None]
        weight = torch.full((2, x.shape[1], 1, 1), 0.5, device=x.device, dtype=x.dtype)
        return F.conv2d(x * rows, weight).flatten(1)


def test_a_graph_goes_where_its_network_goes() -> None:
    """To the device without numbers, which has all but those; there an operation of tensors of two devices fails, too."""
    net = chain(nn.Conv2d(3, 3, 1), Placed())
    graph = trace(net, torch.zeros(1, 3, 6, 5))
    net.to("meta")
    assert graph.run(torch.empty(4, 3, 6, 5, device="meta"))[graph.outputs[0]].device.type == "meta"


@on_gpu
@pytest.mark.parametrize("case", [*NETWORKS, "placed"])
def test_the_same_on_a_gpu_to_which_the_network_moved(case: str) -> None:
    net, shape = NETWORKS[case] if case in NETWORKS else (chain(nn.Conv2d(3, 3, 1), Placed()), (3, 6, 5))
    net = deepcopy(net).double().eval()
    images = torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = trace(net, images)
    with torch.no_grad():
        here = graph.run(images)[graph.outputs[0]]
        net.to(CUDA)
        assert_near(graph.run(images.to(CUDA))[graph.outputs[0]], here)
        assert_near(trace(net, images.to(CUDA)).run(images.to(CUDA))[graph.outputs[0]], here)
