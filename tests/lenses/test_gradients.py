from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import RequestError, UnknownNameError
from convscope.graph import TracedGraph, trace
from convscope.lenses.gradients import gradient_times_input, saliency
from convscope.scope import Scope
from tests.graph.graph_networks import Recurrent, Transformer
from tests.lenses.lens_networks import ByFunctions, ByModules, Mixed, evaluated

captum = pytest.importorskip("captum.attr")
SHAPE = (3, 9, 8)


@pytest.fixture(scope="module")
def graph() -> TracedGraph:
    return trace(evaluated(Mixed().double()), torch.zeros(1, *SHAPE, dtype=torch.float64))


def differences(graph: TracedGraph, image: Tensor, ask: Any, step: float = 1e-5) -> Tensor:
    """The central differences of what `ask` reads off the results, pixel by pixel."""
    steps = torch.eye(image.numel(), dtype=image.dtype).view(-1, *image.shape) * step
    with torch.no_grad():
        return ((ask(image + steps) - ask(image - steps)) / (2 * step)).view(image.shape)


ASKED = {
    "class": ({"target": 2}, lambda graph, x: graph.run(x)["fc"][:, 2]),
    "layer": ({"layer": "residual.add"}, lambda graph, x: graph.run(x, ["residual.add"])["residual.add"].sum((1, 2, 3))),
    "unit": ({"layer": "gelu", "unit": 3}, lambda graph, x: graph.run(x, ["gelu"])["gelu"][:, 3].sum((1, 2))),
    "neuron": (
        {"layer": "gelu", "unit": 3, "position": (4, 2)},
        lambda graph, x: graph.run(x, ["gelu"])["gelu"][:, 3, 4, 2],
    ),
    "dense": ({"layer": "fc", "unit": 4}, lambda graph, x: graph.run(x)["fc"][:, 4]),
}  # fmt: skip


@pytest.mark.parametrize("case", ASKED)
def test_finite_differences(graph: TracedGraph, case: str) -> None:
    """The differences' own error is about step² = 1e-10 of the third derivative, and 1e-16 / step = 1e-11."""
    asked, ask = ASKED[case]
    image = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = saliency(graph, image[None], **asked).values[0]
    torch.testing.assert_close(found, differences(graph, image, lambda x: ask(graph, x)), rtol=1e-6, atol=1e-8)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("network", [ByModules, ByFunctions])
def test_captum(network: type[nn.Module]) -> None:
    net = evaluated(network())
    images = torch.randn(4, 3, 8, 8)
    graph, target = trace(net, images), torch.tensor([0, 4, 2, 2])
    torch.testing.assert_close(
        saliency(graph, images, target).values, captum.Saliency(net).attribute(images, target, abs=False)
    )
    torch.testing.assert_close(
        saliency(graph, images, target).saliency()[:, 0], captum.Saliency(net).attribute(images, target).amax(1)
    )
    torch.testing.assert_close(
        gradient_times_input(graph, images, target).values, captum.InputXGradient(net).attribute(images, target)
    )


