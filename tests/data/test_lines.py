"""The Lines set: exact coverage, whole lines, the same for the same seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from convscope.data import lines, load_data
from convscope.errors import SettingError


def supersampled(corners: np.ndarray, centre: np.ndarray, side: int, n: int = 40) -> np.ndarray:
    """The share of n × n points of each pixel that lie on the inner side of every edge."""
    at = (np.arange(side * n) + 0.5) / n
    x, y = np.meshgrid(at - centre[0], at - centre[1])
    inside = np.ones(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        side_of = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
        inside &= (side_of >= 0) == ((x1 - x0) * (0 - y0) - (y1 - y0) * (0 - x0) >= 0)
    return inside.reshape(side, n, side, n).mean((1, 3))


@pytest.mark.parametrize("degrees", range(0, 180, 15))
@pytest.mark.parametrize("width", [1, 3])
def test_coverage_against_counted_points(degrees: int, width: int) -> None:
    corners = lines._corners(7, width, degrees)
    centres = np.random.default_rng(degrees).uniform(5, 7, (3, 2))
    found = lines.coverage(corners, centres, 12)
    for image, centre in zip(found, centres, strict=True):
        assert np.abs(image - supersampled(corners, centre, 12)).max() < 0.03  # 40 × 40 points: 1/40 at an upright edge
        assert image.sum() == pytest.approx(7 * width, abs=1e-4)


def test_coverage_by_hand() -> None:
    found = lines.coverage(lines._corners(3, 1, 0), np.array([[2.75, 1.5]]), 5)[0]
    assert found[1] == pytest.approx([0, 0.75, 1, 1, 0.25])
    assert found[[0, 2, 3, 4]].sum() == 0
    turned = lines.coverage(lines._corners(math.sqrt(2), math.sqrt(2), 45), np.array([[1.5, 1.5]]), 3)[0]
    assert turned.ravel() == pytest.approx([0, 1 / 4, 0, 1 / 4, 1, 1 / 4, 0, 1 / 4, 0], abs=1e-6)


def test_names_and_targets_agree() -> None:
    data = load_data("lines", limit=96 * 4)
    assert len(data.classes) == 96
    assert data.classes[1] == "7px thin red 15°"
    everything = data.train.subset(slice(None))
    for i in range(0, len(everything), 7):
        name = data.classes[everything.targets_of()[i]]
        factors = [data.train.classes[f][everything.targets_of(f)[i]] for f in ("length", "width", "colour", "angle")]
        assert name == " ".join(factors)


def test_every_line_is_whole_and_has_its_factors() -> None:
    for index, name in enumerate(lines.CLASSES["class"]):
        length, width, colour, angle = name.split()
        images = lines.draw_class(index, 20, seed=0).astype(float) / 255
        channel = {"red": 0, "blue": 2}[colour]
        area = int(length.removesuffix("px")) * {"thin": 1, "thick": 3}[width]
        assert images[:, channel].sum((1, 2)) == pytest.approx(np.full(20, area), abs=0.1)  # rounding to 8 bits
        assert images.sum() == pytest.approx(images[:, channel].sum())
        assert direction(images[:, channel]) == pytest.approx(math.radians(int(angle[:-1])), abs=0.02)


def direction(images: np.ndarray) -> float:
    """The angle of the longer axis, from the second moments of the brightness, averaged over the images."""
    rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
    turn = 0j
    for image in images:
        x, y = columns - np.average(columns, weights=image), np.average(rows, weights=image) - rows
        turn += complex((image * (x * x - y * y)).sum(), 2 * (image * x * y).sum())
    return (np.angle(turn) / 2) % math.pi if abs(np.angle(turn)) > 1e-3 else 0.0


def test_seed_and_number() -> None:
    first = lines.draw_class(5, 30, seed=1)
    assert np.array_equal(first, lines.draw_class(5, 30, seed=1))
    assert np.array_equal(first[:10], lines.draw_class(5, 10, seed=1))
    assert not np.array_equal(first, lines.draw_class(5, 30, seed=2))


def test_split_is_stratified() -> None:
    data = load_data("lines", limit=96 * 10)
    assert data.test.targets_of().bincount().tolist() == [4] * 96
    assert (len(data.train) + len(data.val), data.source) == (96 * 6, "generated, seed 0")


def test_too_small_a_limit() -> None:
    with pytest.raises(SettingError, match="limit: 95 is too small for one image of each class; give 96 or more"):
        load_data("lines", limit=95)


def test_global_random_state_is_left_alone() -> None:
    state, own = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load_data("lines", limit=960)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], own)  # noqa: NPY002
