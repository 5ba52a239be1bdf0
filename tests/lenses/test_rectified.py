from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.errors import RequestError
from convscope.graph import trace
from convscope.lenses.gradients import saliency
from convscope.lenses.rectified import deconvnet, guided_backprop
from tests.graph.graph_networks import Residual, net4
from tests.lenses.lens_networks import ByFunctions, ByModules, Mixed, evaluated, traced

captum = pytest.importorskip("captum.attr")
TARGET = torch.tensor([0, 4, 2, 2])
pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor 0 did not already")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("network", [ByModules, ByFunctions])
def test_captum_where_it_is_right(images: Tensor, network: type[nn.Module]) -> None:
    """Captum reaches modules used once; the same network by functions has to give the same."""
    modules = evaluated(ByModules())
    graph = traced(network, (3, 8, 8))
    for lens, peer in ((guided_backprop, captum.GuidedBackprop), (deconvnet, captum.Deconvolution)):
        found = lens(graph, images, TARGET)
        torch.testing.assert_close(found.values, peer(modules).attribute(images, TARGET))
        assert found.note == "4 rectifiers overridden: 4 relu"
        assert not torch.allclose(found.values, saliency(graph, images, TARGET).values)


def test_captum_on_a_large_network() -> None:
    body = net4()
    for module in body:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    net = nn.Sequential(body, nn.Flatten(), nn.Linear(512 * 36, 3)).eval()
    images = torch.randn(2, 3, 32, 32)
    found = guided_backprop(trace(net, images), images, 1)
    torch.testing.assert_close(found.values, captum.GuidedBackprop(net).attribute(images, 1))
    assert found.note == "6 rectifiers overridden: 6 relu"


class ByHand(nn.Module):
    """s = w₂ · relu(w₁ · relu(x)), the same ReLU twice and in place."""

    def __init__(self, w1: float, w2: float) -> None:
        super().__init__()
        self.relu, self.w1, self.w2 = nn.ReLU(inplace=True), w1, w2

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.relu(x.flatten(1) + 0) * self.w1) * self.w2


@pytest.mark.parametrize(
    ("w1", "w2", "x", "plain", "guided", "deconvolved"),
    [
        (2.0, 3.0, 1.0, 6.0, 6.0, 6.0),
        (2.0, 3.0, -1.0, 0.0, 0.0, 6.0),  # held back by the first ReLU on the way there
        (-2.0, 3.0, 1.0, 0.0, 0.0, 0.0),  # w₁ turns the positive gradient negative
        (2.0, -3.0, 1.0, -6.0, 0.0, 0.0),  # a negative gradient from the start
        (-2.0, -3.0, 1.0, 0.0, 0.0, 0.0),  # stopped at the second ReLU before w₁ could turn it
    ],
)
def test_reused_in_place_by_hand(
    w1: float, w2: float, x: float, plain: float, guided: float, deconvolved: float
) -> None:
    image = torch.full((1, 1, 1, 1), x)
    graph = trace(ByHand(w1, w2), image)
    assert saliency(graph, image, 1).values.item() == plain
    assert guided_backprop(graph, image, 1).values.item() == guided
    assert deconvnet(graph, image, 1).values.item() == deconvolved
    assert guided_backprop(graph, image).note.startswith("2 rectifiers overridden: 2 relu")


RECTIFIED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "method in place": lambda x: (x + 0).relu_(),
    "in place": lambda x: F.relu(x + 0, inplace=True),
    "relu6": F.relu6,
    "module relu6": nn.ReLU6(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "prelu": nn.PReLU(init=0.2),
    "rrelu": nn.RReLU().eval(),
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
}