def test_by_hand() -> None:
    """s₀ = 2a − 3b + 1 and s₁ = −s₀ on an image of two pixels a, b."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[2.0, -3.0], [-2.0, 3.0]]))
        net[1].bias.copy_(torch.tensor([1.0, -1.0]))
    graph = trace(net, torch.zeros(1, 1, 1, 2))
    images = torch.tensor([[5.0, 1.0], [0.0, 2.0]]).view(2, 1, 1, 2)
    found = saliency(graph, images)
    assert found.target.tolist() == [0, 1]
    torch.testing.assert_close(found.probability, torch.tensor([16.0, 10.0]).sigmoid())
    assert found.values.flatten(1).tolist() == [[2, -3], [-2, 3]]
    assert found.saliency().flatten(1).tolist() == [[2, 3], [2, 3]]
    products = gradient_times_input(graph, images, target=0)
    assert products.values.flatten(1).tolist() == [[10, -3], [0, -6]]
    assert (products.method, products.layer, products.note) == ("gradient_times_input", None, None)


def test_the_strongest_position() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 2))
    graph = trace(net, torch.zeros(1, 1, 2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    images = torch.tensor([[1.0, 2.0, 9.0, 3.0], [4.0, 0.0, 1.0, 2.0]]).view(2, 1, 2, 2)
    found = saliency(graph, images, layer="0", unit=0, position="max")
    assert found.position.tolist() == [[1, 0], [0, 0]]
    assert found.values.flatten(1).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert saliency(graph, images, layer="0", unit=1, position="max").position.tolist() == [[0, 0], [0, 1]]
    assert (found.target, found.probability, found.unit) == (None, None, 0)


def test_a_unit_of_tokens() -> None:
    graph = trace(evaluated(Transformer()), torch.zeros(1, 3, 8, 12))
    images = torch.randn(2, 3, 8, 12)
    tokens = saliency(graph, images, layer="concat", unit=5, position=(1, 2)).values
    patches = saliency(graph, images, layer="patches", unit=5, position=(1, 2)).values
    torch.testing.assert_close(tokens, patches)
    assert patches[0].any()


def test_one_output_is_a_sigmoid() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    images = torch.randn(2, 1, 2, 2)
    graph, second = trace(net, images), net(images)[:, 0].detach().sigmoid()
    found = saliency(graph, images)
    assert found.target.tolist() == (second > 0.5).long().tolist()
    torch.testing.assert_close(found.probability, torch.maximum(second, 1 - second))
    weights = net[1].weight.detach().view(1, 1, 2, 2)
    first, other = saliency(graph, images, 0), saliency(graph, images, 1)
    assert torch.equal(first.values, -weights.expand_as(images))  # what speaks for one speaks against the other
    assert torch.equal(other.values, weights.expand_as(images))
    torch.testing.assert_close(first.probability, 1 - second)


@pytest.mark.parametrize("target", [1, [0, 2]])
def test_a_target_chosen_in_inference_mode(graph: TracedGraph, target: Any) -> None:
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    expected = saliency(graph, images, target).values
    with torch.inference_mode():
        for given in (target, target if isinstance(target, int) else torch.tensor(target)):
            assert torch.equal(saliency(graph, images, given).values, expected)


def test_portions_change_nothing(graph: TracedGraph) -> None:
    """To float64 rounding: a batch of one may be summed in another order."""
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    whole, parts = saliency(graph, images, [1, 2, 3]), saliency(graph, images, [1, 2, 3], max_memory=1)
    torch.testing.assert_close(whole.values, parts.values, rtol=1e-12, atol=1e-14)
    assert parts.target.tolist() == [1, 2, 3]


def test_a_gradient_of_zero_is_said() -> None:
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(2, 2))
    images = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).view(2, 1, 1, 2)
    graph = trace(net, images)
    assert saliency(graph, images).note == "image 0: all values are zero: no small change of a pixel changes the answer"
    assert saliency(graph, images[1:]).note is None


class Detaching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1).detach())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"target": 5}, "target: 5 is not a class of this network; it has 0 to 4"),
    ({"target": [0]}, "target: 1 targets for 2 images"),
    ({"target": 1, "layer": "gelu"}, "both target 1 and layer 'gelu' are given; ask about a class or about a layer"),
    ({"unit": 1}, "a unit or a position is given without its layer"),
    ({"layer": "gelu", "position": (0, 0)}, r"position \(0, 0\) is given without a unit"),
    ({"layer": "gelu", "unit": 4}, "unit 4 is not in layer 'gelu'; it has units 0 to 3"),
    ({"layer": "gelu", "unit": -1}, "unit -1 is not in layer 'gelu'"),
    ({"layer": "gelu", "unit": 0, "position": (5, 0)}, r"position \(5, 0\) is not on the map of 'gelu'; it has 5 rows"),
    ({"layer": "fc", "unit": 0, "position": "max"}, "layer 'fc' has no positions; leave it out"),
    ({"max_memory": 0}, "max_memory: 0 bytes"),
]


@pytest.mark.parametrize(("asked", "message"), WRONG)
def test_wrong_requests(graph: TracedGraph, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        saliency(graph, torch.zeros(2, *SHAPE, dtype=torch.float64), **asked)


def test_what_cannot_be_asked(graph: TracedGraph) -> None:
    with pytest.raises(UnknownNameError, match="layer 'gelo' is not in this network; did you mean 'gelu'"):
        saliency(graph, torch.zeros(1, *SHAPE, dtype=torch.float64), layer="gelo")
    with pytest.raises(RequestError, match="there are no images"):
        saliency(graph, torch.zeros(0, *SHAPE, dtype=torch.float64))
    with pytest.raises(RequestError, match="no gradient comes back: the network detaches"):
        saliency(trace(Detaching(), torch.zeros(1, 1, 2, 2)), torch.ones(1, 1, 2, 2))
    conv = trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))
    with pytest.raises(RequestError, match="this network answers 4×6×6 numbers an image, not a row of logits"):
        saliency(conv, torch.ones(1, 3, 8, 8))
    rows = trace(Recurrent(), torch.zeros(1, 1, 7, 8))
    with pytest.raises(RequestError, match=r"layer 'rnn\.part' gives 7×6 numbers an image, and which are a unit's"):
        saliency(rows, torch.ones(1, 1, 7, 8), layer="rnn.part", unit=0)


class Standardized(nn.Module):
    """Batch norm that measures the batch at hand, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


