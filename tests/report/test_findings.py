"""What the findings say, and what they keep silent about, on tables made by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from convscope.report.findings import _accuracy, _calibration, _classes, _confusion, _course, _data, _overfitting
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


def test_no_pair_is_named_where_several_are_confused_as_often() -> None:
    assert _confusion(_head([[9, 1, 0], [0, 9, 1], [0, 0, 9]])) == (
        "2 pairs of classes are confused most often, once each; there are 2 errors in all."
    )
    assert _confusion(_head([[9, 0, 0], [0, 9, 0], [0, 1, 9]])) == (
        "One test image is misclassified: “k2” was predicted as “k1”."
    )


def test_equally_hard_classes_are_rarely_told_apart() -> None:
    """20 classes of 400 images, all of accuracy 0.9: with a level of 5 % in all, 200 trials may name one 10 + 12 times."""
    generator = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        right = generator.binomial(400, 0.9, 20)
        matrix = [[0] * 20 for _ in range(20)]
        for i, n in enumerate(right.tolist()):
            matrix[i][i], matrix[i][(i + 1) % 20] = n, 400 - n
        named += _classes(_head(matrix)).startswith("Recall differs")
    assert named <= 22


def test_one_class_alone_is_not_compared() -> None:
    assert _classes(_head([[7, 3], [0, 0]])) == ""


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
    assert _overfitting(_overfits(0.1, -0.4, 0.4, **changes)).startswith(expected)


def _overfits(value: float, low: float, high: float, **recipe: Any) -> Any:
    metrics = {"overfit_percent": {"value": value, "low": low, "high": high}}
    return SimpleNamespace(run=SimpleNamespace(spec=SimpleNamespace(recipe=Recipe(**recipe))), metrics=metrics)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("augmentation", "kinds", "why"),
    [
        ({}, [], "the running average includes earlier weights."),
        ({"crop": 2}, ["dropout"], "augmentation makes the training images harder, dropout leaves out units, and the "),
    ],
)
def test_test_accuracy_above_train_accuracy_is_put_down_to_what_the_recipe_has(
    augmentation: dict[str, int], kinds: list[str], why: str
) -> None:
    subject = _overfits(-3.0, -5.0, -1.0, augmentation=augmentation)
    subject.anatomy = SimpleNamespace(layers=[SimpleNamespace(kind=kind) for kind in kinds])
    assert _overfitting(subject).startswith(f"Test accuracy is 3.0 points above train accuracy: {why}")


@pytest.mark.usefixtures("annotations_unchecked")
def test_few_test_images_do_not_tell_whether_a_network_overfits() -> None:
    assert _overfitting(_overfits(4.0, -1.0, 9.0)) == (
        "Whether the network overfits cannot be told: train accuracy less test accuracy is 4.0 points "
        "(95 % interval −1.0 to 9.0)."
    )
    assert _overfitting(_overfits(-0.04, -0.4, 0.3)) == (
        "There is no sign of overfitting: train accuracy less test accuracy is 0.0 points (95 % interval −0.4 to 0.3)."
    )


@pytest.mark.usefixtures("annotations_unchecked")
def test_always_predicting_the_most_frequent_class_of_two_heads_counts_images() -> None:
    """Left comes with top, so that the most frequent of both are right in 6 of 10 images, not in 6 × 6 of 100."""
    true = torch.tensor([0] * 6 + [1] * 4)
    figure = {"value": 0.9, "low": 0.6, "high": 0.98}
    subject = SimpleNamespace(metrics={"accuracy": figure, "images": 10}, answers=[SimpleNamespace(true=true)] * 2)
    assert _accuracy(subject).endswith("the most frequent class would give 60.0 %.")


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(("patience", "said"), [(None, "patience would have helped."), (3, "")])
def test_patience_is_advised_only_where_there_was_none(patience: int | None, said: str) -> None:
    run = SimpleNamespace(
        history=pd.DataFrame({"val_loss": [1.0, 0.5, 0.6, 0.7, 0.8]}),
        spec=SimpleNamespace(recipe=Recipe(epochs=9, patience=patience)),
    )
    assert _course(SimpleNamespace(run=run)).partition(": ")[2] == said


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_was_left_out_of_the_data() -> None:
    def told(duplicates: int, *left_out: str) -> str:
        return _data(SimpleNamespace(data=SimpleNamespace(duplicates=duplicates, left_out=left_out)))

    assert told(1) == "Left out of the data: 1 training image with the pixels of a test image."
    assert told(0, "a.jpg", "b.jpg") == "Left out of the data: 2 files that could not be read."
    assert told(0) == ""


def test_calibration_in_words() -> None:
    def head(bins: list[tuple[int, float, float]], error: float, high: float) -> dict[str, Any]:
        rows = [{"images": n, "accuracy": a, "confidence": c} for n, a, c in bins]
        return {"reliability": rows, "calibration_error": {"value": error, "low": error / 2, "high": high}}

    assert "are not calibrated: the calibration error is 30.0 points" in _calibration(
        head([(50, 0.3, 0.6), (50, 0.9, 0.6)], 0.3, 0.4)
    )
    assert "overconfident" in _calibration(head([(100, 0.5, 0.8)], 0.3, 0.4))
    assert "underconfident" in _calibration(head([(100, 0.8, 0.5)], 0.3, 0.4))
    assert "well calibrated" in _calibration(head([(100, 0.8, 0.805)], 0.005, 0.015))
    assert _calibration(head([(2, 0.5, 0.6), (6, 1.0, 0.9)], 0.1, 0.3)) == (
        "Whether the probabilities are calibrated cannot be told from 8 test images: the calibration error is 10.0 points."
    )