class Rectifying(nn.Module):
    """Each pixel on its own: weight · f(x)."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f
        self.register_buffer("weights", torch.tensor([[2.0, 3.0, 1.0, 5.0, -4.0, -4.0]]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.f(x.flatten(1)) * self.weights).sum(1, keepdim=True)


@pytest.mark.parametrize("name", RECTIFIED)
def test_the_rule_of_each_rectifier(name: str) -> None:
    """∂x = max(f′(x), 0) · max(∂y, 0) and ∂x = max(∂y, 0), whatever f is.

    At the last pixel GELU, SiLU, Mish and hard swish fall, and ∂y is negative: their product is not, and must not pass.
    """
    f = RECTIFIED[name]
    image = torch.tensor([-2.0, -0.3, 0.4, 3.0, 1.0, -2.0]).view(1, 1, 1, 6)
    graph = trace(Rectifying(f).eval(), image)
    x = image.flatten().requires_grad_()
    (slope,) = torch.autograd.grad(f(x).sum(), x)
    weights = torch.tensor([2.0, 3.0, 1.0, 5.0, 0.0, 0.0])
    torch.testing.assert_close(guided_backprop(graph, image).values.flatten(), slope.clamp(min=0) * weights)
    assert deconvnet(graph, image).values.flatten().tolist() == weights.tolist()


def test_the_module_relu6_is_called_so() -> None:
    image = torch.tensor([-2.0, 0.4, 3.0, 7.0, 1.0, -2.0]).view(1, 1, 1, 6)
    found = guided_backprop(trace(Rectifying(nn.ReLU6()).eval(), image), image)
    assert found.note == "1 rectifier overridden: 1 relu6"


def test_max_pools_lead_back_to_the_maximum() -> None:
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    image = torch.tensor([[1.0, 4.0, -1.0, -2.0], [2.0, 3.0, -3.0, -4.0]]).view(1, 1, 2, 4)
    graph = trace(net, image)
    assert deconvnet(graph, image, layer="1").values.flatten().tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    assert guided_backprop(graph, image, layer="1").values.flatten().tolist() == [0, 1, 0, 0, 0, 0, 0, 0]


def test_it_counts_only_those_on_the_way() -> None:
    images = torch.randn(2, 3, 9, 8)
    graph = traced(Mixed)
    assert guided_backprop(graph, images).note == "4 rectifiers overridden: 3 relu, 1 gelu"
    assert deconvnet(graph, images, layer="residual.conv2", unit=0, position="max").note.startswith(
        "1 rectifier overridden: 1 relu"
    )


def test_a_residual_sum_by_hand() -> None:
    """Both ways of a residual block, with the rules written out."""
    net = evaluated(nn.Sequential(Residual(3, 4), nn.Flatten(), nn.Linear(4 * 20, 5)))
    image = torch.randn(1, 3, 9, 8)
    block = net[0]
    with torch.no_grad():
        before = block.bn1(block.conv1(image))
        total = block.conv2(before.relu()) + block.shortcut(image)
        back = net[2].weight[3].view_as(total).clamp(min=0) * (total > 0)
        inner = F.conv_transpose2d(back, block.conv2.weight, padding=1).clamp(min=0) * (before > 0)
        inner = inner * (block.bn1.weight / (block.bn1.running_var + block.bn1.eps).sqrt()).view(1, -1, 1, 1)
        expected = F.conv_transpose2d(inner, block.conv1.weight, stride=2, padding=1, output_padding=(0, 1))
        expected += F.conv_transpose2d(back, block.shortcut.weight, stride=2, output_padding=(0, 1))
    found = guided_backprop(trace(net, image), image, 3).values
    torch.testing.assert_close(found, expected)


def test_without_a_rectifier() -> None:
    images = torch.randn(1, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Hardtanh(), nn.Sigmoid(), nn.Flatten(), nn.ReLU(), nn.Linear(72, 2))
    graph = trace(net, images)
    with pytest.raises(RequestError, match="no rectifier lies between the image and '3', so deconvnet would be the"):
        deconvnet(graph, images, layer="3")
    assert guided_backprop(graph, images).note.startswith("1 rectifier overridden")
