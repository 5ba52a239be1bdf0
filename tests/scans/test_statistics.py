"""Statistics against brute force over stored activations, answers by hand, and planted truths."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convscope.data import ImageSet
from convscope.errors import RequestError
from convscope.graph import relu_after, trace
from convscope.scans import EDGES, LayerStatistics
from convscope.scans.moments import Moments
from convscope.scans.statistics import ALIKE, histogram
from convscope.scope import Scope
from tests.graph.graph_networks import Hierarchical
from tests.scans.scan_networks import make_images, make_scope


def check_pairs(record: LayerStatistics, units: Tensor, maps: Tensor, least: float) -> None:
    """The correlations of all pairs, and the pairs that the record holds, are NumPy's."""
    expected = units.corrcoef()
    moments = Moments(len(units), products=True)
    moments.update(maps.float())
    found = moments.correlation(constant=units.amin(1) == units.amax(1))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)
    rows, columns = (expected.triu(1) >= least).nonzero().unbind(1)
    assert record.pairs.tolist() == torch.stack([rows, columns], 1).tolist()
    torch.testing.assert_close(record.correlation.double(), expected[rows, columns], rtol=0, atol=2e-6)


def test_brute_force() -> None:
    scope, images = make_scope(), make_images()
    found = scope.statistics(images, ["conv*"], batch_size=8)
    labels = images.targets_of()
    for layer, relu in (("conv1", "relu1"), ("conv2", "relu2")):
        maps, rectified = (scope.activations(images.images(), [n])[n].double() for n in (layer, relu))
        record, units = found[layer], maps.transpose(0, 1).flatten(1)
        # float32 sums of some thousand terms about the mean, and the maps of another batch size: 1e-6 of the deviation
        torch.testing.assert_close(record.mean, units.mean(1), rtol=0, atol=1e-6)
        torch.testing.assert_close(record.deviation, units.std(1, correction=0), rtol=2e-6, atol=1e-6)
        check_pairs(record, units, maps.flatten(2), least=ALIKE)
        torch.testing.assert_close(record.low, units.amin(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(record.high, units.amax(1), rtol=1e-6, atol=1e-6)
        assert record.histogram.sum(1).tolist() == [units.shape[1]] * len(units)
        assert record.zeros.tolist() == pytest.approx((rectified == 0).double().mean((0, 2, 3)).tolist())
        assert record.peak.tolist() == pytest.approx(rectified.amax((0, 2, 3)).tolist(), rel=1e-6)
        means = torch.stack([rectified[labels == k].mean((0, 2, 3)) for k in range(3)], 1)
        torch.testing.assert_close(record.class_means, means, rtol=1e-6, atol=1e-7)
        best = means.amax(1)
        others = (means.sum(1) - best) / 2
        selectivity = ((best - others) / (best + others)).nan_to_num(0.0)
        torch.testing.assert_close(record.selectivity, selectivity, rtol=0, atol=1e-5)
        whole = record.whole
        assert (whole["mean"], whole["deviation"]) == pytest.approx(
            (float(maps.mean()), float(maps.std(correction=0))), rel=1e-6
        )


def test_positions_of_a_hierarchical_transformer() -> None:
    """Units come last there; all positions of each are counted, also those of shifted windows."""
    images = torch.rand(10, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    scope = Scope(Hierarchical(), torch.zeros(1, 3, 16, 24))
    found = scope.statistics(images, ["block1.add", "block2.roll", "norm"], batch_size=4)
    for layer, size in (("block1.add", 8 * 12), ("block2.roll", 8 * 12), ("norm", 4 * 6)):
        units = scope.activations(images, [layer])[layer].double().flatten(0, 2).T
        assert found[layer].histogram.sum(1).tolist() == [10 * size] * len(units)
        torch.testing.assert_close(found[layer].mean, units.mean(1), rtol=0, atol=1e-6)
        check_pairs(found[layer], units, units[None], least=ALIKE)


def test_planted_truths() -> None:
    """Of conv1, unit 2 is dead, unit 5 always on, unit 4 a copy of unit 1."""
    found = make_scope().statistics(make_images(), "conv1")["conv1"]
    assert found.dead.nonzero()[:, 0].tolist() == [2]
    assert float(found.high[2]) > 0  # before batch norm it looks alive
    assert found.saturated.nonzero()[:, 0].tolist() == [5]
    assert found.duplicates(0.999) == [(1, 4, pytest.approx(1, abs=1e-6))]
    assert (float(found.selectivity[2]), int(found.best_class[2]), float(found.zeros[2])) == (0.0, -1, 1.0)
    table = found.table()
    assert list(table["dead"]) == [False, False, True, False, False, False]
    assert len(table) == 6


def test_a_class_routed_through_one_filter() -> None:
    """Only images of class 1 are red, and unit 0 sees red alone: selectivity 1; unit 1 sees all alike: 0."""
    net = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 2, 1), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())
    )
    with torch.no_grad():
        net.conv.weight.zero_()
        net.conv.weight[0, 0] = 1.0
        net.conv.bias[:] = torch.tensor([0.0, 1.0])
    pixels = torch.zeros(6, 3, 4, 5, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    pixels[labels == 1, 0] = 255
    images = ImageSet(pixels, torch.arange(6), {"class": labels}, {"class": ("a", "b", "c", "never")})
    found = Scope(net, torch.zeros(1, 3, 4, 5)).statistics(images, ["conv"])["conv"]
    assert found.class_means[:, :3].tolist() == [[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    assert found.class_means[:, 3].isnan().all()
    assert found.selectivity.tolist() == [1.0, 0.0]
    assert found.best_class.tolist() == [1, 0]
    assert found.deviation.tolist() == [pytest.approx((1 / 3 * 2 / 3) ** 0.5), 0.0]
    assert found.pairs.tolist() == []  # unit 1 is constant


def test_a_mean_far_from_zero_costs_no_digits_of_the_deviation() -> None:
    """10,000 ± 0.3: squares of float32 would leave no digit of the variance; the numbers themselves are rounded to 0.001."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        net[0].weight[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
        net[0].bias[:] = 10_000.0
    images = torch.rand(64, 1, 8, 7, generator=torch.Generator().manual_seed(0))
    found = Scope(net, torch.zeros(1, 1, 8, 7)).statistics(images, ["conv"], batch_size=16)["0"]
    assert found.deviation.tolist() == pytest.approx([float(images.std(correction=0))] * 2, rel=1e-3)
    moments = Moments(2, products=True)
    moments.update(Scope(net, torch.zeros(1, 1, 8, 7)).activations(images, ["0"])["0"].flatten(2))
    correlation = moments.correlation(torch.tensor([False, False]))
    assert float(correlation[0, 1]) == pytest.approx(-1, abs=1e-4)


def test_the_histogram_is_numpys() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 3, 400, generator=generator) * 2.0 ** torch.randint(
        -20, 20, (5, 3, 400), generator=generator
    )
    values[0, :, :4] = torch.tensor([0.0, -0.0, 1e-40, -1e-40])
    found = histogram(values)
    for unit in range(3):
        of_unit = values[:, unit].numpy().ravel()
        expected, _ = np.histogram(of_unit, EDGES.numpy())
        assert found[unit].tolist() == expected.tolist()  # none of these lies on an edge but 0


def test_a_number_on_an_edge_belongs_to_the_bin_farther_from_zero() -> None:
    inner = EDGES[1:-1]
    found = histogram(inner.view(1, 1, -1))[0]
    zero = len(found) // 2
    assert found[zero] == 0
    assert (torch.cat([found[:zero], found[zero + 1 :]]) == 1).all()
    assert EDGES[zero + 1 : zero + 6].tolist() == [2.0**-12 * step for step in (1, 1.25, 1.5, 1.75, 2)]


def test_without_classes_and_without_correlations() -> None:
    found = make_scope().statistics(make_images().images(), ["conv2", "fc"], correlations=False)
    record = found["conv2"]
    assert (record.class_means, record.selectivity, record.best_class, record.pairs) == (None, None, None, None)
    assert record.correlation is None
    with_them = make_scope().statistics(make_images().images(), ["conv2"])["conv2"]
    torch.testing.assert_close(record.deviation, with_them.deviation, rtol=1e-6, atol=0)
    with pytest.raises(RequestError, match="scan again with correlations=True"):
        record.duplicates()
    for least in (1.5, 0.79, 0):
        with pytest.raises(RequestError, match=rf"least: {least} is no correlation that is recorded; .* 0\.8 to 1"):
            with_them.duplicates(least)
    assert found["fc"].rectified is None


def test_without_a_relu_no_unit_is_dead_or_always_on() -> None:
    """As of a linear convolution before a sum: what is below 0 everywhere is read like anything else."""
    net = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 1), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))
    with torch.no_grad():
        net.conv.weight[:, 0, 0, 0], net.conv.bias[:] = torch.tensor([1.0, -1.0]), torch.tensor([0.5, -0.5])
    images = torch.rand(6, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    found = Scope(net, torch.zeros(1, 1, 4, 5)).statistics(images, ["conv"])["conv"]
    assert (found.zeros.tolist(), found.rectified) == ([0.0, 1.0], None)
    assert not found.dead.any()
    assert not found.saturated.any()


def test_the_relu_that_follows() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))
            self.norm, self.drop, self.six = nn.BatchNorm2d(3), nn.Dropout2d(), nn.ReLU6()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.six(self.drop(self.norm(self.a(x))))
            return torch.relu(self.b(x) + x) + self.c(x).clamp(min=0) + torch.tanh(x)

    graph = trace(Joined(), torch.zeros(1, 3, 4, 5))
    assert [relu_after(graph, name) for name in ("a", "norm", "six", "b", "c")] == ["six", "six", "six", None, "clamp"]
