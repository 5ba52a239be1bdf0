"""The randomization check: ranks against SciPy, what is drawn anew at each step, lenses that do and do not depend."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from convscope.errors import FailedError, RequestError, SettingError, UnknownNameError
from convscope.graph import trace
from convscope.scans import Questions, Randomization, RandomizationCheck
from convscope.scans.randomization import _cascade, randomize, rank_correlation, strength
from convscope.scope import Scope
from tests.graph.graph_networks import Transformer
from tests.lenses.lens_networks import Mixed, evaluated, lived_in, state
from tests.lenses.test_properties import Failing

SHAPE = (3, 9, 8)


def pictures(n: int = 4, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def scope() -> Scope:
    return Scope(lived_in(evaluated(Mixed().double())), torch.zeros(1, *SHAPE))


@pytest.mark.parametrize("values", [2, 5, 1000], ids=lambda n: f"{n} values")
def test_rank_correlation_is_scipys(values: int) -> None:
    """With ties where there are few values; to 1e-12, for float64 sums in another order."""
    generator = torch.Generator().manual_seed(values)
    first, second = torch.randint(0, values, (2, 6, 90), generator=generator).float()
    expected = [spearmanr(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    assert rank_correlation(first, second).tolist() == pytest.approx(expected, abs=1e-12)


def test_rank_correlation_by_hand() -> None:
    first = torch.tensor([[1.0, 2, 3]] * 3 + [[5.0, 5, 5]])
    second = torch.tensor([[10.0, 20, 300], [3, 2, 1], [7, 7, 7], [1, 2, 3]])
    found = rank_correlation(first, second).tolist()
    assert found[:3] == pytest.approx([1, -1, 0])
    assert np.isnan(found[3])


def test_the_strength_of_a_map() -> None:
    values = torch.tensor([[[[1.0, -3.0]], [[-2.0, 1.0]]]])
    assert strength(values).tolist() == [[2, 3]]
    assert strength(values[:, 0]).tolist() == [[1, 3]]


def stack() -> nn.Sequential:
    layers = OrderedDict(
        norm=nn.BatchNorm2d(3),
        conv1=nn.Conv2d(3, 4, 3),
        bn1=nn.BatchNorm2d(4),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(4, 5, 3, bias=False),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
        fc1=nn.Linear(5 * 5 * 4, 6),
    )
    return nn.Sequential(layers)


def test_the_order_of_the_layers_and_what_goes_with_each() -> None:
    """A norm goes with the layer it follows; one before all layers stays."""
    graph = trace(stack(), torch.zeros(1, *SHAPE))
    assert _cascade(graph, None) == {
        "fc1": ["fc1.weight", "fc1.bias"],
        "conv2": ["conv2.weight"],
        "conv1": ["conv1.weight", "conv1.bias", "bn1.weight", "bn1.bias"],
    }
    assert _cascade(graph, ["conv2", "relu*"]) == {"conv2": ["conv2.weight", "fc1.weight", "fc1.bias"]}


def test_a_norm_of_whole_maps_has_no_filters() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 6, 5]), nn.ReLU(), nn.Flatten(), nn.Linear(120, 2))
    assert _cascade(trace(net, torch.zeros(1, 3, 8, 7)), None) == {
        "4": ["4.weight", "4.bias"],
        "0": ["0.weight", "0.bias", "1.weight", "1.bias"],
    }


def test_the_layers_of_a_transformer() -> None:
    """Its class token, positions and norms go with the layers they follow."""
    steps = _cascade(trace(Transformer(), torch.zeros(1, 3, 16, 12)), None)
    assert list(steps) == ["head", "attention.dense_2", "attention.dense", "patches"]
    named = {name for name, _ in Transformer().named_parameters()}
    assert {path for paths in steps.values() for path in paths} == named


def test_weights_become_random_from_the_top_and_stay_so() -> None:
    net = evaluated(stack().double())
    scope, seen = Scope(net, torch.zeros(1, *SHAPE)), []

    def lens(scope: Scope, images: Tensor, target: Tensor) -> Tensor:
        seen.append({name: value.clone() for name, value in scope.net.state_dict().items()})
        assert torch.equal(target, torch.tensor([2, 2]))
        return images

    found = scope.randomization_check(lens, pictures(2), 2)
    assert found.layers == ["fc1", "conv2", "conv1"]
    changed = [{k.split(".")[0] for k in before if not torch.equal(before[k], seen[0][k])} for before in seen]
    assert changed == [set(), {"fc1"}, {"fc1", "conv2"}, {"fc1", "conv2", "conv1", "bn1"}]
    for name in ("fc1.weight", "fc1.bias", "conv2.weight"):
        assert torch.equal(seen[-1][name], seen[2][name])
    assert float(seen[1]["fc1.weight"].abs().max()) <= 0.1  # as nn.Linear draws them: ±1/√100
    assert torch.equal(seen[-1]["bn1.running_mean"], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(seen[0]["conv1.weight"], net.conv1.weight)


def test_layers_of_one_shape_are_drawn_apart() -> None:
    """Equal draws would leave a network of equal layers, whose maps say less than random weights should."""
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.Flatten(), nn.Linear(60, 2))
    scope, drawn = Scope(net.double().eval(), torch.zeros(1, *SHAPE)), []

    def lens(scope: Scope, images: Tensor, target: Tensor) -> Tensor:
        drawn[:] = [scope.net[0].weight.clone(), scope.net[2].weight.clone()]
        return images

    scope.randomization_check(lens, pictures(1), 0)
    first, second = drawn
    assert not torch.equal(first, net[0].weight)
    assert not torch.equal(second, net[2].weight)
    assert not torch.equal(first, second)


class Bare(nn.Module):
    """Weights of its own, with another module inside, and a reset that would reach that too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 2, 3)
        self.weight = nn.Parameter(torch.arange(12.0).view(3, 4))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.inner.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).mean((2, 3)) @ self.weight[:2]


