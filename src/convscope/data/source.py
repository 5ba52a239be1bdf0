"""A labelled source before its images are decoded, and the words that sources share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, file_digest
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from convscope.data.images import Item
from convscope.errors import DataError

_OF_SPLIT = r"(set|data|imgs|images)?"  # "trainset", "testdata"
_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029]"  # among them those that end a line
_SPLIT_WORDS = {
    "train": re.compile(rf"train(ing)?{_OF_SPLIT}"),
    "val": re.compile(rf"(val(id(ation)?)?|dev){_OF_SPLIT}"),
    "test": re.compile(rf"test(ing)?{_OF_SPLIT}"),
}


Rows = Int64[np.ndarray, " _"]
"""Some rows of a source."""

PerRow = Int64[np.ndarray, " M"]
"""A number for each row of a source: the index of its class, or that of its group."""


@dataclass(frozen=True, eq=False)
class Source(ABC):
    """Images that can be read one by one, in the order of their rows.

    Args:
        words: where it is, for people: "image folder /data/cats".
        parts: the rows of each split that the source has ('train', 'val', 'test'), or of 'all'.
        targets: for each target ('class' is always there) the index of each row into its `classes`; outside their range
            where the source is wrong.
        classes: the names of each target's classes.
        layout: what its parts were taken for, a line each; none where its format says so itself.
        groups: a number for each row; rows of one number, such as the images of one patient, stay in one split. None where
            each row is its own group.
        faults: why a row cannot be used, as far as that is known before any image is read.
    """

    words: str
    parts: dict[str, Rows]
    targets: dict[str, PerRow]
    classes: dict[str, tuple[str, ...]]
    layout: tuple[str, ...] = field(default=(), kw_only=True)
    groups: PerRow | None = field(default=None, kw_only=True)
    faults: Mapping[int, str] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def digest(self) -> str:
        """A digest of all bytes that the images come from."""

    @abstractmethod
    def items(self, rows: Rows) -> Iterator[Item]:
        """The encoded images of these rows, which ascend."""

    @abstractmethod
    def name(self, row: int) -> str:
        """What to call a row in a message: its file, or its file and row."""

    def short_name(self, row: int) -> str:
        """What to call a row among the others: its file below the source's folder, or its row of a file there."""
        return self.name(row).rsplit("/", 1)[-1]


def split_of(words: Iterable[str]) -> str | None:
    """The split that the first word to name one stands for: ["data", "validation"] gives 'val'."""
    matches = (split for word in words for split, pattern in _SPLIT_WORDS.items() if pattern.fullmatch(word.lower()))
    return next(matches, None)


def rows_of_parts(sizes: dict[str, int]) -> dict[str, Rows]:
    """The rows of each part when the parts follow each other: {"train": 2, "test": 1} gives [0, 1] and [2].

    A source with a single part has no splits, whatever that part is called.
    """
    ends = np.cumsum(list(sizes.values()))
    parts = {name: np.arange(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}
    return parts if len(parts) > 1 else {"all": np.arange(ends[-1])}


def encode_labels(
    values: Sequence[int | str], names: Sequence[str] | None, where: str
) -> tuple[PerRow, tuple[str, ...]]:
    """Labels as indices into class names.

    Integers with names are indices already. Without names the distinct values are the classes, by their number where all are
    numbers, such as 2 and 10.0, otherwise as words; '' and negative integers, by custom 'no label', are none and become −1.

    Args:
        values: integers or strings, one an image.
        names: of the classes, where the source has them.
        where: the file that a message names.

    Raises:
        DataError: labels that are strings, and names of classes.
    """
    distinct = set(values)
    if names is not None:
        if any(isinstance(value, str) for value in distinct):
            raise DataError(f"{where}: labels are strings and class names are given too; leave one of them out")
        return np.asarray(values).astype(np.int64), tuple(names)
    classes = [str(value) for value in distinct if (value != "" if isinstance(value, str) else value >= 0)]
    are_numbers = all(re.fullmatch(r"[+-]?\d{1,18}(\.\d{1,18})?", name) for name in classes)
    classes.sort(key=(lambda name: (float(name), name)) if are_numbers else None)
    index = {name: k for k, name in enumerate(classes)}
    codes = {value: index.get(str(value), -1) for value in distinct}
    return np.array([codes[value] for value in values], np.int64), tuple(classes)


def file_digest_of(file: Path) -> str:
    """A digest of the bytes of a file, read in pieces."""
    try:
        with file.open("rb") as opened:
            return file_digest(opened, lambda: blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None


def check_names(classes: Sequence[str], where: str) -> None:
    """Refuses names of classes that tables and figures could not tell apart or write in a line.

    Raises:
        DataError: two classes have one name, or a name is empty, of several lines or other control characters, or of bytes
            that are no text.
    """
    for name, n in Counter(classes).items():
        if n > 1:
            raise DataError(f"{where}: two classes have the name {name[:80]!r}; give each its own")
        if not name or re.search(_CONTROL, name):
            raise DataError(
                f"{where}: the class {name[:80]!r} has no name of one line without control characters; rename it"
            )
        if re.search("[\ud800-\udfff]", name):
            raise DataError(f"{where}: the name of the class {name[:80]!r} is no UTF-8; rename it")
