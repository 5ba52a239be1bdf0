from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import FailedError, RequestError, SettingError, UnknownNameError
from convscope.graph import TracedGraph, trace
from convscope.lenses.maximize import maximize
from convscope.lenses.parametrize import Fourier, Pixels
from convscope.lenses.regularizers import L2, Blur, Jitter, TotalVariation
from tests.gpus import CUDA, assert_near, on_gpu
from tests.graph.graph_networks import Mixer, Transformer
from tests.lenses.lens_networks import Mixed, evaluated, lived_in, state
from tests.lenses.test_properties import Failing

MEAN, DEVIATION = (0.2, 0.5, 0.7), (0.2, 0.3, 0.25)
FREE: dict[str, Any] = {"parametrization": Pixels(), "regularizers": ()}
FILTER = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [-0.5, 2.0, 1.5]])


def one_filter(after: nn.Module | None = None, bias: float = 0.0) -> nn.Sequential:
    """Activation = Σ filter · pixel + bias, at the one position of a 3×3 image."""
    conv = nn.Conv2d(1, 1, 3)
    with torch.no_grad():
        conv.weight.copy_(FILTER)
        conv.bias.fill_(bias)  # type: ignore[union-attr]
    return nn.Sequential(OrderedDict(conv=conv) | ({"after": after} if after else {}))


def graph_of(net: nn.Module, *shape: int, like: torch.dtype = torch.float32) -> TracedGraph:
    return trace(net.to(like), torch.zeros(1, *shape, dtype=like))


@pytest.fixture(scope="module")
def graph() -> TracedGraph:
    return graph_of(lived_in(evaluated(Mixed())), 3, 9, 8, like=torch.float64)


def test_the_best_picture_of_one_filter_is_white_where_it_is_positive_and_black_where_negative() -> None:
    """The sigmoid reaches 0 and 1 but in the limit: after some hundred steps to 1e-3. Weight 0 moves no pixel."""
    found = maximize(graph_of(one_filter(), 1, 3, 3), "conv", steps=400, rate=0.2, noise=0.0, **FREE)
    expected = (FILTER.sign() + 1) / 2
    torch.testing.assert_close(found.picture[0, 0], expected, atol=1e-3, rtol=0)
    assert float(found.activation) == pytest.approx(float(FILTER.clamp(min=0).sum()), abs=1e-2)
    assert float(found.course[0, 0]) == pytest.approx(float(FILTER.sum()) / 2)  # of plain grey


def test_the_best_picture_with_a_penalty() -> None:
    """d/dp (Σ w p − λ/9 Σ (p − ½)²) = 0 at p = ½ + 9 w / 2λ."""
    found = maximize(
        graph_of(one_filter(), 1, 3, 3), steps=600, parametrization=Pixels(), regularizers=[L2(weight=40.0)]
    )
    torch.testing.assert_close(found.picture[0, 0], 0.5 + 9 * FILTER / 80, atol=1e-3, rtol=0)


def test_a_chosen_position_sees_its_patch_alone() -> None:
    found = maximize(graph_of(one_filter(), 1, 6, 5), "conv", position=(2, 1), steps=400, rate=0.2, noise=0.0, **FREE)
    expected = torch.full((6, 5), 0.5)
    expected[2:5, 1:4] = (FILTER.sign() + 1) / 2
    torch.testing.assert_close(found.picture[0, 0], expected, atol=3e-3, rtol=0)


def test_waves_reach_the_same_optimum_as_pixels() -> None:
    """Both can make every picture, and the sum is concave in none but has one best corner: to 2 % of it."""
    best = float(FILTER.clamp(min=0).sum())
    found = maximize(graph_of(one_filter(), 1, 3, 3), steps=600, parametrization=Fourier(), regularizers=())
    assert float(found.activation) == pytest.approx(best, rel=0.02)


def test_the_start_is_the_mean_image() -> None:
    net = nn.Conv2d(3, 1, 2)
    found = maximize(graph_of(net, 3, 4, 5), normalize=(MEAN, DEVIATION), steps=1, rate=1e-9, noise=0.0)
    torch.testing.assert_close(found.picture, torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 4, 5))
    assert net.bias is not None
    torch.testing.assert_close(
        found.activation, net.bias.detach(), atol=1e-6, rtol=0
    )  # the mean image is normalised to 0
    grey = maximize(graph_of(net, 3, 4, 5), steps=1, rate=1e-9, noise=0.0)
    torch.testing.assert_close(grey.picture, torch.full((1, 3, 4, 5), 0.5))


