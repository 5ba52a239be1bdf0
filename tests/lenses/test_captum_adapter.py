from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convscope.errors import MissingPackageError, RequestError, SettingError, UnknownNameError
from convscope.graph import trace
from convscope.lenses.captum_adapter import CAPTUM_METHODS, attribute
from tests.graph.graph_networks import Residual, SqueezeExcite, chain
from tests.lenses.lens_networks import ByFunctions, ByModules, evaluated

captum = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks", "ignore:Input Tensor 0 did not already")


def linear() -> nn.Sequential:
    return chain(nn.Conv2d(3, 4, 3, bias=False), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3, bias=False))


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_shap", "lrp"])
def test_on_a_linear_network_it_is_gradient_times_input(method: str) -> None:
    torch.manual_seed(0)  # ε tells where an intermediate result is near 0
    net, images = linear().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = attribute(trace(net, images), images, method, [0, 2])
    expected = captum.InputXGradient(net).attribute(images, torch.tensor([0, 2]))
    torch.testing.assert_close(found.values, expected, rtol=1e-6, atol=1e-7)  # ε of lrp is 1e-9 of unit-sized results
    assert (found.method, found.target.tolist()) == (method, [0, 2])


def test_integrated_gradients_sum_to_the_rise() -> None:
    net, images = evaluated(ByFunctions()).double(), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    graph = trace(net, images)
    baseline = torch.full((1, 3, 8, 8), 0.3, dtype=torch.float64)
    found = attribute(graph, images, "integrated_gradients", baseline=baseline, n_steps=400)
    with torch.no_grad():
        rise = (net(images) - net(baseline)).gather(1, found.target[:, None])[:, 0]
    missed = (found.values.sum((1, 2, 3)) - rise).abs().max()
    assert found.note == f"the values miss the logit's rise over the baseline by at most {float(missed):.2g}"
    assert missed < 0.01 * rise.abs().max()
    peer = captum.IntegratedGradients(net).attribute(images, baseline, found.target, n_steps=400)
    torch.testing.assert_close(found.values, peer)
    small = attribute(graph, images, "integrated_gradients", baseline=baseline, n_steps=400, max_memory=10**6)
    torch.testing.assert_close(small.values, found.values)


def test_smooth_grad_without_noise_is_the_gradient() -> None:
    net, images = evaluated(ByFunctions()), torch.randn(2, 3, 8, 8)
    graph = trace(net, images)
    plain = captum.Saliency(net).attribute(images, 1, abs=False)
    torch.testing.assert_close(attribute(graph, images, "smooth_grad", 1, n_samples=4, noise=0.0).values, plain)
    noisy = [attribute(graph, images, "smooth_grad", 1, n_samples=4, seed=seed).values for seed in (0, 0, 1)]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])


class Unbiased(nn.Module):
    """Two residual blocks of functional sums and a reused in-place ReLU, without any bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.fc = Residual(3, 4, 1), Residual(4, 4, 2), nn.Linear(4, 3)
        for module in self.modules():
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.two(self.one(x)).mean((2, 3)))


def test_relevance_is_conserved_where_captum_alone_is_wrong() -> None:
    """Without biases all relevance arrives at the image, over residual sums and functional parts too."""
    net, images = Unbiased().double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = attribute(trace(net, images), images, "lrp")
    torch.testing.assert_close(found.values.sum((1, 2, 3)), net(images).detach().amax(1), rtol=1e-5, atol=1e-7)


def test_lrp_is_captums_where_that_is_right() -> None:
    net = chain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1))
    net.double()

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).flatten(1)

    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = attribute(trace(Flat(), images), images, "lrp", 2)
    torch.testing.assert_close(found.values, captum.LRP(Flat()).attribute(images.clone(), 2))


def test_relevance_needs_rules() -> None:
    images = torch.zeros(1, 3, 6, 7)
    net = nn.Sequential(SqueezeExcite(), nn.Flatten(), nn.Linear(168, 2))
    with pytest.raises(RequestError, match=r"lrp has no rule for '0\.sigmoid', of kind sigmoid; try integrated_gradi"):
        attribute(trace(net, images), images, "lrp")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("shap", {}, "method 'shap' is not among Captum's; there is integrated_gradients, smooth_grad, gradient_shap, lrp"),
    ("lrp", {"n_steps": 3}, "setting 'n_steps' is not one of lrp; there is epsilon"),
    ("lrp", {"target": 8}, "target: 8 is not a class of this network"),
    ("integrated_gradients", {"baseline": torch.zeros(1, 3, 8, 7)}, "baseline: shape 1×3×8×7; expected 2×3×8×8"),
    ("integrated_gradients", {"baseline": 0}, "baseline: 0; expected an image as a tensor"),
    ("integrated_gradients", {"n_steps": 0}, "n_steps: 0; expected a whole number from 1 up"),
    ("smooth_grad", {"n_samples": 2.5}, r"n_samples: 2\.5; expected a whole number from 1 up"),
    ("smooth_grad", {"noise": -0.1}, r"noise: -0\.1; expected a number from 0 up"),
    ("smooth_grad", {"seed": -1}, "seed: -1; expected a whole number from 0 up"),
    ("smooth_grad", {"seed": None}, "seed: None; expected a whole number from 0 up"),
    ("integrated_gradients", {"max_memory": 2e9}, "max_memory: 2000000000.0 bytes; expected a whole number above 0"),
    ("lrp", {"epsilon": "small"}, "epsilon: 'small'; expected a number from 0 up"),
]


@pytest.mark.usefixtures("annotations_unchecked")
def test_numbers_of_numpy_are_numbers() -> None:
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    graph = trace(ByModules(), images)
    of_numpy: dict[str, Any] = {"n_steps": np.int64(7)}
    own = attribute(graph, images, "integrated_gradients", n_steps=7)
    assert attribute(graph, images, "integrated_gradients", **of_numpy).values.equal(own.values)
    of_numpy = {"noise": np.float32(0.5), "seed": np.int64(3), "n_samples": 2}
    own = attribute(graph, images, "smooth_grad", noise=0.5, seed=3, n_samples=2)
    assert attribute(graph, images, "smooth_grad", **of_numpy).values.equal(own.values)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(("method", "settings", "message"), WRONG)
def test_wrong_requests(method: str, settings: dict[str, Any], message: str) -> None:
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises((RequestError, SettingError, UnknownNameError), match=message):
        attribute(trace(ByModules(), images), images, method, **settings)


def test_captum_is_not_needed_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(MissingPackageError, match="this attribution needs the package 'captum'"):
        attribute(trace(ByModules(), images), images, CAPTUM_METHODS[0])


class Cubes(nn.Module):
    """s = Σ x³ / 3, whose gradient is x²."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) ** 3 / 3).sum(1, keepdim=True)


