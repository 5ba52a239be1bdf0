"""Muon against its definition by singular values, and its other half against PyTorch's AdamW."""

import pytest
import torch
from torch import Tensor, nn

from convscope.runs import Recipe
from convscope.training import make_optimizer
from convscope.training.optimizers import Muon, orthogonal


def _by_singular_values(matrix: Tensor) -> Tensor:
    """U·p(S)·Vᵀ: the quintic of the singular values, five times, in doubles."""
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vt


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (5, 5), (64, 576)])
def test_the_update_is_orthogonal_as_the_quintic_makes_it(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ours = orthogonal(matrix)
    torch.testing.assert_close(ours.double(), _by_singular_values(matrix), atol=1e-4, rtol=1e-4)
    values = torch.linalg.svdvals(ours)
    assert values.min() > 0.3
    assert values.max() < 1.3


@pytest.mark.parametrize("smallest", [-3, -7])
def test_singular_values_that_differ_by_orders_of_magnitude_come_out_right(smallest: int) -> None:
    generator = torch.Generator().manual_seed(6)
    u, _, vt = torch.linalg.svd(torch.randn(64, 216, generator=generator), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(0, smallest, 64)) @ vt
    torch.testing.assert_close(orthogonal(matrix).double(), _by_singular_values(matrix), atol=1e-3, rtol=0)


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_of_a_matrix_are_those_of_pytorchs_muon(nesterov: bool) -> None:
    """PyTorch's computes in bf16: its steps are ours to about a hundredth."""
    generator = torch.Generator().manual_seed(2)
    first = torch.randn(12, 30, generator=generator)
    ours, theirs = nn.Parameter(first.clone()), nn.Parameter(first.clone())
    group = {"params": [ours], "matrices": True, "weight_decay": 0.1}
    optimizers = (
        Muon([group], lr=0.05, momentum=0.9, nesterov=nesterov),
        torch.optim.Muon([theirs], lr=0.05, momentum=0.9, nesterov=nesterov, weight_decay=0.1),
    )
    for _ in range(3):
        gradient = torch.randn(12, 30, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved, apart = (ours - first).norm(), (ours - theirs).norm()
    assert apart < 0.02 * moved


def test_filters_step_as_the_matrix_of_their_rows() -> None:
    generator = torch.Generator().manual_seed(3)
    filters, gradient = torch.randn(8, 3, 3, 3, generator=generator), torch.randn(8, 3, 3, 3, generator=generator)
    bank = nn.Parameter(filters.clone(memory_format=torch.channels_last))
    flat = nn.Parameter(filters.flatten(1).clone())
    for parameter, given in ((bank, gradient), (flat, gradient.flatten(1))):
        parameter.grad = given.clone()
        Muon(
            [{"params": [parameter], "matrices": True, "weight_decay": 0.0}], lr=0.1, momentum=0.9, nesterov=True
        ).step()
    torch.testing.assert_close(bank.flatten(1), flat)


def test_all_else_steps_as_adamw() -> None:
    generator = torch.Generator().manual_seed(4)
    first = torch.randn(7, generator=generator)
    ours, theirs = nn.Parameter(first.clone()), nn.Parameter(first.clone())
    group = {"params": [ours], "matrices": False, "weight_decay": 0.1}
    optimizers = (
        Muon([group], lr=0.01, momentum=0.95, nesterov=True),
        torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1),
    )
    for _ in range(5):
        gradient = torch.randn(7, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_which_parameters_are_matrices_and_at_which_rates() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    recipe = Recipe(optimizer="muon", rate=0.02, adam_rate=0.005, weight_decay=0.1)
    groups = make_optimizer(net, recipe, {net[5].weight: 0.5}).param_groups
    found = {
        id(parameter): (group["matrices"], group["weight_decay"], group["share"] * recipe.rate)
        for group in groups
        for parameter in group["params"]
    }
    expected = {
        net[0].weight: (True, 0.1, 0.02), net[3].weight: (True, 0.1, 0.02), net[5].weight: (False, 0.1, 0.0025),
        **dict.fromkeys([net[0].bias, net[1].weight, net[1].bias, net[3].bias, net[5].bias], (False, 0.0, 0.005)),
    }  # fmt: skip
    assert {id(parameter): pytest.approx(values) for parameter, values in expected.items()} == found


def test_where_the_output_layer_does_not_learn_all_else_takes_orthogonal_steps() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    net[2].requires_grad_(False)
    groups = make_optimizer(net, Recipe(optimizer="muon")).param_groups
    assert [group["params"] for group in groups if group["matrices"]] == [[net[0].weight]]
