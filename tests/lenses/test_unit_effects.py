"""The units that an answer rests on, against networks in which each is ablated by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import RequestError, UnknownNameError
from convscope.lenses import unit_effects
from convscope.scope import Scope
from tests.lenses.lens_networks import ByFunctions, ByModules, Mixed, evaluated, traced


@pytest.mark.parametrize("kind", [Mixed, ByModules, ByFunctions])
def test_each_effect_is_that_of_the_ablated_network(kind: type[nn.Module]) -> None:
    net, images = evaluated(kind()), torch.rand(1, 3, 8, 8)
    scope = Scope(net, images)
    layers = [operation.name for operation in scope.graph.operations if operation.kind == "relu"][:2]
    image = images[:1]
    found = scope.unit_effects(image, layers, 1)
    before, probability = scope.logits(image)[0, 1], scope.probabilities(image)[0, 1]
    assert len(found.units) == min(200, sum(scope.n_units(layer) for layer in layers))
    assert found.logit_change.tolist() == sorted(found.logit_change.tolist())
    for k in {0, len(found.units) // 2, len(found.units) - 1}:
        ablated = _without(scope, image, found.layers[k], int(found.units[k]))
        torch.testing.assert_close(found.logit_change[k], ablated[0, 1] - before, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            found.probability_change[k], ablated.softmax(1)[0, 1] - probability, atol=1e-5, rtol=1e-4
        )


def _without(scope: Scope, image: Tensor, layer: str, unit: int) -> Tensor:
    """The logits with a unit of an operation's result at 0, by running the graph with that operation replaced."""

    def silenced(operator: object, *args: object, **named: object) -> Tensor:
        result = operator(*args, **named).clone()  # type: ignore[operator]
        result[:, unit] = 0
        return result

    graph = scope.graph
    with torch.no_grad():
        return graph.run(scope.prepare(image), instead={layer: silenced})[graph.outputs[0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_by_hand(dtype: torch.dtype) -> None:
    """Two units of a 1×1 convolution, a ReLU, a sum: the logit falls by what the unit adds to it."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
        net[3].weight.copy_(torch.stack([torch.ones(8), torch.zeros(8)]))
    image = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]], dtype=dtype)
    found = Scope(net.to(dtype), image).unit_effects(image, ["1"], 0)
    assert found.logit_change.dtype == dtype
    assert (found.layers, found.units.tolist()) == (["1", "1"], [0, 1])
    assert found.logit_change.tolist() == pytest.approx([-2.0, 0.0])
    assert found.estimate.tolist() == pytest.approx([-2.0, 0.0])  # all is linear where the ReLU lets it through


def test_the_estimate_chooses_what_is_measured() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 36, 3))
    image = torch.rand(1, 3, 8, 8)
    scope = Scope(net, image)
    whole, few = scope.unit_effects(image, ["1"]), scope.unit_effects(image, ["1"], measured=3)
    assert set(few.units.tolist()) == set(whole.units[whole.estimate.argsort()[:3]].tolist())
    assert few.logit_change[0] == whole.logit_change[0]


def test_no_layer() -> None:
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(RequestError, match="layers: there is none; give one at least"):
        Scope(evaluated(ByFunctions()), images).unit_effects(images, [])


def test_wrong_requests() -> None:
    image = torch.rand(1, 3, 8, 8)
    scope = Scope(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)), image)
    with pytest.raises(RequestError, match="expected one"):
        scope.unit_effects(torch.rand(2, 3, 8, 8), ["0"])
    with pytest.raises(UnknownNameError, match="conv9"):
        scope.unit_effects(image, ["conv9"])
    with pytest.raises(UnknownNameError):
        unit_effects(scope.graph, image, ["nothing"])


def test_one_unit_at_a_time_where_memory_is_short_and_in_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(1, 3, 8, 8)
    graph = traced(ByFunctions, (3, 8, 8))
    layers = [operation.name for operation in graph.operations if operation.kind == "relu"]
    expected = unit_effects(graph, images, layers, 1)
    monkeypatch.setattr("convscope.lenses.memory.free_memory", lambda device: 1)
    with torch.inference_mode():
        effects = unit_effects(graph, torch.empty(1, 3, 8, 8).copy_(images), layers, 1)
    torch.testing.assert_close(effects.logit_change, expected.logit_change, atol=1e-6, rtol=1e-5)