def test_smooth_grad_adds_noise_of_a_share_of_the_range() -> None:
    """The mean of (x + n)² is x² + σ², with σ the share of the image's range: 0.2 · 4 = 0.8, so that σ² = 0.64."""
    image = torch.tensor([-1.0, 3.0, 0.0, 1.0], dtype=torch.float64).view(1, 1, 2, 2)
    found = attribute(trace(Cubes(), image), image, "smooth_grad", 1, n_samples=20_000, noise=0.2).values
    # its deviation: that of (x + n)² is at most √(4 · 9 · 0.64 + 2 · 0.64²) = 4.9, over √20,000: 0.035; four of them
    torch.testing.assert_close(found, image**2 + 0.64, rtol=0, atol=0.14)


def test_gradient_shap_is_integrated_gradients_at_random_points() -> None:
    """For one baseline b: (x − b) · ∫ (b + t (x − b))² dt = (x³ − b³) / 3, by both."""
    image = torch.tensor([-1.0, 3.0, 0.5, 1.0], dtype=torch.float64).view(1, 1, 2, 2)
    baseline = torch.full_like(image, 0.5)
    graph, expected = trace(Cubes(), image), (image**3 - baseline**3) / 3
    integrated = attribute(graph, image, "integrated_gradients", 1, baseline=baseline, n_steps=50).values
    torch.testing.assert_close(integrated, expected, rtol=1e-6, atol=1e-9)  # exact for squares, but for rounding
    shap = attribute(graph, image, "gradient_shap", 1, baseline=baseline, n_samples=20_000).values
    # 2.5 · (0.5 + 2.5 t)² has a deviation of 6.9 over t, over √20,000: 0.05; four of them
    torch.testing.assert_close(shap, expected, rtol=0, atol=0.2)


def test_the_epsilon_of_lrp_by_hand() -> None:
    """Rᵢ = Σⱼ xᵢ wᵢⱼ Rⱼ / (zⱼ + ε · sign zⱼ) at each layer, from R = z at the last, with ε large enough to show.

    x = (1, 2); z₁ = (1 + 4, 3 − 2) = (5, 1); z₂ = 2 · 5 − 3 · 1 = 7. Shares of the ε are absorbed by both layers.
    """
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        net[3].weight.copy_(torch.tensor([[2.0, -3.0], [0.0, 0.0]]))
    image = torch.tensor([1.0, 2.0], dtype=torch.float64).view(1, 1, 1, 2)
    found = attribute(trace(net, image), image, "lrp", 0, epsilon=0.5).values.flatten().tolist()
    hidden = 2 * 5 / 7.5 * 7, -3 * 1 / 7.5 * 7
    expected = [1 / 5.5 * hidden[0] + 3 / 1.5 * hidden[1], 4 / 5.5 * hidden[0] - 2 / 1.5 * hidden[1]]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.float32, 0), (torch.float16, 1e-9)])
def test_lrp_where_a_layer_gives_zero(dtype: torch.dtype, epsilon: float) -> None:
    """No relevance arrives there, also with an ε of 0 or one that the type rounds to 0."""
    net = chain(nn.Conv2d(3, 4, 3, bias=False), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3, bias=False)).to(dtype)
    images = torch.randn(1, 3, 8, 8).to(dtype)
    images[:, :, :5] = 0
    found = attribute(trace(net, images), images, "lrp", 0, epsilon=epsilon).values
    gradient = captum.InputXGradient(net.float()).attribute(images.float(), 0).detach()
    torch.testing.assert_close(found.float(), gradient, rtol=0, atol=0.01 * float(gradient.abs().max()))
