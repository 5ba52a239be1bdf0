"""What the findings say, and what they keep silent about, on tables made by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convscope.report.findings import _calibration, _classes, _confusion, _overfitting
from convscope.runs import Recipe
from convscope.scans import proportion


def _head(matrix: list[list[int]]) -> dict[str, Any]:
    rows = [
        {"class": f"k{i}", "images": sum(row), "recall": proportion(row[i], sum(row)).to_json()}
        for i, row in enumerate(matrix)
    ]
    return {"confusion": matrix, "classes": [f"k{i}" for i in range(len(matrix))], "per_class": rows}


def test_the_pair_with_most_mistakes_both_ways_is_named() -> None:
    head = _head([[90, 5, 0, 0], [0, 95, 0, 0], [0, 0, 90, 4], [0, 0, 4, 90]])
    assert _confusion(head).startswith(
        "The most confused pair: “k3” was predicted as “k2” 4 times, “k2” as “k3” 4 times"
    )
    assert "together 62 % of 13 errors" in _confusion(head)
    assert _confusion(_head([[9, 0], [0, 9]])) == "No test image is misclassified."


def test_the_more_frequent_direction_of_a_confusion_is_named_first() -> None:
    assert _confusion(_head([[90, 2, 0], [7, 90, 0], [0, 1, 90]])).startswith(
        "The most confused pair: “k1” was predicted as “k0” 7 times, “k0” as “k1” twice"
    )
    assert _confusion(_head([[90, 7], [2, 90]])) == "“k0” was predicted as “k1” 7 times, “k1” as “k0” twice."


def test_equally_hard_classes_are_rarely_told_apart() -> None:
    """20 classes of 400 images, all of accuracy 0.9: with a level of 5 % in all, 200 trials may name one 10 + 12 times."""
    generator = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        right = generator.binomial(400, 0.9, 20)
        matrix = [[0] * 20 for _ in range(20)]
        for i, n in enumerate(right.tolist()):
            matrix[i][i], matrix[i][(i + 1) % 20] = n, 400 - n
        named += _classes(_head(matrix)).startswith("Classes differ")
    assert named <= 22


def test_a_class_that_is_clearly_harder_is_named() -> None:
    head = _head([[300, 100], [20, 380]])
    assert _classes(head).startswith("Recall differs between classes: it is lowest for “k0”, 75.0 %")
    assert "and highest for “k1”, 95.0 %" in _classes(head)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "There is no sign of overfitting"),
        ({"cutmix": 1.0}, "Train accuracy is that of training images that are mixed in pairs: its difference"),
        (
            {"sampling": "balanced"},
            "Train accuracy is that of class-balanced draws of the training images: its difference",
        ),
    ],
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_overfitting_is_read_from_train_accuracy_only_where_it_can_be(changes: dict[str, Any], expected: str) -> None:
    metrics = {"overfit_percent": {"value": 0.1, "low": -0.4, "high": 0.4}}
    subject = SimpleNamespace(run=SimpleNamespace(spec=SimpleNamespace(recipe=Recipe(**changes))), metrics=metrics)
    assert _overfitting(subject).startswith(expected)  # type: ignore[arg-type]


def test_calibration_in_words() -> None:
    def head(bins: list[tuple[int, float, float]], error: float, high: float) -> dict[str, Any]:
        rows = [{"images": n, "accuracy": a, "confidence": c} for n, a, c in bins]
        return {"reliability": rows, "calibration_error": {"value": error, "low": error / 2, "high": high}}

    assert "not calibrated, in both directions" in _calibration(head([(50, 0.3, 0.6), (50, 0.9, 0.6)], 0.3, 0.4))
    assert "overconfident" in _calibration(head([(100, 0.5, 0.8)], 0.3, 0.4))
    assert "underconfident" in _calibration(head([(100, 0.8, 0.5)], 0.3, 0.4))
    assert "well calibrated" in _calibration(head([(100, 0.8, 0.805)], 0.005, 0.015))
