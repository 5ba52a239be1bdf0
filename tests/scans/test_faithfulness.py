"""Insertion and deletion curves against plain loops, by hand, and against every other order."""

from __future__ import annotations

from itertools import permutations
from math import exp
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import FailedError, RequestError, SettingError, UnknownNameError
from convscope.lenses import Attribution, fill_images
from convscope.scans import Answers, Faithfulness, FaithfulnessCurves, Questions
from convscope.scans.faithfulness import importance
from convscope.scope import Scope
from tests.lenses.lens_networks import Mixed, evaluated, lived_in, state
from tests.lenses.test_properties import Failing

SHAPE = (3, 9, 8)
MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def pictures(n: int = 4, seed: int = 1) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def scope() -> Scope:
    """Over a float64 network, so that what differs by rounding differs by little."""
    net = lived_in(evaluated(Mixed().double()))
    return Scope(net, torch.zeros(1, *SHAPE), normalize=(MEAN, DEVIATION))


def linear(weights: list[float]) -> Scope:
    """One sigmoid of a weighted sum of one row of pixels."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 1, bias=False)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([weights]))
    return Scope(net, torch.zeros(1, 1, 1, len(weights)))


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_a_linear_network_by_hand() -> None:
    """White pixels that weigh 1, 4, 2: without 4 there are 3 left, then 1, then 0; put back they make 4, 6, 7."""
    found = linear([1, 4, 2]).faithfulness(
        "gradient_times_input", torch.ones(1, 1, 3, dtype=torch.float64), steps=3, fill="zero"
    )
    down, up = [[sigmoid(x) for x in logits] for logits in ((7, 3, 1, 0), (0, 4, 6, 7))]
    torch.testing.assert_close(found.deletion, torch.tensor([down], dtype=torch.float64))
    torch.testing.assert_close(found.insertion, torch.tensor([up], dtype=torch.float64))
    assert found.shares.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    for curve, values in ((found.deletion, down), (found.insertion, up)):
        assert found.area(curve).value == pytest.approx((values[0] / 2 + values[1] + values[2] + values[3] / 2) / 3)


def test_the_true_order_beats_every_other() -> None:
    weights = [0.5, 2.0, 1.0, 0.2, 0.8]
    scope, image = linear(weights), torch.ones(1, 1, 5, dtype=torch.float64)
    areas = {}
    for order in permutations(range(5)):
        values = torch.tensor(order, dtype=torch.float64).view(1, 1, 5)
        found = scope.faithfulness(lambda s, x, t, values=values: values, image, steps=5, fill="zero")
        areas[order] = (found.area(found.deletion).figures[0], -found.area(found.insertion).figures[0])
    best = tuple(sorted(weights).index(w) for w in weights)
    for which in (0, 1):
        ranked = sorted(areas, key=lambda order: areas[order][which])
        assert ranked[0] == best
        assert areas[ranked[1]][which] - areas[best][which] > 1e-4


def plain_curve(scope: Scope, start: Tensor, end: Tensor, order: list[int], steps: int, target: int) -> list[float]:
    """One image, one step, one pixel at a time."""
    image, width, found = start.clone(), start.shape[2], []
    done = 0
    for step in range(steps + 1):
        while done < step * len(order) // steps:
            row, column = divmod(order[done], width)
            image[:, row, column] = end[:, row, column]
            done += 1
        found.append(float(scope.probabilities(image)[0, target]))
    return found


@pytest.mark.parametrize(("fill", "max_memory"), [("blur", None), ("mean", None), ("grey", 1), (0.2, None)])
def test_curves_equal_a_plain_loop(scope: Scope, fill: str | float, max_memory: int | None) -> None:
    """With ties in the map, and 72 pixels in 7 shares that are not whole; to 1e-12, for float64 sums in another order."""
    images, targets = pictures(), [0, 3, 3, 1]
    maps = (10 * images.mean(1)).round()
    own = {image.numpy().tobytes(): values for image, values in zip(images, maps, strict=True)}
    found = scope.faithfulness(
        lambda s, x, t: own[x[0].numpy().tobytes()][None],
        images,
        targets,
        steps=7,
        fill=fill,
        max_memory=max_memory,
    )
    covers = fill_images(images, fill).expand_as(images)
    for i, target in enumerate(targets):
        order = sorted(range(72), key=lambda p: -float(maps[i].flatten()[p]))  # sorted() keeps equal ones in order
        down = plain_curve(scope, images[i], covers[i], order, 7, target)
        up = plain_curve(scope, covers[i], images[i], order, 7, target)
        assert found.deletion[i].tolist() == pytest.approx(down, abs=1e-12)
        assert found.insertion[i].tolist() == pytest.approx(up, abs=1e-12)
    assert found.shares.tolist() == [k * 72 // 7 / 72 for k in range(8)]
    assert torch.equal(found.target, torch.tensor(targets))


def test_a_random_order_read_backwards_is_the_insertion_of_its_reverse(scope: Scope) -> None:
    """Given a random order as a map, deletion in it and insertion in its reverse mirror each other."""
    image = pictures(1)
    values = torch.rand(1, 9, 8, generator=torch.Generator().manual_seed(5))
    there = scope.faithfulness(lambda s, x, t: values, image, steps=9)
    back = scope.faithfulness(lambda s, x, t: -values, image, steps=9)
    torch.testing.assert_close(there.deletion, back.insertion.flip(1), rtol=0, atol=1e-12)
    assert there.area(there.deletion).value == pytest.approx(back.area(back.insertion).value)


def test_random_orders_depend_on_seed_and_image_alone(scope: Scope) -> None:
    images = pictures(3)
    first, again, other = (scope.faithfulness("grad_cam", images, steps=6, seed=seed) for seed in (0, 0, 1))
    assert first.random.numpy().tobytes() == again.random.numpy().tobytes()
    assert not torch.equal(first.random, other.random)
    assert torch.equal(first.deletion, other.deletion)
    three = scope.faithfulness("grad_cam", images[:1].expand(3, -1, -1, -1), steps=6)
    assert not torch.equal(three.random[0], three.random[1])


def make(scope: Scope) -> Faithfulness:
    look = scope._look("saliency", {})
    return Faithfulness(Answers(scope.graph, scope.prepare), look, "saliency", steps=5)


def test_every_cut_and_order_gives_the_same_bytes(scope: Scope) -> None:
    images, targets = pictures(4), torch.tensor([1, 0, 4, 2])
    found = set()
    for cut in ([[0, 1, 2, 3]], [[0], [1], [2], [3]], [[2, 0], [3, 1]]):
        parts = [make(scope) for _ in cut]
        for part, rows in zip(parts, cut, strict=True):
            part.update(Questions(torch.tensor(rows), images[rows], targets[rows]))
        for order in permutations(parts):
            whole = make(scope)
            for part in order:
                whole.merge(part)
            tensors = [value for value in vars(whole.result()).values() if isinstance(value, Tensor)]
            found.add(b"".join(tensor.numpy().tobytes() for tensor in tensors))
    assert len(found) == 1


def test_a_scan_that_has_seen_nothing(scope: Scope) -> None:
    with pytest.raises(RequestError, match="has not seen an image yet"):
        make(scope).result()


@pytest.mark.parametrize(
    "lens", ["saliency", "guided_backprop", "gradient_times_input", "grad_cam", "integrated_gradients"]
)
def test_any_lens_by_name_or_as_a_function(scope: Scope, lens: str) -> None:
    images = pictures(2)
    settings: dict[str, Any] = {"n_steps": 3} if lens == "integrated_gradients" else {}
    found = scope.faithfulness(lens, images, steps=4, **settings)
    assert (found.n, found.method, found.fill, found.deletion.shape) == (2, lens, "blur", (2, 5))
    assert all(((curve >= 0) & (curve <= 1)).all() for curve in (found.deletion, found.insertion, found.random))
    same = scope.faithfulness(lambda s, x, t: s.attribute(lens, x, t, **settings), images, steps=4)
    assert torch.equal(found.deletion, same.deletion)
    assert torch.equal(found.deletion[:, 0], found.insertion[:, -1])


def test_occlusion_is_a_lens_too() -> None:
    """By name, as by a function; a method of the scope is one as it is."""
    images = pictures(2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 6, 5)).double()
    scope = Scope(net, torch.zeros(1, *SHAPE))
    found = scope.faithfulness(
        lambda s, x, t: s.occlusion(x, 3, target=t, fill="mean").on_image(9, 8), images, steps=4, fill="zero"
    )
    by_name = scope.faithfulness("occlusion", images, steps=4, fill="zero", size=3, occlusion_fill="mean")
    assert torch.equal(by_name.deletion, found.deletion)
    by_method = scope.faithfulness(Scope.saliency, images, steps=4)
    assert by_method.method == "saliency"
    assert torch.equal(by_method.deletion, scope.faithfulness("saliency", images, steps=4).deletion)


def test_one_image_gives_a_mean_without_an_interval(scope: Scope) -> None:
    found = scope.faithfulness("grad_cam", pictures(1)[0], steps=4)
    gain = found.deletion_gain
    assert gain.value is not None
    assert (gain.low, gain.high) == (None, None)
    assert found.verdict == "grad_cam cannot be told from a random order (1 image)"


def curves(deletion: list[float], insertion: list[float], random: list[float]) -> FaithfulnessCurves:
    """Flat curves, whose area is their height."""
    n = len(deletion)
    flat = (torch.tensor(heights)[:, None].expand(n, 3) for heights in (deletion, insertion, random))
    shares = torch.tensor([0, 0.5, 1], dtype=torch.float64)
    return FaithfulnessCurves("a lens", "grey", torch.arange(n), torch.zeros(n).long(), shares, *flat)


def test_the_verdict_says_what_the_intervals_carry() -> None:
    level = [0.5, 0.52, 0.48]
    assert curves([0.1, 0.11, 0.1], [0.9, 0.8, 0.9], level).verdict == (
        "a lens beats a random order at deletion and insertion (3 images)"
    )
    assert curves([0.1, 0.11, 0.1], [0.1, 0.1, 0.1], level).verdict == (
        "a lens beats a random order at deletion but does worse than a random order at insertion (3 images)"
    )
    assert curves([0.1, 0.9, 0.4], level, level).verdict == "a lens cannot be told from a random order (3 images)"
    found = curves([0.25, 0.25], [0.75, 0.75], [0.5, 0.5])
    assert found.deletion_gain.figures == found.insertion_gain.figures == pytest.approx((0.25, 0.25, 0.25))
    assert [point.value for point in found.course(found.insertion)] == [0.75] * 3


def test_what_a_map_says_of_a_pixel() -> None:
    values = torch.tensor([[[[1.0, -3.0]], [[-2.0, 1.0]]]])  # 1 image, 2 channels, 1×2
    assert importance(Attribution(values, "lrp"), 1, 2).tolist() == [[[-1.0, -2.0]]]
    assert importance(Attribution(values, "saliency"), 1, 2).tolist() == [[[2.0, 3.0]]]
    assert importance(values, 1, 2).tolist() == [[[-1.0, -2.0]]]
    small = torch.tensor([[[0.0, 4.0]]])
    assert importance(small, 1, 4).tolist() == [[[0.0, 1.0, 3.0, 4.0]]]


def test_wrong_requests(scope: Scope) -> None:
    images = pictures(2)
    before = state(scope.net)
    with pytest.raises(UnknownNameError, match="attribution lens 'gradcam' is not"):
        scope.faithfulness("gradcam", images)
    with pytest.raises(SettingError, match="steps: 73; expected 1 to 72"):
        scope.faithfulness("grad_cam", images, steps=73)
    with pytest.raises(SettingError, match="seed: -1"):
        scope.faithfulness("grad_cam", images, seed=-1)
    with pytest.raises(RequestError, match="target: 9 is not a class"):
        scope.faithfulness("grad_cam", images, 9)
    with pytest.raises(RequestError, match=r"fill: 1\.5; expected"):
        scope.faithfulness("grad_cam", images, fill=1.5)
    with pytest.raises(RequestError, match="fill: 2 images; give a colour"):
        scope.faithfulness("grad_cam", images, fill=images)
    with pytest.raises(RequestError, match="images have the shape 3×8×8; this network takes 3×9×8"):
        scope.faithfulness("grad_cam", images[0, :, 1:])
    with pytest.raises(RequestError, match="the lens gives a tensor of shape"):
        scope.faithfulness(lambda s, x, t: x.flatten(1), images)
    with pytest.raises(FailedError, match="the lens gives NaN"):
        scope.faithfulness(lambda s, x, t: x * torch.nan, images)
    assert state(scope.net) == before


def test_everything_is_as_it_was_after_success_and_after_a_crash(scope: Scope) -> None:
    images, before = pictures(2), state(scope.net)
    scope.faithfulness("grad_cam", images, steps=3)  # once before, for a graph's gradient is checked but once
    with Failing() as counting:
        scope.faithfulness("grad_cam", images, steps=3)
    assert state(scope.net) == before
    assert torch.equal(images, pictures(2))
    for share in (0.2, 0.6, 1.0):
        with pytest.raises(KeyboardInterrupt), Failing(KeyboardInterrupt, at=int(share * counting.calls)):
            scope.faithfulness("grad_cam", images, steps=3)
        assert state(scope.net) == before