def test_a_silent_rectifier_is_woken() -> None:
    """The bias keeps the ReLU at 0 on the way; the gradient of what enters it leads out."""
    graph = graph_of(one_filter(nn.ReLU(), bias=-4.0), 1, 3, 3)
    found = maximize(graph, "after", steps=400, rate=0.2, **FREE)
    assert float(found.course[0, 0]) == 0
    assert float(found.activation) == pytest.approx(float(FILTER.clamp(min=0).sum()) - 4, abs=1e-2)


@pytest.mark.parametrize("layer", ["residual.relu", "branches.grouped", "dilated", "gelu", "pool", "fc"])
def test_far_above_noise_and_what_the_picture_says(graph: TracedGraph, layer: str) -> None:
    """The activation is that of the picture, worked out anew; and no image of a thousand comes near."""
    found = maximize(graph, layer, normalize=(MEAN, DEVIATION), regularizers=(), rate=0.1)
    mean, deviation = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, DEVIATION))

    def activations(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            values = graph.run((pictures - mean) / deviation, [layer])[layer]
        return values.flatten(2).mean(2) if values.ndim == 4 else values

    torch.testing.assert_close(activations(found.picture).diagonal(), found.activation)
    noise = torch.rand(1000, 3, 9, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    seen = activations(noise)
    assert (found.activation > seen.mean(0) + 3 * seen.std(0)).all()
    assert ((found.picture >= 0) & (found.picture <= 1)).all()


@pytest.mark.parametrize("pieces", [None, [Jitter(2), Blur(0.7), TotalVariation(0.1), L2(0.1)]])
def test_a_batch_of_units_equals_units_one_by_one(graph: TracedGraph, pieces: Any) -> None:
    """A convolution may round otherwise for another size of batch, and each step builds on the last: to 1e-9 in float64."""
    batch = maximize(graph, "fc", [3, 0, 3], steps=40, regularizers=pieces)
    for i, unit in enumerate(batch.units):
        single = maximize(graph, "fc", unit, steps=40, regularizers=pieces)
        torch.testing.assert_close(single.picture[0], batch.picture[i], atol=1e-9, rtol=0)
        torch.testing.assert_close(single.course[0], batch.course[i], atol=1e-9, rtol=0)
    portioned = maximize(graph, "fc", [3, 0, 3], steps=40, regularizers=pieces, max_memory=1)
    torch.testing.assert_close(portioned.picture, batch.picture, atol=1e-9, rtol=0)


def test_the_seed_alone_decides(graph: TracedGraph) -> None:
    torch.manual_seed(1)
    first = maximize(graph, "dilated", [0, 1], steps=5, seed=7)
    torch.manual_seed(2)
    again = maximize(graph, "dilated", [0, 1], steps=5, seed=7)
    assert torch.equal(first.picture, again.picture)
    assert torch.equal(first.course, again.course)
    assert not torch.equal(first.picture, maximize(graph, "dilated", [0, 1], steps=5, seed=8).picture)


def test_the_record(graph: TracedGraph) -> None:
    found = maximize(graph, "dilated", [2, 0], steps=6)
    assert (found.layer, found.units) == ("dilated", (2, 0))
    assert (found.picture.shape, found.activation.shape, found.course.shape) == ((2, 3, 9, 8), (2,), (2, 6))
    assert {t.dtype for t in (found.picture, found.activation, found.course)} == {torch.float64}
    assert not any(t.requires_grad for t in (found.picture, found.activation, found.course))
    assert maximize(graph, steps=1).units == tuple(range(5))


def test_half_precision() -> None:
    found = maximize(graph_of(one_filter(), 1, 3, 3, like=torch.bfloat16), steps=50, **FREE)
    assert found.picture.dtype == torch.bfloat16
    assert found.activation > found.course[:, 0]


@pytest.mark.parametrize(
    ("net", "layer", "n_units"), [(Transformer(), "norm", 8), (Mixer(), "up", 8), (Transformer(), None, 10)]
)
def test_tokens_and_positions_last(net: nn.Module, layer: str | None, n_units: int) -> None:
    found = maximize(graph_of(net, 3, 8, 8), layer, steps=10)
    assert len(found.picture) == n_units
    assert (found.activation > found.course[:, 0]).all()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off(graph: TracedGraph, context: Any) -> None:
    expected = maximize(graph, "dilated", 0, steps=3)
    with context():
        assert torch.equal(maximize(graph, "dilated", 0, steps=3).picture, expected.picture)


def test_only_as_deep_as_needed() -> None:
    class Shallow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv2(self.conv1(x))

    net = Shallow()
    graph = graph_of(net, 1, 8, 8)
    net.conv2 = nn.Identity()  # type: ignore[assignment]
    assert maximize(graph, "conv1", steps=2).picture.shape == (2, 1, 8, 8)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"layer": "conv9"}, UnknownNameError, "layer 'conv9' is not in this network"),
        ({"layer": "dilated", "units": [0, 4]}, RequestError, "unit 4 is not in layer 'dilated'; it has 0 to 3"),
        ({"layer": "dilated", "position": (5, 0)}, RequestError, "is not on the map of 'dilated'; it has 5 rows and 4 columns"),
        ({"layer": "fc", "position": (0, 0)}, RequestError, "layer 'fc' has no positions; leave it out"),
        ({"normalize": ((0.5,), (0.5,))}, RequestError, "a positive deviation for each of 3 channels"),
        ({"normalize": (MEAN, (1.0, 0.0, 1.0))}, RequestError, "a positive deviation for each of 3 channels"),
        ({"steps": 0}, SettingError, "^steps: 0; expected"),
        ({"steps": 2.5}, SettingError, "^steps: 2.5; expected a whole number above 0"),
        ({"rate": "0.1"}, SettingError, "^rate: '0.1'; expected"),
        ({"noise": None}, SettingError, "^noise: None; expected"),
        ({"seed": 0.5}, SettingError, "^seed: 0.5; expected"),
        ({"rate": float("nan")}, SettingError, "^rate: nan; expected"),
        ({"noise": -1.0}, SettingError, "^noise: -1.0; expected"),
        ({"max_memory": 0}, RequestError, "max_memory: 0 bytes"),
    ],
)  # fmt: skip
def test_wrong_requests_leave_everything_as_it_was(
    graph: TracedGraph, asked: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = state(graph.net)
    with pytest.raises(error, match=message) as caught:
        maximize(graph, **asked)
    assert "\n" not in str(caught.value)
    assert state(graph.net) == before


def test_a_layer_without_a_way_to_the_image() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv((x > 0.5).to(x.dtype))

    with pytest.raises(RequestError, match="no gradient leads from layer 'conv' to the image"):
        maximize(graph_of(Cut(), 1, 4, 4), regularizers=())


def test_a_network_that_gives_no_numbers() -> None:
    with pytest.raises(FailedError, match="bias' holds NaN or infinity"):
        maximize(graph_of(one_filter(bias=float("nan")), 1, 3, 3), steps=2)
    net = one_filter()
    for weights in net.parameters():
        weights.data.fill_(3e38)  # finite, and their sum is not
    with pytest.raises(FailedError, match="layer 'conv' gives activations that are infinite or not a number"):
        maximize(graph_of(net, 1, 3, 3), steps=2)


def test_the_network_is_left_as_it_was(graph: TracedGraph) -> None:
    before = state(graph.net)
    maximize(graph, "residual.relu", steps=3)
    assert state(graph.net) == before


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_a_crash_on_the_way_leaves_everything_as_it_was(
    graph: TracedGraph, error: type[BaseException], share: float
) -> None:
    with Failing() as counting:
        maximize(graph, "fc", steps=3)
    before = state(graph.net)
    with pytest.raises(error), Failing(error, at=max(1, int(share * counting.calls))):
        maximize(graph, "fc", steps=3)
    assert state(graph.net) == before


@pytest.mark.parametrize("rectifier", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0, 6)])
def test_a_silent_unit_is_woken_whatever_its_rectifier(rectifier: nn.Module) -> None:
    """Its bias holds the unit at zero for the whole start; without a way out the activation would stay there."""
    layer = nn.Conv2d(1, 1, 3)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(-6.0)
    graph = trace(nn.Sequential(layer, rectifier).eval(), torch.zeros(1, 1, 8, 8))
    found = maximize(graph, "1", [0], noise=0)
    assert found.course[0, 0] == 0
    assert found.activation[0] > 1


@on_gpu
def test_on_a_gpu_as_on_the_cpu(graph: TracedGraph) -> None:
    """Five steps of Adam, which divides by the size of the gradient and so turns rounding of tiny ones into more: 1e-6."""
    settings: dict[str, Any] = {
        "units": [0, 2],
        "steps": 5,
        "regularizers": [Jitter(1), Blur(0.5), L2(0.1), TotalVariation(0.1)],
    }
    net = deepcopy(graph.net)
    here = maximize(graph, "dilated", **settings)
    there = maximize(
        trace(net.to(CUDA), torch.zeros(1, 3, 9, 8, dtype=torch.float64, device=CUDA)), "dilated", **settings
    )
    for name in ("picture", "activation", "course"):
        assert_near(getattr(there, name), getattr(here, name), 1e-6)
