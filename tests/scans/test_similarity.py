"""Linear CKA against the equation, and its invariances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import RequestError
from convscope.scans import layer_similarity, linear_cka
from convscope.scope import Scope


def by_features(x: Tensor, y: Tensor) -> float:
    """Equation 4 as it stands, over features."""
    x, y = (one.flatten(1).double() - one.flatten(1).double().mean(0) for one in (x, y))
    return float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


def test_it_is_the_papers_equation() -> None:
    torch.manual_seed(0)
    for _ in range(5):
        x, y = torch.randn(20, 7), torch.randn(20, 3, 2, 2)
        assert linear_cka(x, y) == pytest.approx(by_features(x, y), rel=1e-10)


def test_a_rotation_a_factor_and_a_shift_change_nothing() -> None:
    torch.manual_seed(1)
    x = torch.randn(30, 6)
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-6)
    assert linear_cka(x, torch.ones(30, 4)) == 0


def test_layers_of_two_networks() -> None:
    torch.manual_seed(2)
    nets = [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 3))
        for _ in range(2)
    ]
    images = torch.rand(11, 3, 8, 8)
    first, second = (Scope(net, images) for net in nets)
    found = layer_similarity(first, second, images, {"first": ["0", "2"], "second": ["0", "1", "2"]}, at_once=4)
    a, b = first.activations(images, ["0", "2"]), second.activations(images, ["0", "1", "2"])
    expected = [[by_features(x, y) for y in b.values()] for x in a.values()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    own = layer_similarity(first, first, images, {"first": ["0"], "second": ["0"]})
    assert float(own) == pytest.approx(1)


def test_two_images_are_too_few() -> None:
    scope = Scope(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3)), torch.zeros(1, 3, 8, 8))
    with pytest.raises(RequestError, match="3 or more"):
        layer_similarity(scope, scope, torch.rand(2, 3, 8, 8), {"first": ["0"], "second": ["0"]})