def test_a_parameter_nobody_resets_is_shuffled() -> None:
    net, twin = Bare(), Bare()
    inner, before = net.inner.weight.detach().clone(), torch.get_rng_state()
    randomize(net, ["weight"], (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(net.weight.flatten().tolist()) == list(range(12))
    assert net.weight.flatten().tolist() != list(range(12))
    assert torch.equal(net.inner.weight, inner)
    randomize(twin, ["weight"], (0, 1))
    assert torch.equal(twin.weight, net.weight)
    randomize(twin, ["weight"], (0, 2))
    assert not torch.equal(twin.weight, net.weight)


def test_a_lens_that_does_not_look_at_the_network() -> None:
    """An edge detector: the same map whatever the weights."""
    scope = Scope(evaluated(stack()), torch.zeros(1, *SHAPE))
    found = scope.randomization_check(lambda s, x, t: x.diff(dim=3), pictures(5))
    assert torch.equal(found.similarity, torch.ones(5, 3, dtype=torch.float64))
    assert found.verdict == (
        "<lambda> hardly depends on the weights of fc1 to conv1, 3 of 3 layers: rank correlation 1.00 (95 % 1.00 to "
        "1.00) with those random"
    )


def spearman(own: np.ndarray, other: np.ndarray) -> float:
    return float(spearmanr(own, other).statistic) if np.ptp(other) else 0.0


def test_similarities_are_those_of_maps_taken_one_by_one(scope: Scope) -> None:
    images, maps = pictures(), []

    def keeping(scope: Scope, images: Tensor, target: Tensor) -> Tensor:
        maps.append(scope.saliency(images, target).values)
        return maps[-1]

    found = scope.randomization_check("saliency", images)
    assert torch.equal(scope.randomization_check(keeping, images).similarity, found.similarity)
    own, *others = [m.abs().amax(1).flatten(1).numpy() for m in maps]
    expected = [[spearman(own[i], other[i]) for other in others] for i in range(4)]
    torch.testing.assert_close(found.similarity, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert found.similarities["fc"].value == pytest.approx(np.mean(expected, axis=0)[0])


@pytest.mark.parametrize("seed", range(3))
def test_guided_backprop_stays_where_the_gradient_changes(seed: int) -> None:
    """Adebayo et al., figure 2, on drawn squares: the upper three of six layers random.

    Over seeds 0 to 19 the lower limits of guided backprop were 0.59 to 0.71, the upper ones of the gradient 0.15 to
    0.25.
    """
    torch.manual_seed(seed)
    sides = (3, 16, 16, 16, 16)
    convs = [m for i, o in pairwise(sides) for m in (nn.Conv2d(i, o, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(*convs, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1280, 32), nn.ReLU(), nn.Linear(32, 5))
    images = torch.rand(12, 3, 16, 20) * 0.2
    for i, image in enumerate(images):
        image[:, i : i + 4, 3:9] = 0.9
    scope = Scope(net, torch.zeros(1, 3, 16, 20), normalize=((0.3,) * 3, (0.25,) * 3))
    guided, plain = (scope.randomization_check(lens, images, seed=seed) for lens in ("guided_backprop", "saliency"))
    third = guided.layers[2]
    assert guided.similarities[third].low > 0.5
    assert plain.similarities[third].high < 0.35
    assert plain.verdict.startswith("saliency depends on the weights")


def make(scope: Scope) -> Randomization:
    return Randomization(scope.graph, scope._look("saliency", {}), lambda: scope._copied("saliency", {}), "saliency")


def test_every_order_of_merging_gives_the_same_bytes(scope: Scope) -> None:
    images, targets = pictures(), torch.tensor([1, 0, 4, 2])
    parts = [make(scope) for _ in range(3)]
    for part, rows in zip(parts, ([2], [0, 3], [1]), strict=True):
        part.update(Questions(torch.tensor(rows), images[rows], targets[rows]))
    found = []
    for order in permutations(parts):
        merged = make(scope)
        for part in order:
            merged.merge(part)
        found.append(merged.result())
    assert len({result.similarity.numpy().tobytes() for result in found}) == 1
    whole = scope.randomization_check("saliency", images, targets)
    torch.testing.assert_close(found[0].similarity, whole.similarity, rtol=0, atol=1e-12)  # maps in other batches
    assert torch.equal(found[0].target, whole.target)


def check(*columns: list[float]) -> RandomizationCheck:
    similarity = torch.tensor(columns, dtype=torch.float64).T
    n, layers = similarity.shape
    return RandomizationCheck("a lens", list("abc"[:layers]), torch.arange(n), torch.zeros(n).long(), similarity)


def test_the_verdict_says_what_the_intervals_carry() -> None:
    high, low, wide = [0.9, 0.91, 0.92], [0.1, 0.12, 0.11], [0.1, 0.5, 0.9]
    assert check(high, low).verdict == (
        "a lens hardly depends on the weights of a: rank correlation 0.91 (95 % 0.89 to 0.93) with those random"
    )
    assert check(high, high, wide).verdict.startswith("a lens hardly depends on the weights of a to b, 2 of 3 layers")
    assert check(wide, low).verdict == (
        "a lens depends on the weights: rank correlation 0.11 (95 % 0.09 to 0.13) with all down to b random"
    )
    assert "rank correlation 0.00 (95 % -0.25 to 0.25)" in check(wide, [-0.1, 0.099, 0.0]).verdict  # not -0.00
    assert check(wide, high, wide).verdict is None
    assert check([0.9], [0.1]).verdict is None  # one image: no interval


def test_images_whose_own_map_is_flat_are_left_out() -> None:
    found = check([torch.nan, 0.5, 0.7], [torch.nan, 0.2, 0.2])
    assert found.n == 2
    assert found.similarities["a"].value == pytest.approx(0.6)
    empty = check([torch.nan], [torch.nan])
    assert (empty.n, empty.similarities["b"].value, empty.verdict) == (0, None, None)


def test_wrong_requests(scope: Scope) -> None:
    images, before = pictures(2), state(scope.net)
    with pytest.raises(UnknownNameError, match="layer 'conv9' is not in this network"):
        scope.randomization_check("grad_cam", images, layers=["conv9"])
    with pytest.raises(RequestError, match="layers 'gelu': there are no filters to randomize"):
        scope.randomization_check("saliency", images, layers=["gelu"])
    with pytest.raises(SettingError, match="seed: -2"):
        scope.randomization_check("saliency", images, seed=-2)
    with pytest.raises(FailedError, match="the lens gives NaN"):
        scope.randomization_check(lambda s, x, t: x / 0 * 0, images)
    assert state(scope.net) == before


def test_everything_is_as_it_was_after_success_and_after_a_crash(scope: Scope) -> None:
    images, before = pictures(2), state(scope.net)
    first = scope.randomization_check("saliency", images)
    with Failing() as counting:  # from the second time on, for a graph's gradient is checked but once
        scope.randomization_check("saliency", images)
    assert state(scope.net) == before
    assert torch.equal(scope.randomization_check("saliency", images).similarity, first.similarity)
    for share in (0.3, 0.7, 1.0):
        with pytest.raises(KeyboardInterrupt), Failing(KeyboardInterrupt, at=int(share * counting.calls)):
            scope.randomization_check("saliency", images)
        assert state(scope.net) == before
