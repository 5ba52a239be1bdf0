"""Which rows become train, val and test: drawn class by class, and no test image in the others."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from convscope.data.seeds import generator
from convscope.data.spec import split_shares
from convscope.errors import DataError, SettingError

Rows = Int64[np.ndarray, " _"]


def stratified(labels: Int64[np.ndarray, " n"], count: int, rng: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """A mask that chooses exactly `count` of n images at random, each class within one of its share.

    The images, shuffled within their classes, stand in a row, class after class; from a random start every
    (n/count)-th is taken, so that each image has the same chance.

    Example:
        >>> stratified(np.array([0, 0, 1, 1]), 2, np.random.default_rng(0)).sum()
        np.int64(2)
    """
    n = len(labels)
    shuffled = rng.permutation(n)
    in_classes = shuffled[np.argsort(labels[shuffled], kind="stable")]
    steps = (np.arange(n + 1) * count + rng.integers(max(n, 1))) // max(n, 1)
    chosen = np.zeros(n, bool)
    chosen[in_classes] = np.diff(steps) > 0
    return chosen


def limited(
    parts: dict[str, Rows], labels: Int64[np.ndarray, " M"], limit: int, seed: int, classes: tuple[str, ...]
) -> dict[str, Rows]:
    """At most `limit` rows of each part, with each class that the part has.

    Raises:
        SettingError: the limit leaves a class without an image.
    """
    chosen = {}
    for name, rows in parts.items():
        own = labels[rows]
        keep = stratified(own, limit, generator("limit", seed)) if len(rows) > limit else np.ones(len(rows), bool)
        present, counts = np.unique(own, return_counts=True)
        if lost := set(present) - set(own[keep]):
            enough = -(-len(rows) // counts.min())
            label = min(lost)
            what = repr(classes[label]) if 0 <= label < len(classes) else label
            where = f" in {name}" if len(parts) > 1 else ""
            raise SettingError(f"limit: {limit} leaves no image of class {what}{where}; {enough} are enough for all")
        chosen[name] = rows[keep]
    return chosen


def divide(
    parts: dict[str, Rows], labels: Int64[np.ndarray, " M"], split: str | None, seed: int, total: int
) -> dict[str, Rows]:
    """The rows of train, val and test, each ascending.

    Args:
        parts: the rows of the source's own splits, or of 'all'.
        labels: the class of each row.
        split: as in DataSpec; None keeps the source's own splits and draws those that are missing from train,
            a tenth of it each.
        seed: fixes what is drawn.
        total: images in the whole source, that counts in `split` refer to.

    Raises:
        SettingError: the split is impossible, or leaves a set without an image.
    """
    if split is None and "train" in parts:
        done, rest = {name: rows for name, rows in parts.items() if name != "train"}, parts["train"]
    else:
        done, rest = {}, np.sort(np.concatenate(list(parts.values())))
    for name, count in _counts(split, len(rest), total).items():
        if name not in done:
            chosen = _sparing_each_class(stratified(labels[rest], count, generator(name, seed)), labels[rest])
            done[name], rest = rest[chosen], rest[~chosen]
    done["train"] = rest
    if empty := [name for name, rows in done.items() if not len(rows)]:
        raise SettingError(f"split: leaves no image for {empty[0]}; choose another one, or add images")
    return done


def _sparing_each_class(chosen: Bool[np.ndarray, " n"], labels: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """The choice, changed where it takes all images of a class, such as a single one: one of them is left, and an image of
    the class with the most left is taken for it, where there is one with two or more."""
    spared = chosen.copy()
    for label in np.setdiff1d(labels, labels[~chosen]):
        spared[np.flatnonzero(spared & (labels == label))[0]] = False
        left = np.flatnonzero(~spared)
        _, first, counts = np.unique(labels[left], return_index=True, return_counts=True)
        if counts.max() > 1:
            spared[left[first[counts.argmax()]]] = True
    return spared


def check_train_has_each_class(
    sets: dict[str, Rows], labels: Int64[np.ndarray, " M"], classes: tuple[str, ...], words: str
) -> None:
    """Refuses images of a class that has none to learn from. A class that is only a name, without any image, is allowed.

    Raises:
        DataError: a class has images in val or test and none in train.
    """
    for name in sets:
        for label in np.setdiff1d(labels[sets[name]], labels[sets["train"]]):
            raise DataError(
                f"{words}: class {classes[label]!r} has images, but none in train (and some in {name}); add some that no "
                "test image equals, or leave the class out"
            )


def without_test_images(sets: dict[str, Rows], digests: UInt8[np.ndarray, "M 16"]) -> tuple[dict[str, Rows], int]:
    """The sets without the train and val images that equal a test image, and how many these were."""
    in_test = {digest.tobytes() for digest in digests[sets["test"]]}
    kept = dict(sets)
    for name in ("train", "val"):
        new = np.array([digest.tobytes() not in in_test for digest in digests[sets[name]]], bool)
        kept[name] = sets[name][new]
        if not len(kept[name]):
            raise SettingError(f"split: every image of {name} is a test image too; choose another one, or add images")
    return kept, sum(map(len, sets.values())) - sum(map(len, kept.values()))


def _counts(split: str | None, n_images: int, total: int) -> dict[str, int]:
    """How many images go into test and val; where val is not said, a tenth of train."""
    if split is None:
        return {"test": max(1, round(n_images / 10)), "val": max(1, round(n_images / 10))}
    _, val, test = split_shares(split, total)
    n_test = round(test * n_images)
    return {
        "test": n_test,
        "val": round(val * n_images) if val is not None else max(1, round((n_images - n_test) / 10)),
    }