@pytest.mark.parametrize("name", ["saliency", "grad_cam", "guided_backprop", "integrated_gradients", "occlusion"])
def test_each_image_alone_where_images_act_on_each_other(name: str) -> None:
    """Batch norm without running statistics: every lens says so, and gives for a batch what its images give one by one."""
    torch.manual_seed(0)
    images = torch.rand(3, 3, 7, 6, dtype=torch.float64)
    scope = Scope(Standardized().double().eval(), images)

    def look(some: Tensor) -> tuple[Tensor, str | None]:
        if name == "occlusion":
            found = scope.occlusion(some, 3, 2, target=1)
            return found.probabilities, found.note
        attribution = scope.attribute(name, some, 1)
        return attribution.values, attribution.note

    values, note = look(images)
    assert "batch norm without running statistics" in (note or "")
    alone = torch.cat([look(image[None])[0] for image in images])
    torch.testing.assert_close(values, alone, rtol=0, atol=1e-12)


def test_variants_of_an_image_and_pictures_of_units_stand_alone_there_too() -> None:
    torch.manual_seed(0)
    net, image = Standardized().double().eval(), torch.rand(1, 3, 7, 6, dtype=torch.float64)
    scope = Scope(net, image)
    found, before = scope.unit_effects(image, ["conv"], 1), scope.logits(image)[0, 1]
    for unit, change in zip(found.units.tolist(), found.logit_change, strict=True):
        values = net.conv(image).detach()
        values[:, unit] = 0
        after = net.fc(net.norm(values).relu().mean((2, 3)))[0, 1]
        torch.testing.assert_close(change, after.detach() - before)
    both, second = (scope.maximize("fc", units, steps=3) for units in ([0, 1], [1]))
    assert torch.equal(both.picture[1], second.picture[0])


class Stem(nn.Module):
    """A convolution and batch norm whose map becomes a list of tokens, as in hybrid vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.layer_norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer_norm(self.norm(self.conv(x)).flatten(2).transpose(1, 2)).sin().mean(1))


def test_a_single_image_through_batch_norm_and_tokens() -> None:
    """Against float64 central differences; PyTorch's own gradient of a single image is wrong here by more than its size."""
    net = evaluated(Stem().double())
    image = torch.rand(1, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = saliency(trace(net, image), image, 1).values
    step = 1e-6 * torch.eye(image.numel(), dtype=torch.float64).view(-1, *image.shape[1:])
    with torch.no_grad():
        expected = (net(image + step)[:, 1] - net(image - step)[:, 1]) / 2e-6
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-5, atol=1e-8)
