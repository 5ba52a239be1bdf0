"""Mixup and CutMix: which images are mixed, with which shares, and the targets that go with them."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from convscope.data import mix

N = 6


def coloured() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Image i has the value 2^i everywhere, so that a mixed one shows of what it is made."""
    values = 2.0 ** torch.arange(N)
    return values[:, None, None, None].expand(N, 3, 8, 10).clone(), {
        "class": torch.arange(N),
        "other": torch.arange(N) * 7,
    }


def test_off_gives_the_very_images() -> None:
    images, targets = coloured()
    mixed, shares = mix(images, targets, 0.0, 0.0, (0, 0, 0))
    assert mixed is images
    assert shares == [(1.0, targets)]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_is_the_sum_that_the_shares_say(alpha: float) -> None:
    images, targets = coloured()
    kept = images.clone()
    swapped = 0
    for step in range(20):
        mixed, [(large, first), (small, second)] = mix(images, targets, alpha, 0.0, (0, 0, step))
        assert large >= small
        assert large + small == pytest.approx(1)
        assert torch.equal(first["other"], first["class"] * 7)
        assert torch.equal(second["other"], second["class"] * 7)
        torch.testing.assert_close(mixed, large * images[first["class"]] + small * images[second["class"]])
        swapped += not torch.equal(first["class"], targets["class"])
    assert 0 < swapped < 20
    assert torch.equal(images, kept)


def test_cutmix_takes_the_area_that_beta_says_less_what_sticks_out() -> None:
    """α so large that λ is ½: sides of 0.707 × 64 = 45 pixels, which fit in about centres from 22 to 41."""
    images, targets = torch.zeros(2, 1, 64, 64), {"class": torch.arange(2)}
    areas = []
    for step in range(200):
        _, shares = mix(images, targets, 0.0, 1e9, (0, 0, step))
        [area] = [share for share, of in shares if of is not targets]
        areas.append(area)
    assert max(areas) == pytest.approx(45**2 / 64**2)
    assert min(areas) == pytest.approx((23 / 64) ** 2, abs=0.05)


def test_cutmix_is_a_rectangle_whose_area_is_the_others_share() -> None:
    images, targets = coloured()
    kept = images.clone()
    n_rectangles = 0
    for step in range(60):
        mixed, shares = mix(images, targets, 0.0, 1.0, (0, 0, step))
        for place in range(N):
            [(share, other)] = [(share, of["class"][place]) for share, of in shares if of is not targets]
            theirs = mixed[place, 0] == images[other, 0, 0, 0]
            assert torch.equal(mixed[place, 0], torch.where(theirs, images[other, 0], images[place, 0]))
            assert torch.equal(mixed[place, 0], mixed[place, 2])
            if int(other) == place or not theirs.any():
                continue
            assert theirs.float().mean().item() == pytest.approx(share)
            rows, columns = theirs.any(1).nonzero(), theirs.any(0).nonzero()
            assert theirs[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
            n_rectangles += 1
    assert n_rectangles > 100
    assert torch.equal(images, kept)


def test_shares_are_those_of_the_beta_distribution() -> None:
    """λ and 1 − λ are equally likely, so the larger is compared; a distance of 0.08 of 400 draws has p = 0.01."""
    images, targets = coloured()
    shares = [mix(images, targets, 0.4, 0.0, (0, 1, step))[1][0][0] for step in range(400)]
    found = stats.kstest(shares, lambda x: 2 * stats.beta(0.4, 0.4).cdf(x) - 1)
    assert found.statistic < 0.08


def test_with_both_either_is_drawn() -> None:
    images, targets = coloured()
    values = {2.0**place for place in range(N)}
    cut = [set(mix(images, targets, 1.0, 1.0, (0, 0, step))[0].unique().tolist()) <= values for step in range(100)]
    assert 30 < sum(cut) < 70


def test_the_key_decides() -> None:
    images, targets = coloured()
    results = [
        mix(images, targets, 1.0, 0.0, key)[0] for key in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0))
    ]
    assert torch.equal(results[0], results[-1])
    assert not any(torch.equal(a, b) for i, a in enumerate(results[:-1]) for b in results[:i])


def test_a_single_image_is_mixed_with_itself() -> None:
    images, targets = torch.rand(1, 3, 4, 4), {"class": torch.tensor([2])}
    for alphas in ((1.0, 0.0), (0.0, 1.0)):
        torch.testing.assert_close(mix(images, targets, *alphas, (0, 0, 0))[0], images)
