"""ImageSet: rows of shared pixels."""

from __future__ import annotations

import pytest
import torch

from convscope.data import load_data
from convscope.errors import RequestError, UnknownNameError

from .test_batches import make_set


def test_images_and_targets() -> None:
    images = make_set(5)
    assert len(images) == 5
    assert torch.equal(images.images()[:, 0, 0, 0] * 255, torch.tensor([0.0, 2, 4, 6, 8]))
    assert torch.equal(images.images([3, 0]), images.images()[[3, 0]])
    assert torch.equal(images.images(slice(1, 3)), images.images()[1:3])
    assert torch.equal(images.images(torch.tensor([4])), images.images()[4:])
    assert images.images([]).shape == (0, 3, 4, 4)
    assert images.targets_of().tolist() == [0, 2, 4, 1, 3]
    assert images.targets_of("parity").tolist() == [0] * 5


def test_one_image_and_the_end() -> None:
    images = make_set(5)
    image, target = images[3]
    assert image.shape == (3, 4, 4)
    assert (round(image.max().item() * 255), target) == (6, 1)
    assert len([target for _, target in images]) == 5


def test_subset_shares_pixels() -> None:
    images = make_set(5)
    part = images.subset([4, 1])
    assert part.targets_of().tolist() == [3, 2]
    assert part.pixels is images.pixels
    assert images.subset(images.targets_of() > 2).targets_of().tolist() == [4, 3]


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("rows", ["x", 3, [0.5], [[0, 1]], [5], [-6], torch.ones(4, dtype=torch.bool)])
def test_what_is_no_position_is_refused(rows: object) -> None:
    for take in (make_set(5).images, make_set(5).subset):
        with pytest.raises(RequestError, match=r"expected positions from 0 to 4, such as \[0, 1\], or a slice"):
            take(rows)  # type: ignore[operator]


def test_positions_count_from_the_end_and_may_be_none() -> None:
    images = make_set(5)
    assert torch.equal(images.images([-1]), images.images([4]))
    assert len(images.images([])) == len(images.images(slice(9, None))) == 0


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("place", ["a", 1.5, slice(0, 3), [0, 1]])
def test_one_image_has_one_position(place: object) -> None:
    with pytest.raises(RequestError, match="expected one position, such as 0"):
        make_set(5)[place]  # type: ignore[index]


def test_unknown_target() -> None:
    with pytest.raises(UnknownNameError, match="target 'colour' is not in this data set; there is class, parity"):
        make_set().targets_of("colour")


def test_they_show_themselves() -> None:
    assert repr(make_set()) == "ImageSet(23 images of 3×4×4; class of 5, parity of 2)"
    assert repr(load_data("lines", limit=960)).startswith(
        "DataBundle(lines: 518 train, 58 val, 384 test; 3×28×28; class of 96"
    )
