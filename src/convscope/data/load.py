"""From a request to a DataBundle: find the source, decode it or take it from the cache, divide it."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Unpack

import numpy as np
import torch

from convscope.data import lines
from convscope.data.catalogue import LINES, find, with_defaults
from convscope.data.decode import bad_image, filling_of
from convscope.data.images import without_warnings
from convscope.data.sets import DataBundle, ImageSet, repeats_grey
from convscope.data.source import PerRow, Rows, Source, check_names
from convscope.data.spec import IMAGENET, DataSettings, DataSpec, Normalization, make_spec
from convscope.data.splits import check_groups, check_train_has_each_class, divide, limited, without_test_images
from convscope.data.store import Stored, obtain
from convscope.errors import DataError, SettingError


def load_data(source: str | os.PathLike[str] | DataSpec, **settings: Unpack[DataSettings]) -> DataBundle:
    """A data set, decoded and divided into train, val and test; see DataBundle for how.

    Pixels are decoded once and kept in the cache folder (CONVSCOPE_CACHE moves it), by the content of the
    source and the settings that change them. What would take much of the free memory is mapped from there
    instead of read.

    Args:
        source: a name of `data_names()`, `hub:owner/name`, or a path; DataSpec says more. Or a whole
            DataSpec.
        settings: the other fields of DataSpec; see DataSettings.

    Raises:
        UnknownNameError: the source is no known name and no path; the message lists the names.
        SettingError: a setting is impossible; the message begins with its key.
        DataError: the source cannot be read as labelled images; the message names the file and the remedy.

    Example:
        >>> data = load_data("lines", limit=960)
        >>> len(data.train), len(data.val), len(data.test)
        (518, 58, 384)
    """
    spec = with_defaults(make_spec(source, settings))
    return _lines(spec) if spec.source == LINES else _decoded(spec)


def _lines(spec: DataSpec) -> DataBundle:
    if spec.labels:
        raise SettingError("labels: lines have their own; leave it out")
    n_classes = len(lines.CLASSES["class"])
    per_class = lines.PER_CLASS if spec.limit is None else min(lines.PER_CLASS, spec.limit // n_classes)
    if per_class == 0:
        raise SettingError(f"limit: {spec.limit} is too small for one image of each class; give {n_classes} or more")
    key = {"drawing": lines.DRAWING, "per_class": per_class, "seed": spec.seed}
    stored = obtain(LINES, key, lambda: lines.filling(per_class, spec.seed))
    return _bundle(
        spec,
        stored,
        {"all": np.arange(n_classes * per_class)},
        lines.targets(per_class),
        lines.CLASSES,
        n_classes * lines.PER_CLASS,
        name=LINES,
        source=f"generated, seed {spec.seed}",
        left_out=(),
    )


def _decoded(spec: DataSpec) -> DataBundle:
    name, source = find(spec)
    for names in source.classes.values():
        check_names(names, source.words)
    labels, classes = source.targets["class"], source.classes["class"]
    unlabelled = _unlabelled(source, spec)
    labelled = {part: np.setdiff1d(rows, list(unlabelled)) for part, rows in source.parts.items()}
    usable = {part: rows for part, rows in labelled.items() if len(rows)}
    if not usable:
        raise DataError(f"{source.words}: holds no labelled image; check the path and the labels")
    if spec.limit:
        usable = limited(usable, labels, spec.limit, spec.seed, classes)
    if "train" in usable and spec.split is None:  # before anything is decoded
        check_train_has_each_class(usable, labels, classes, source.words)
    rows = np.sort(np.concatenate(list(usable.values())))
    stored = _stored(name, source, rows, spec)
    faults = {int(rows[position]): reason for position, reason in stored.about["faults"]}
    if faults and not spec.skip_bad:
        row = min(faults)
        raise bad_image(source.name(row), faults[row])
    is_reduced = spec.bits == 8 and stored.about.get("deep", False)  # which entries of earlier versions do not say
    bands = stored.pixels.shape[1]
    words = [source.words, stored.about["encoding"]]
    if spec.bits == 16 or is_reduced:
        words.append("16 bits scaled to 8 (data.bits: 16 keeps them)" if is_reduced else "16 bits")
    if repeats_grey(stored.pixels):
        words.append("grey in 3 channels")
    if bands not in (1, 3):
        words.append(f"{bands} bands (pictures show the first {'three' if bands > 3 else 'one'})")
    return _bundle(
        spec,
        stored,
        {part: np.searchsorted(rows, np.setdiff1d(own, list(faults))) for part, own in usable.items()},
        {target: values[rows] for target, values in source.targets.items()},
        source.classes,
        len(labels),
        tuple(map(source.short_name, rows.tolist())),
        None if source.groups is None else source.groups[rows],
        name=name,
        source=", ".join(words),
        left_out=tuple((source.name(row), reason) for row, reason in sorted({**unlabelled, **faults}.items())),
        layout=source.layout,
        is_reduced=is_reduced,
    )


def _unlabelled(source: Source, spec: DataSpec) -> dict[int, str]:
    """The rows that are known to be of no use before an image is read, and why."""
    wrong = dict(source.faults)
    for target, labels in source.targets.items():
        n_classes = len(source.classes[target])
        for row in np.flatnonzero((labels < 0) | (labels >= n_classes)).tolist():
            none = " (none, as -1 or null)" if labels[row] == -1 else ""
            wrong.setdefault(
                row, f"has the label {labels[row]}{none}, outside 0 … {n_classes - 1}: classes are counted from 0"
            )
    if wrong and not spec.skip_bad:
        first, *others = sorted(wrong)
        more = ""
        if others:
            examples = ", ".join(source.short_name(row) for row in others[:3])
            more = f" (and {len(others):,} more such rows: {examples}{', …' if len(others) > 3 else ''})"
        raise bad_image(source.name(first), f"{wrong[first]}{more}")
    return wrong


def _stored(name: str, source: Source, rows: Rows, spec: DataSpec) -> Stored:
    digest = None if len(rows) == len(source.targets["class"]) else blake2b(rows.tobytes(), digest_size=16).hexdigest()
    key = {"content": source.digest(), "image_size": spec.image_size, "grey": spec.grey, "rows": digest}
    key |= {"bits": spec.bits} if spec.bits != 8 else {}  # entries of earlier versions stay those of 8 bits
    key |= {"channels": spec.channels} if spec.channels not in (None, 1, 3) else {}
    with without_warnings():
        stored = obtain(name, key, lambda: filling_of(source, rows, spec))
    bands = stored.pixels.shape[1]
    if spec.channels not in (None, bands) and not {spec.channels, bands} <= {1, 3}:
        raise SettingError(
            f"channels: {spec.channels}, said here or by the network, and these images have {bands}; take a network for those"
        )
    if spec.channels != 3 or bands != 1:
        return stored
    # the one channel three times; no pixel is copied
    return replace(stored, pixels=stored.pixels.expand(-1, 3, -1, -1), moments=stored.moments.repeat(3, axis=2))


def _bundle(
    spec: DataSpec,
    stored: Stored,
    parts: dict[str, Rows],
    targets: dict[str, PerRow],
    classes: dict[str, tuple[str, ...]],
    total: int,
    names: tuple[str, ...] = (),
    groups: PerRow | None = None,
    **about: Any,
) -> DataBundle:
    """The images in three sets.

    Args:
        parts: the rows of `stored` that can be used, of each split that the source has, or of 'all'.
        targets, classes, names: of all rows, as of an ImageSet.
        total: images in the whole source.
        groups: as of a Source.
        about: the bundle's name, source and left_out; layout and is_reduced.
    """
    labels, words = targets["class"], about["source"]
    divided = divide(parts, labels, spec.split, spec.seed, total, groups)
    if groups is not None:
        check_groups(divided, groups, names, words)
    rows, duplicates = without_test_images(divided, stored.digests)
    check_train_has_each_class(rows, labels, classes["class"], words)
    tensors = {target: torch.from_numpy(values) for target, values in targets.items()}
    mean, std = _normalization(spec, stored, rows["train"])
    content = blake2b(str(stored.pixels.shape[1:]).encode(), digest_size=32)
    for split in ("train", "val", "test"):
        content.update(f"{split} {len(rows[split])}".encode())
        content.update(stored.digests[rows[split]].tobytes())
        for target in sorted(targets):
            content.update(targets[target][rows[split]].astype("<i8").tobytes())
    sets = {
        split: ImageSet(stored.pixels, torch.from_numpy(own), tensors, classes, names) for split, own in rows.items()
    }
    return DataBundle(
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        classes=classes["class"],
        mean=mean,
        std=std,
        digest=content.hexdigest(),
        duplicates=duplicates,
        spec=spec,
        own_side=stored.about.get("side"),
        **about,
    )


def _normalization(spec: DataSpec, stored: Stored, rows: Rows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel in [0, 1]; the images' own from the exact sums that are kept with each image."""
    if spec.normalize == "imagenet":
        return IMAGENET.of(stored.pixels.shape[1])
    if isinstance(spec.normalize, Normalization):
        return spec.normalize.of(stored.pixels.shape[1])
    n_pixels, limit = len(rows) * math.prod(stored.pixels.shape[2:]), torch.iinfo(stored.pixels.dtype).max
    exact = stored.moments[rows].sum(axis=0, dtype=object)  # Python's integers: squares of 16 bits pass 2^63
    sums, squares = (exact / n_pixels).astype(np.float64)
    std = np.sqrt(np.maximum(squares - sums**2, 0)) / limit
    varies = (exact[1] * n_pixels != exact[0] ** 2) & (std > 0)
    return tuple((sums / limit).tolist()), tuple(np.where(varies, std, 1.0).tolist())
