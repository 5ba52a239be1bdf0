"""Invariance: transformed images against SciPy's, distances against plain loops, networks of known invariance."""

from __future__ import annotations

from itertools import permutations
from math import cos, radians, sin, sqrt

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from torch import Tensor, nn

from convscope.errors import RequestError, SettingError, UnknownNameError
from convscope.scans import Answers, Change, Invariance, Questions, changes_of
from convscope.scans.invariance import distance, transform
from convscope.scope import Scope
from tests.lenses.lens_networks import Mixed, evaluated, lived_in, state
from tests.lenses.test_properties import Failing

SHAPE = (3, 9, 8)
CHANGES = changes_of([1, (0, -2), (0.5, 0.25)], [30, -100], [0.7, 1.6])


def pictures(n: int = 3, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def scope() -> Scope:
    net = lived_in(evaluated(Mixed().double()))
    return Scope(net, torch.zeros(1, *SHAPE), normalize=((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))


def by_scipy(image: Tensor, cover: Tensor, change: Change) -> np.ndarray:
    """SciPy's affine transform, from where in the image each pixel comes, about the centre; blended into the cover."""
    matrix, moved = np.eye(2), np.zeros(2)
    if change.kind == "shift":
        moved = np.array(change.amount)
    elif change.kind == "scale":
        matrix /= change.amount
    else:  # rows count downwards, so anticlockwise as seen is this
        c, s = cos(radians(change.amount)), sin(radians(change.amount))
        matrix = np.array([[c, s], [-s, c]])
    centre = (np.array(image.shape[1:]) - 1) / 2

    def run(plane: np.ndarray) -> np.ndarray:
        return affine_transform(plane, matrix, centre - matrix @ (centre + moved), order=1, mode="grid-constant")

    seen = run(np.ones(image.shape[1:]))
    return np.stack([run(p) + (1 - seen) * q for p, q in zip(image.numpy(), cover.numpy(), strict=True)])


@pytest.mark.parametrize("shape", [(3, 9, 8), (1, 6, 11)])
def test_transforms_are_scipys(shape: tuple[int, ...]) -> None:
    """To 1e-12: float64 interpolation with coordinates that round differently."""
    image, cover = pictures(2, shape)
    for change, found in zip(CHANGES, transform(image[None], cover, CHANGES), strict=True):
        assert found.numpy() == pytest.approx(by_scipy(image, cover, change), abs=1e-12), str(change)


def test_transforms_by_hand() -> None:
    """To 1e-6, the rounding of float32 coordinates."""
    image, cover = pictures(1, (3, 8, 6))[0].float(), torch.full((3, 8, 6), 0.25)
    down, right, turned, same = transform(image[None], cover, changes_of([2, (0, 3)], [90], [1]))
    expected = cover.clone(), cover.clone(), cover.clone()
    expected[0][:, 2:] = image[:, :-2]
    expected[1][:, :, 3:] = image[:, :, :-3]
    expected[2][:, 1:7] = image.rot90(1, (1, 2))[:, :, 1:7]  # the turned image is 6 × 8: its sides are cut off
    for found, wanted in zip((down, right, turned, same), (*expected, image), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_scaling_enlarges() -> None:
    image = torch.zeros(1, 8, 6)
    image[:, 3:5, 2:4] = 1
    larger, smaller = transform(image[None], torch.zeros(1, 8, 6), changes_of([], [], [2, 0.5]))
    assert float(larger.sum()) > 2 * float(image.sum())
    assert float(smaller.sum()) < float(image.sum())


def test_distance_by_hand() -> None:
    features = torch.tensor([[3.0, 4], [-3, -4], [0, 0], [4, -3], [6, 8]])
    assert distance(features, torch.tensor([[3.0, 4]])).tolist() == pytest.approx([0, 1, 1, sqrt(0.5), 1 / 3])
    assert distance(torch.zeros(1, 2), torch.zeros(1, 2)).tolist() == [0]


@pytest.mark.parametrize("max_memory", [None, 1])
def test_figures_equal_a_plain_loop(scope: Scope, max_memory: int | None) -> None:
    """One image and one change at a time; to 1e-12, for float64 sums in another order."""
    images, layers = pictures(), ["residual.conv1", "dilated", "fc"]
    found = scope.invariance(
        images,
        layers,
        [4, 0, 2],
        shift=[1, (0, -2), (0.5, 0.25)],
        rotate=[30, -100],
        scale=[0.7, 1.6],
        fill="mean",
        max_memory=max_memory,
    )
    assert (found.layers, found.changes, found.n) == (layers, list(CHANGES), 3)
    for i, target in enumerate([4, 0, 2]):
        cover = images[i].mean((1, 2), keepdim=True).expand(SHAPE)
        before = scope.activations(images[i], layers)
        assert float(found.unchanged[i]) == pytest.approx(float(scope.probabilities(images[i])[0, target]), abs=1e-12)
        for j, change in enumerate(CHANGES):
            changed = torch.from_numpy(by_scipy(images[i], cover, change))
            probabilities, after = scope.probabilities(changed)[0], scope.activations(changed, layers)
            assert float(found.probability[i, j]) == pytest.approx(float(probabilities[target]), abs=1e-12)
            assert bool(found.kept[i, j]) == bool(probabilities.argmax() == scope.probabilities(images[i])[0].argmax())
            for k, layer in enumerate(layers):
                a, b = (np.ravel(maps[layer]) for maps in (after, before))
                expected = np.linalg.norm(a - b) / (np.linalg.norm(a) + np.linalg.norm(b))
                assert float(found.distance[i, j, k]) == pytest.approx(expected, abs=1e-12)


def test_means_and_rows(scope: Scope) -> None:
    found = scope.invariance(pictures(), ["fc"], shift=(1,), rotate=(), scale=(1.5,))
    shifted, scaled = found.rows()
    assert (shifted["change"], scaled["change"]) == ("shift 1, 0 px", "scale ×1.5")
    assert shifted["distance"]["fc"] == found.distances("fc")[0]
    assert scaled["distance"]["fc"].value == pytest.approx(float(found.distance[:, 1, 0].mean()))
    assert shifted["probability"].value == pytest.approx(float(found.probability[:, 0].mean()))
    assert scaled["kept"].value == pytest.approx(float(found.kept[:, 1].double().mean()))


def test_what_averages_over_all_positions_does_not_see_a_shift() -> None:
    """A spot on a plain ground, moved and never cut off: 1×1 filters answer elsewhere, their means stay."""
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()
    image = torch.full((1, 12, 10), 0.5, dtype=torch.float64)
    image[:, 5:7, 4:6] = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    shifts = [(0, 3), (-4, 0), (2, -3)]
    scope = Scope(net, torch.zeros(1, 1, 12, 10))
    found = scope.invariance(image, ["0", "2", "4"], shift=shifts, rotate=[90], scale=(), fill="grey")
    assert float(found.distance[..., 1:].abs().max()) < 1e-12
    assert float(found.distance[..., 0].min()) > 0.01
    torch.testing.assert_close(found.probability, found.unchanged[:, None].expand(1, 4), rtol=0, atol=1e-12)
    assert found.kept.all()
    flat = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(480, 3)).double()
    seen = Scope(flat, torch.zeros(1, 1, 12, 10)).invariance(image, ["2"], shift=shifts, rotate=(), scale=())
    assert float(seen.distance.min()) > 1e-4


def test_no_change_changes_nothing(scope: Scope) -> None:
    """To 1e-12, since the whole image is blended with a cover that is seen through to 1e-15."""
    found = scope.invariance(pictures(), ["conv"], shift=[0], rotate=[0], scale=[1])
    assert float(found.distance.max()) < 1e-12
    torch.testing.assert_close(found.probability, found.unchanged[:, None].expand(3, 3), rtol=0, atol=1e-12)


def test_a_single_sigmoid_keeps_its_answer_on_its_side_of_a_half() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(20, 1)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([1.0] * 10 + [-1.0] * 10)[None])
        net[1].bias.zero_()
    image = torch.zeros(1, 4, 5, dtype=torch.float64)
    image[:, 0] = 1
    scope = Scope(net, torch.zeros(1, 1, 4, 5))
    found = scope.invariance(image, ["1"], shift=[1, 2], rotate=(), scale=(), fill="zero")
    assert found.kept.tolist() == [[True, False]]
    assert found.unchanged.tolist() == pytest.approx([1 / (1 + np.exp(-5))])


def test_every_cut_and_order_gives_the_same_bytes(scope: Scope) -> None:
    images, targets = pictures(4), torch.tensor([1, 0, 4, 2])

    def make() -> Invariance:
        return Invariance(Answers(scope.graph, scope.prepare), ["conv"], CHANGES)

    found = set()
    for cut in ([[0, 1, 2, 3]], [[0], [1], [2], [3]], [[2, 0], [3, 1]]):
        parts = [make() for _ in cut]
        for part, rows in zip(parts, cut, strict=True):
            part.update(Questions(torch.tensor(rows), images[rows], targets[rows]))
        for order in permutations(parts):
            whole = make()
            for part in order:
                whole.merge(part)
            tensors = [value for value in vars(whole.result()).values() if isinstance(value, Tensor)]
            found.add(b"".join(tensor.numpy().tobytes() for tensor in tensors))
    assert len(found) == 1


def test_a_single_amount_is_a_list_of_one(scope: Scope) -> None:
    single = scope.invariance(pictures(), ["conv"], shift=2, rotate=15, scale=1.5)
    assert [str(change) for change in single.changes] == ["shift 2, 0 px", "rotate 15°", "scale ×1.5"]


@pytest.mark.usefixtures("annotations_unchecked")
def test_wrong_requests(scope: Scope) -> None:
    images, before = pictures(), state(scope.net)
    with pytest.raises(UnknownNameError, match="layer 'conv9' is not in this network"):
        scope.invariance(images, ["conv9"])
    with pytest.raises(RequestError, match="layers: there is none; give one at least"):
        scope.invariance(images, [])
    with pytest.raises(SettingError, match="shift, rotate and scale are all empty"):
        scope.invariance(images, ["conv"], shift=(), rotate=(), scale=())
    with pytest.raises(SettingError, match=r"scale: 0; expected a finite number above 0"):
        scope.invariance(images, ["conv"], scale=[0])
    with pytest.raises(SettingError, match="rotate: inf; expected a finite number"):
        scope.invariance(images, ["conv"], rotate=[float("inf")])
    for given in ("15", None):
        with pytest.raises(SettingError, match=rf"rotate: {given!r}; expected numbers, such as \[1, 2\]"):
            scope.invariance(images, ["conv"], rotate=given)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="shift: nan"):
        scope.invariance(images, ["conv"], shift=[(0, float("nan"))])
    for settings, said in (
        ({"rotate": ["a"]}, "rotate: 'a'; expected a finite number"),
        ({"scale": [None]}, "scale: None"),
        ({"shift": ["ab"]}, "shift: 'ab'"),
        ({"shift": [(1, 2, 3)]}, r"shift: \(1, 2, 3\); expected a number of pixels down, or a pair"),
    ):
        with pytest.raises(SettingError, match=said):
            changes_of(**{"shift": (), "rotate": (), "scale": ()} | settings)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="target: 7 is not a class"):
        scope.invariance(images, ["conv"], 7)
    with pytest.raises(RequestError, match="fill: 3 images"):
        scope.invariance(images, ["conv"], fill=images)
    assert state(scope.net) == before


def test_everything_is_as_it_was_after_success_and_after_a_crash(scope: Scope) -> None:
    images, before = pictures(2), state(scope.net)
    with Failing() as counting:
        scope.invariance(images, ["conv"])
    assert state(scope.net) == before
    assert torch.equal(images, pictures(2))
    for share in (0.2, 0.6, 1.0):
        with pytest.raises(KeyboardInterrupt), Failing(KeyboardInterrupt, at=int(share * counting.calls)):
            scope.invariance(images, ["conv"])
        assert state(scope.net) == before
