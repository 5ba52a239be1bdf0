"""Stratified choice, and splits of every form."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, strategies as st

from convscope.data.spec import split_shares
from convscope.data.splits import divide, stratified, without_test_images
from convscope.errors import SettingError


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.floats(0, 1), st.integers(0, 9))
def test_stratified_is_exact_in_total_and_within_one_in_each_class(values: list[int], share: float, seed: int) -> None:
    labels = np.array(values)
    count = round(share * len(labels))
    chosen = stratified(labels, count, np.random.default_rng(seed))
    assert chosen.sum() == count
    for label in set(values):
        own = labels == label
        assert abs(chosen[own].sum() - own.sum() * count / len(labels)) < 1


def test_each_image_is_chosen_equally_often() -> None:
    labels = np.array([0] * 7 + [1] * 3)
    times = sum(stratified(labels, 5, np.random.default_rng(seed)).astype(int) for seed in range(2000))
    assert np.abs(times / 2000 - 0.5).max() < 0.056  # five standard deviations of 2,000 coins


@pytest.mark.parametrize(
    ("split", "shares"),
    [
        ("60/40", (0.6, None, 0.4)),
        ("70/10/20", (0.7, 0.1, 0.2)),
        ("0.6/0.4", (0.6, None, 0.4)),
        ("400/100/100", (4 / 6, 1 / 6, 1 / 6)),
    ],
)
def test_shares(split: str, shares: tuple[float | None, ...]) -> None:
    assert (
        split_shares(split, 600) == pytest.approx(shares) if None not in shares else split_shares(split, 600) == shares
    )


@pytest.mark.parametrize("split", ["70/50", "400/100/101", "0.5/0.6"])
def test_impossible_shares(split: str) -> None:
    with pytest.raises(SettingError, match="adds up to"):
        split_shares(split, 600)


@pytest.mark.parametrize(
    ("parts", "split", "sizes"),
    [
        ({"all": 100}, None, (80, 10, 10)),
        ({"train": 100, "test": 50}, None, (90, 10, 50)),
        ({"train": 100, "val": 50}, None, (90, 50, 10)),
        ({"train": 100, "val": 50, "test": 20}, None, (100, 50, 20)),
        ({"train": 100, "test": 50}, "60/40", (81, 9, 60)),
        ({"train": 100, "test": 50}, "100/20/30", (100, 20, 30)),
        ({"val": 100, "test": 100}, None, (160, 20, 20)),
    ],
)
def test_sizes(parts: dict[str, int], split: str | None, sizes: tuple[int, int, int]) -> None:
    total, rows = sum(parts.values()), {}
    for name, size in parts.items():
        start = sum(map(len, rows.values()))
        rows[name] = np.arange(start, start + size)
    sets = divide(rows, np.arange(total) % 2, split, 0, total)
    assert tuple(len(sets[name]) for name in ("train", "val", "test")) == sizes
    assert sorted(np.concatenate(list(sets.values()))) == list(range(total))


@given(st.lists(st.integers(0, 5), min_size=12, max_size=60), st.integers(0, 9))
def test_each_class_is_in_train_and_sizes_are_kept(values: list[int], seed: int) -> None:
    """Also of a class with a single image; what is drawn is as large as without such classes."""
    labels = np.array(values)
    sets = divide({"all": np.arange(len(labels))}, labels, None, seed, len(labels))
    assert set(labels[sets["train"]]) == set(values)
    assert len(sets["test"]) == len(sets["val"]) == max(1, round(len(labels) / 10))
    assert sorted(np.concatenate(list(sets.values()))) == list(range(len(labels)))


def test_a_set_without_an_image() -> None:
    parts, none = {"all": np.arange(2)}, np.zeros(2, np.int64)
    with pytest.raises(SettingError, match=r"leaves no image for val \(images: 2, classes: 1\)"):
        divide(parts, none, None, 0, 2)
    with pytest.raises(SettingError, match=r"leaves no image for test \(images: 2, classes: 2\)"):
        divide(parts, np.arange(2), None, 0, 2)
    with warnings.catch_warnings(action="error"), pytest.raises(SettingError, match=r"\(images: 2, groups: 2\)"):
        divide(parts, none, None, 0, 2, np.arange(2))
    with warnings.catch_warnings(action="error"), pytest.raises(SettingError, match=r"\(images: 2, groups: 1\)"):
        divide(parts, none, None, 0, 2, none)


def test_equal_images_leave_train_and_val() -> None:
    digests = np.arange(6, dtype=np.uint8)[:, None].repeat(16, axis=1)
    digests[1] = digests[3] = digests[5]
    sets = {"train": np.array([0, 1]), "val": np.array([2, 3]), "test": np.array([4, 5])}
    kept, n = without_test_images(sets, digests)
    assert ([rows.tolist() for rows in kept.values()], n) == ([[0], [2], [4, 5]], 2)
