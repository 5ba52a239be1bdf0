"""batches: every image once, the same order for the same seed, resumed in the middle of an epoch."""

from __future__ import annotations

import gc
from importlib import import_module

import pytest
import torch

from convscope.data import Augmentation, ImageSet, batches
from convscope.errors import SettingError, UnknownNameError
from tests.gpus import on_gpu

MODULE = import_module("convscope.data.batches")  # the face has a function of that name


def make_set(n: int = 23) -> ImageSet:
    """Every second of 2n images; image k is k all over, its class is k mod 5, its parity k mod 2."""
    rows = torch.arange(2 * n)
    pixels = rows.byte()[:, None, None, None].expand(2 * n, 3, 4, 4).contiguous()
    targets = {"class": rows % 5, "parity": rows % 2}
    return ImageSet(pixels, rows[::2], targets, {"class": tuple("abcde"), "parity": ("even", "odd")})


def test_in_order() -> None:
    images = make_set()
    found = list(batches(images, 10))
    assert [len(batch.index) for batch in found] == [10, 10, 3]
    assert torch.cat([batch.index for batch in found]).tolist() == list(range(23))
    assert torch.equal(torch.cat([batch.images for batch in found]), images.images())
    assert torch.equal(torch.cat([batch.targets["class"] for batch in found]), images.targets_of())


def test_shuffled_images_keep_their_targets() -> None:
    images = make_set()
    found = list(batches(images, 10, seed=0))
    index = torch.cat([batch.index for batch in found])
    assert sorted(index.tolist()) == list(range(23)) != index.tolist()
    for batch in found:
        values = (batch.images[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(values, images.index[batch.index])
        assert torch.equal(batch.targets["class"], values % 5)
        assert torch.equal(batch.targets["parity"], values % 2)


def test_seed_and_epoch_decide_the_order() -> None:
    def order(**settings: int) -> list[int]:
        return torch.cat([batch.index for batch in batches(make_set(), 10, **settings)]).tolist()

    assert order(seed=0) == order(seed=0)
    assert len({tuple(order(seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("first_step", [0, 1, 2, 3, 9])
def test_resumed_in_the_middle_is_the_same(first_step: int) -> None:
    settings = {"seed": 3, "epoch": 4, "augmentation": Augmentation(crop=1, flip="alternate", brightness=0.5)}
    whole = list(batches(make_set(), 10, **settings))[first_step:]
    resumed = list(batches(make_set(), 10, first_step=first_step, **settings))
    assert len(whole) == len(resumed)
    for a, b in zip(whole, resumed, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.index, b.index)


def test_drop_last() -> None:
    assert [len(batch.index) for batch in batches(make_set(), 10, drop_last=True)] == [10, 10]
    assert len(list(batches(make_set(20), 10, drop_last=True))) == 2


def test_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    list(batches(make_set(), 10, seed=0, augmentation=Augmentation(crop=1)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"epoch": -1}, {"first_step": -1}, {"seed": -1}])
def test_bad_settings_at_once(wrong: dict) -> None:
    with pytest.raises(SettingError, match=f"{next(iter(wrong))}: "):
        batches(make_set(), **{"size": 10, **wrong})


def test_pixels_move_to_the_device_once_and_only_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, device = make_set().pixels, torch.device("cuda", 0)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: self.clone())
    free = 10 * pixels.nbytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 0))
    moved = MODULE._on_device(pixels, device)
    assert moved is not pixels
    assert MODULE._on_device(pixels, device) is moved
    free = pixels.nbytes
    large = make_set().pixels
    assert MODULE._on_device(large, device) is large
    del pixels, large, moved
    gc.collect()
    assert len(MODULE._resident) == 0


@on_gpu
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_the_same_on_cuda(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "RESIDENT_SHARE", share)
    settings = {"seed": 3, "augmentation": Augmentation(crop=1, flip="random", brightness=0.5)}
    images = make_set()
    for here, there in zip(
        batches(images, 10, **settings), batches(images, 10, device="cuda", **settings), strict=True
    ):
        assert there.images.is_cuda
        assert torch.allclose(here.images, there.images.cpu(), atol=1e-6)
        assert torch.equal(here.targets["class"], there.targets["class"].cpu())


def uneven_set() -> ImageSet:
    """1,000 images of the classes a (900), c (90) and e (10); b and d have none."""
    targets = torch.tensor([0] * 900 + [2] * 90 + [4] * 10)
    pixels = torch.arange(1000 * 12).remainder(251).byte().view(1000, 3, 2, 2)
    return ImageSet(pixels, torch.arange(1000), {"class": targets}, {"class": tuple("abcde")})


def drawn(images: ImageSet, **settings: int) -> torch.Tensor:
    """The places of an epoch's images, as drawn by their class."""
    return torch.cat([batch.index for batch in batches(images, 64, balance="class", **{"seed": 0, **settings})])


def test_balanced_draws_are_even_over_classes_and_over_the_images_of_each() -> None:
    """Over 30 epochs; a class has a third of the draws, with 5 standard deviations of room, and so have its images."""
    images = uneven_set()
    epochs = [drawn(images, epoch=epoch) for epoch in range(30)]
    assert {len(one) for one in epochs} == {1000}
    counts = torch.cat(epochs).bincount(minlength=1000)
    of_classes = [counts[start:end].sum() for start, end in ((0, 900), (900, 990), (990, 1000))]
    assert all(abs(n - 10_000) < 5 * (30_000 * 2 / 9) ** 0.5 for n in of_classes)
    for start, end in ((0, 900), (900, 990), (990, 1000)):
        expected = 10_000 / (end - start)
        assert (abs(counts[start:end] - expected) < 5 * expected**0.5 + 2).all()


def test_balanced_draws_follow_from_seed_and_epoch() -> None:
    images = uneven_set()
    assert torch.equal(drawn(images), drawn(images))
    assert len({tuple(drawn(images, seed=seed, epoch=epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_balanced_draws_keep_their_targets_and_are_resumed() -> None:
    images = uneven_set()
    settings = {
        "seed": 3,
        "epoch": 2,
        "balance": "class",
        "drop_last": True,
        "augmentation": Augmentation(flip="alternate"),
    }
    whole, resumed = (list(batches(images, 64, first_step=first, **settings)) for first in (0, 9))
    assert len(whole) == 15
    for a, b in zip(whole[9:], resumed, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.targets["class"], images.targets["class"][a.index])


@pytest.mark.parametrize(
    "distorted", [Augmentation(flip="alternate"), Augmentation(crop=1), Augmentation(brightness=0.5)]
)
def test_an_image_drawn_twice_is_distorted_each_time_by_itself(distorted: Augmentation) -> None:
    """Of the ten images of the smallest class, each of which is drawn some 33 times in an epoch."""
    found = list(batches(uneven_set(), 64, seed=0, balance="class", augmentation=distorted))
    images, index = (torch.cat([getattr(batch, part) for batch in found]) for part in ("images", "index"))
    for place in range(990, 1000):
        assert len(images[index == place].unique(dim=0)) > 1


def test_what_balanced_draws_need() -> None:
    with pytest.raises(SettingError, match="balance: class needs a seed"):
        batches(make_set(), 10, balance="class")
    with pytest.raises(UnknownNameError, match="target 'clas' is not in this data set"):
        batches(make_set(), 10, balance="clas", seed=0)
