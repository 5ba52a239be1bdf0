"""Which rows become train, val and test: drawn class by class, and no test image in the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from convscope.data.seeds import generator
from convscope.data.source import PerRow, Rows
from convscope.data.spec import Folds, split_shares
from convscope.errors import DataError, SettingError


def stratified(labels: Int64[np.ndarray, " n"], count: int, rng: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """A mask that chooses exactly `count` of n images at random, each class within one of its share.

    The images, shuffled within their classes, stand in a row, class after class; from a random start every
    (n/count)-th is taken, so that each image has the same chance.

    Example:
        >>> int(stratified(np.array([0, 0, 1, 1]), 2, np.random.default_rng(0)).sum())
        2
    """
    n, in_classes = len(labels), _by_class(labels, rng)
    steps = (np.arange(n + 1) * count + rng.integers(max(n, 1))) // max(n, 1)
    chosen = np.zeros(n, bool)
    chosen[in_classes] = np.diff(steps) > 0
    return chosen


def limited(parts: dict[str, Rows], labels: PerRow, limit: int, seed: int, classes: tuple[str, ...]) -> dict[str, Rows]:
    """At most `limit` rows of each part, with each class that the part has.

    Raises:
        SettingError: the limit leaves a class without an image.
    """
    chosen = {}
    for name, rows in parts.items():
        own = labels[rows]
        keep = stratified(own, min(limit, len(rows)), generator("limit", seed))
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
    parts: dict[str, Rows],
    labels: PerRow,
    split: str | Folds | None,
    seed: int,
    total: int,
    groups: PerRow | None = None,
) -> dict[str, Rows]:
    """The rows of train, val and test, each ascending.

    Args:
        parts: the rows of the source's own splits, or of 'all'.
        labels: the class of each row.
        split: as in DataSpec; None keeps the source's own splits and draws those that are missing from train,
            a tenth of it each.
        seed: fixes what is drawn.
        total: images in the whole source, that counts in `split` refer to.
        groups: a number for each row; rows of one number are drawn together.

    Raises:
        SettingError: the split is impossible, or leaves a set without an image.
    """
    if split is None and "train" in parts:
        done, rest = {name: rows for name, rows in parts.items() if name != "train"}, parts["train"]
    else:
        done, rest = {}, np.sort(np.concatenate(list(parts.values())))
    if isinstance(split, Folds):
        in_fold = _fold(labels[rest], split, generator("folds", seed), None if groups is None else groups[rest])
        done["test"], rest, split = rest[in_fold], rest[~in_fold], None
    for name, count in _counts(split, len(rest), total).items():
        if name in done:
            continue
        own, rng = labels[rest], generator(name, seed)
        if groups is None:
            chosen = _sparing_each_class(stratified(own, count, rng), own)
        elif count >= len(rest):
            chosen = np.ones(len(rest), bool)
        else:
            share = count / len(rest)
            chosen = by_groups(own, groups[rest], [share, 1 - share], rng) == 0
        done[name], rest = rest[chosen], rest[~chosen]
    done["train"] = rest
    if empty := [name for name, rows in done.items() if not len(rows)]:
        what, values = ("classes", labels) if groups is None else ("groups", groups)
        raise SettingError(
            f"split: leaves no image for {empty[0]} (images: {len(labels):,}, {what}: {len(np.unique(values)):,}); "
            "choose another one, or add images"
        )
    return done


def _fold(
    labels: Int64[np.ndarray, " n"], split: Folds, rng: np.random.Generator, groups: Int64[np.ndarray, " n"] | None
) -> Bool[np.ndarray, " n"]:
    """A mask of the images of one fold; each class is spread over the folds as evenly as can be."""
    if split.fold is None:
        raise SettingError(
            f"split: none of the {split.folds} folds is chosen as the test set; convscope sweep trains a run for each, and "
            "data.split.fold=0 chooses one"
        )
    if groups is not None:
        return by_groups(labels, groups, [1 / split.folds] * split.folds, rng) == split.fold
    chosen = np.zeros(len(labels), bool)
    chosen[_by_class(labels, rng)[split.fold :: split.folds]] = True
    return chosen


def _by_class(labels: Int64[np.ndarray, " n"], rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """The places of images, shuffled within their classes, class after class."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def by_groups(
    labels: Int64[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"],
    shares: Sequence[float],
    rng: np.random.Generator,
) -> Int64[np.ndarray, " n"]:
    """For each image the place among `shares` that its group goes to, so that every place has its share of each class.

    Groups go one by one, those whose images are spread least evenly over the classes first, to where the classes' shares
    are then nearest to those asked for (least sum of squares, each over the share asked for). With equal shares this is
    scikit-learn's StratifiedGroupKFold. Groups equally uneven go in random order.

    Example:
        >>> by_groups(np.array([0, 1, 0, 1]), np.array([7, 7, 8, 8]), [0.5, 0.5], np.random.default_rng(0)).tolist()
        [0, 0, 1, 1]
    """
    classes, of_class = np.unique(labels, return_inverse=True)
    names, of_group = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (of_group, of_class), 1)
    of_whole = counts / counts.sum(0)  # each group's share of each class
    order = rng.permutation(len(names))
    order = order[np.argsort(-counts[order].std(1), kind="stable")]
    goal, current = np.array(shares), np.zeros((len(shares), len(classes)))
    places = np.zeros(len(names), np.int64)
    for group in order:
        # only the place that takes the group changes its sum
        before, after = current - goal[:, None], current + of_whole[group] - goal[:, None]
        places[group] = ((after**2 - before**2).sum(1) / goal).argmin()
        current[places[group]] += of_whole[group]
    return places[of_group]


def check_groups(sets: dict[str, Rows], groups: PerRow, names: Sequence[str], words: str) -> None:
    """Refuses a source's own splits where images of one group are in two of them.

    Raises:
        DataError: they are; two of the images are named.
    """
    first_of_group: dict[int, tuple[str, int]] = {}
    for split, rows in sets.items():
        for row in rows.tolist():
            other, first = first_of_group.setdefault(int(groups[row]), (split, row))
            if other != split:
                raise DataError(
                    f"{words}: {names[first]} ({other}) and {names[row]} ({split}) are of one group; "
                    "mend the splits, or divide anew with data.split, such as 70/10/20"
                )


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


def check_train_has_each_class(sets: dict[str, Rows], labels: PerRow, classes: tuple[str, ...], words: str) -> None:
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
    remaining = dict(sets)
    for name in ("train", "val"):
        new = np.array([digest.tobytes() not in in_test for digest in digests[sets[name]]], bool)
        remaining[name] = sets[name][new]
        if not len(remaining[name]):
            raise SettingError(f"split: every image of {name} is a test image too; choose another one, or add images")
    return remaining, sum(map(len, sets.values())) - sum(map(len, remaining.values()))


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
