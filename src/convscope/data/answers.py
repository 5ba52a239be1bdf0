"""What a table says of images: the class, the split and the group of each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from convscope.data.source import in_order, split_of
from convscope.data.spec import LABEL_COLUMNS, Labels
from convscope.errors import DataError, UnknownNameError


@dataclass(frozen=True)
class Answers:
    """What is said of each row of a source, as it is written; '' where it says nothing.

    Attributes:
        targets: for each target the name of the class.
        splits, groups: where there are such columns.
        where: what a message calls it.
    """

    targets: dict[str, list[str]]
    splits: list[str] | None
    groups: list[str] | None
    where: str

    def encoded(self) -> tuple[dict[str, Int64[np.ndarray, " M"]], dict[str, tuple[str, ...]]]:
        """Targets as indices into their classes, −1 where there is no label; numbers are in their order, words in theirs."""
        indices, classes = {}, {}
        for target, values in self.targets.items():
            names = in_order(set(values) - {""})
            index = {name: k for k, name in enumerate(names)} | {"": -1}
            indices[target] = np.array([index[value] for value in values], np.int64)
            classes[target] = tuple(names)
        return indices, classes

    def faults(self) -> dict[int, str]:
        """The rows without a label, or without the split that others have."""
        faults: dict[int, str] = {}
        for name, values in [*self.targets.items(), ("split", self.splits or ())]:
            what = "label" if name == "class" else name
            faults |= {row: f"has no {what} in {self.where}" for row, value in enumerate(values) if not value}
        return faults

    def parts(self) -> dict[str, Int64[np.ndarray, " n"]]:
        """The rows of each split that is named; of 'all' where none is, or one alone.

        Raises:
            DataError: a split has a name that stands for none.
        """
        if self.splits is None:
            return {"all": np.arange(len(next(iter(self.targets.values()))))}
        by_split: dict[str, list[int]] = {}
        for row, word in enumerate(self.splits):
            split = split_of([word]) if word else "none"
            if split is None:
                raise DataError(
                    f"{self.where}: {word[:80]!r} is no split; expected train, val or test in that column; mend or rename it"
                )
            by_split.setdefault(split, []).append(row)
        by_split.pop("none", None)
        if len(by_split) == 1:
            by_split = {"all": next(iter(by_split.values()))}
        return {split: np.array(rows, np.int64) for split, rows in by_split.items()}

    def group_numbers(self) -> Int64[np.ndarray, " M"] | None:
        """A number for each group; a row without one is a group by itself."""
        if self.groups is None:
            return None
        numbers: dict[str, int] = {}
        return np.array(
            [numbers.setdefault(name or f"row {row}\n", len(numbers)) for row, name in enumerate(self.groups)], np.int64
        )


def answers_in(columns: Mapping[str, Sequence[Any]], labels: Labels, where: str) -> tuple[Answers, tuple[str, ...]]:
    """What the columns of a table say, and which of them say it.

    Args:
        columns: by name; values of any kind.
        labels: which columns are meant, where they have no usual name.
        where: what a message calls the table.
    Raises:
        UnknownNameError: a column that is asked for is not there.
        DataError: no column of labels is found.
    """
    targets = [known_column(columns, name, where) for name in labels.label or ()]
    targets = targets or usual_columns(columns, LABEL_COLUMNS)[:1]
    if not targets:
        raise DataError(
            f"{where}: has the columns {', '.join(columns)}; expected one of labels ({', '.join(LABEL_COLUMNS)}): rename "
            "it, or name it with data.labels.label"
        )
    others = [name for name in columns if name not in targets]
    split, group = (
        known_column(columns, named, where) if named else next(iter(usual_columns(others, [usual])), None)
        for named, usual in ((labels.split, "split"), (labels.group, "group"))
    )
    texts = {name: as_texts(columns[name], f"{where}, column {name}") for name in targets}
    named = texts if len(targets) > 1 else {}
    splits = as_texts(columns[split], where) if split else None
    answers = Answers(
        {"class": texts[targets[0]], **named},
        splits if splits and any(splits) else None,
        as_texts(columns[group], where) if group else None,
        where,
    )
    return answers, tuple(name for name in (*targets, split, group) if name)


def usual_columns(columns: Iterable[str], usual: Sequence[str]) -> list[str]:
    """The columns of a table with a usual name, in upper or lower case; in the order of `usual`, exact spelling first."""
    ranks = [(usual.index(lower), name != lower, name) for name in columns if (lower := name.strip().lower()) in usual]
    return [name for *_, name in sorted(ranks)]


def known_column(columns: Mapping[str, Any], name: str, where: str) -> str:
    """The name of a column that is there.

    Raises:
        UnknownNameError: it is not.
    """
    if name not in columns:
        raise UnknownNameError("column", name, columns, f"in {where}")
    return name


def as_texts(values: Iterable[Any], where: str) -> list[str]:
    """Values as text: whole numbers without a point, '' for what is missing.

    Raises:
        DataError: one is no word and no whole number.
    """
    texts = []
    for value in values:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            texts.append("")
        elif isinstance(value, float) and value.is_integer():
            texts.append(str(int(value)))
        elif isinstance(value, str | int | np.integer):
            texts.append(str(value).strip())
        else:
            raise DataError(f"{where}: {str(value)[:40]!r} is no word and no whole number; convert the column")
    return texts


def roles_in_words(used: Sequence[str], answers: Answers) -> str:
    """Which column says what."""
    n = len(answers.targets) - (used[0] != "class") or 1
    roles = [f"{'class' if n == 1 else 'target'}: {name}" for name in used[:n]]
    rest = list(used[n:])
    if answers.groups is not None:
        roles.append(f"group: {rest.pop()} ({len(set(answers.groups) - {''}):,})")
    return ", ".join(roles + [f"split: {name}" for name in rest])
