"""What a table says of images: the class, the split and the group of each row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np

from convscope.data.source import Source, split_of
from convscope.data.spec import LABEL_COLUMNS, Labels
from convscope.errors import DataError, UnknownNameError


class Role(Enum):
    """What a column tells beside the class."""

    SPLIT = "split"
    GROUP = "group"


Answers = dict[str | Role, list[str]]
"""For each target the class of each row, and its split and its group where there are such columns; '' where nothing is said."""


def answers_in(
    columns: Mapping[str, Sequence[Any]], labels: Labels, where: str
) -> tuple[Answers, dict[str | Role, str]]:
    """What the columns of a table say, and which of them says what.

    Args:
        columns: by name; values of any kind.
        labels: which columns are meant, where they have no usual name.
        where: what a message calls the table.
    Raises:
        UnknownNameError: a column that is asked for is not there.
        DataError: no column of labels is found.
    """
    names = labels.label or usual_columns(columns, LABEL_COLUMNS)[:1]
    if not names:
        raise DataError(
            f"{where}: has the columns {', '.join(columns)}; expected one of labels ({', '.join(LABEL_COLUMNS)}): rename "
            "it, or name it with data.labels.label"
        )
    others = [name for name in columns if name not in names]
    roles: dict[str | Role, str] = dict(columns_of_targets(names))
    for role, named in ((Role.SPLIT, labels.split), (Role.GROUP, labels.group)):
        if name := named or next(iter(usual_columns(others, [role.value])), None):
            roles[role] = name
    check_columns(roles.values(), columns, where)
    answers = {
        role: as_texts(columns[name], f"{where}, column {name}" if isinstance(role, str) else where)
        for role, name in roles.items()
    }
    if not any(answers.get(Role.SPLIT, ())):
        answers.pop(Role.SPLIT, None)
    return answers, roles


def columns_of_targets(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each target with its column: the first is 'class', and several are targets by their own names too."""
    return [("class", names[0]), *((name, name) for name in names if len(names) > 1)]


def usual_columns(columns: Iterable[str], usual: Sequence[str]) -> list[str]:
    """The columns of a table with a usual name, in upper or lower case; in the order of `usual`, exact spelling first."""
    ranks = [(usual.index(lower), name != lower, name) for name in columns if (lower := name.strip().lower()) in usual]
    return [name for *_, name in sorted(ranks)]


def check_columns(names: Iterable[str], columns: Collection[str], where: str) -> None:
    """Raises UnknownNameError for a column that is not there."""
    for name in names:
        if name not in columns:
            raise UnknownNameError("column", name, columns, f"in {where}")


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


def with_answers(source: Source, answers: Answers, where: str) -> Source:
    """The source with the parts, the groups and the faults that follow from what is said of its rows.

    Rows without a label, or without the split that others have, are faults; one without a group is a group by itself.

    Raises:
        DataError: a split has a name that stands for none.
    """
    faults: dict[int, str] = {}
    for role, values in answers.items():
        if role is not Role.GROUP:
            what = {"class": "label", Role.SPLIT: "split"}.get(role, role)
            faults |= {row: f"has no {what} in {where}" for row, value in enumerate(values) if not value}
    parts, groups = source.parts, None
    if Role.SPLIT in answers:
        by_split: dict[str, list[int]] = {}
        for row, word in enumerate(answers[Role.SPLIT]):
            split = split_of([word])
            if word and split is None:
                raise DataError(
                    f"{where}: {word[:80]!r} is no split; expected train, val or test in that column; mend or rename it"
                )
            if split:
                by_split.setdefault(split, []).append(row)
        if len(by_split) == 1:
            by_split = {"all": next(iter(by_split.values()))}
        parts = {split: np.array(rows, np.int64) for split, rows in by_split.items()}
    if Role.GROUP in answers:
        numbers: dict[str, int] = {}
        names = (name or f"row {row}\n" for row, name in enumerate(answers[Role.GROUP]))
        groups = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    return replace(source, parts=parts, groups=groups, faults=faults | dict(source.faults))


def roles_in_words(roles: Mapping[str | Role, str], answers: Answers) -> str:
    """Which column says what."""
    targets = dict.fromkeys(name for role, name in roles.items() if isinstance(role, str))
    words = [f"{'class' if len(targets) == 1 else 'target'}: {name}" for name in targets]
    if Role.GROUP in roles:
        words.append(f"group: {roles[Role.GROUP]} ({len(set(answers[Role.GROUP]) - {''}):,})")
    if Role.SPLIT in roles:
        words.append(f"split: {roles[Role.SPLIT]}")
    return ", ".join(words)
