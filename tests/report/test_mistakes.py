"""Confident errors, confused pairs and orders of classes on answers made by hand."""

from __future__ import annotations

import torch

from convscope.nets import Head
from convscope.report import ReportedRun
from convscope.report.mistakes import confident_errors, confused_pairs, orders
from convscope.report.subject import HeadPredictions

NAMES = ("cat", "dog", "fox")


class Answered(ReportedRun):
    """A subject of which the answers alone are known; a thumbnail is the name of its image."""

    def __init__(self, *answers: HeadPredictions) -> None:
        self.__dict__["answers"] = list(answers)

    def class_names(self, head: int) -> tuple[str, ...]:
        return tuple(f"{name}{head}" for name in NAMES)

    def thumbnail(self, row: int) -> str:
        return f"picture {row}"


def answers(true: list[int], predicted: list[int], percent: list[int]) -> HeadPredictions:
    confidence = torch.tensor(percent, dtype=torch.float64) / 100
    return HeadPredictions(Head("class", "softmax", NAMES), torch.tensor(true), torch.tensor(predicted), confidence)


# Five cats, of which two are taken for dogs and one for a fox; three dogs, of which one is taken for a cat; a fox.
FIRST = answers([0, 0, 0, 0, 0, 1, 1, 1, 2], [0, 1, 1, 2, 0, 1, 0, 1, 2], [99, 60, 90, 70, 98, 97, 80, 96, 95])


def test_the_most_confident_errors_come_first() -> None:
    found = confident_errors(Answered(FIRST))
    assert [(one["row"], one["confidence"]) for one in found] == [(2, 0.9), (6, 0.8), (3, 0.7), (1, 0.6)]
    assert found[1] == {"row": 6, "picture": "picture 6", "true": "dog0", "predicted": "cat0", "confidence": 0.8}


def test_errors_of_all_heads_are_in_one_row() -> None:
    second = answers([0, 1, 2, 2, 2, 2, 2, 2, 2], [0, 2, 2, 2, 2, 2, 2, 2, 0], [50, 85, 50, 50, 50, 50, 50, 50, 65])
    found = confident_errors(Answered(FIRST, second))
    assert [(one["row"], one["true"], one["predicted"]) for one in found] == [
        (2, "cat0", "dog0"), (1, "dog1", "fox1"), (6, "dog0", "cat0"), (3, "cat0", "fox0"), (8, "fox1", "cat1"),
        (1, "cat0", "dog0"),
    ]  # fmt: skip


def test_a_pair_is_a_share_of_the_images_of_the_true_class() -> None:
    """Two of five cats are taken for dogs: 2/5, though four images are called dogs."""
    found = confused_pairs(Answered(FIRST))
    assert [(one["true"], one["predicted"], one["images"], one["share"]) for one in found] == [
        ("cat0", "dog0", 2, 2 / 5), ("cat0", "fox0", 1, 1 / 5), ("dog0", "cat0", 1, 1 / 3),
    ]  # fmt: skip


def test_the_examples_of_a_pair_are_its_images_the_most_confident_first() -> None:
    first, *_ = confused_pairs(Answered(FIRST))
    assert [(one["row"], one["picture"], one["confidence"]) for one in first["examples"]] == [
        (2, "picture 2", 0.9), (1, "picture 1", 0.6),
    ]  # fmt: skip


def test_the_hardest_class_is_the_one_least_often_recognised() -> None:
    """Recalls are 0.9, 0.5 and 0.8, precisions 0.6, 1 and 0.8."""
    found = orders([[9, 0, 1], [4, 5, 1], [2, 0, 8]])
    assert found["hardest first"] == [1, 2, 0]
    assert found["as given"] == [0, 1, 2]


def test_classes_that_are_confused_stand_side_by_side() -> None:
    """0 with 2 and 1 with 3, hardly any other."""
    found = orders([[50, 1, 30, 0], [0, 50, 1, 30], [30, 0, 50, 1], [0, 30, 0, 50]])["confused side by side"]
    assert {frozenset(found[:2]), frozenset(found[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
