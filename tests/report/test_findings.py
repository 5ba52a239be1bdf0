"""What the findings say, and what they keep silent about, on tables made by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from convscope.report.findings import _accuracy, _calibration, _classes, _confusion, _course, _data, _overfitting
from convscope.runs import Recipe, Stage
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


def _subject(recipe: Recipe, gap: tuple[float, float, float] = (0.0, -1.0, 1.0)) -> Any:
    metrics = {"overfit_percent": dict(zip(("value", "low", "high"), gap, strict=True))}
    return SimpleNamespace(run=SimpleNamespace(spec=SimpleNamespace(recipe=recipe)), metrics=metrics)


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
    assert _overfitting(_subject(Recipe(**changes), (0.1, -0.4, 0.4))).startswith(expected)


@pytest.mark.usefixtures("annotations_unchecked")
def test_of_several_heads_the_most_frequent_combination_is_what_a_constant_answer_gets_right() -> None:
    """Red and large go together: one constant answer is right for both of 3 images of 5, not for 0.6 × 0.8."""
    targets = {"colour": torch.tensor([0, 0, 0, 1, 1]), "size": torch.tensor([1, 1, 1, 1, 0])}
    subject = SimpleNamespace(
        metrics={"accuracy": {"value": 0.8, "low": 0.4, "high": 0.9}, "images": 5, "heads": dict.fromkeys(targets)},
        data=SimpleNamespace(test=SimpleNamespace(targets_of=targets.__getitem__)),
    )
    assert _accuracy(subject).endswith("always predicting the most frequent combination of classes would give 60.0 %.")
    del subject.metrics["heads"]["colour"]
    assert _accuracy(subject).endswith("always predicting the most frequent class would give 80.0 %.")


def _course_of(losses: list[float], accuracies: list[float], of_stages: list[str] | None = None, **recipe: Any) -> str:
    history = {"epoch": range(1, len(losses) + 1), "val_loss": losses, "val_accuracy": accuracies}
    subject = _subject(Recipe(**recipe))
    subject.run.history = pd.DataFrame(history | ({"stage": of_stages} if of_stages else {}))
    return _course(subject)


@pytest.mark.usefixtures("annotations_unchecked")
def test_patience_is_advised_only_where_it_would_have_helped() -> None:
    rises = [1.0, 0.5, 0.7, 0.8]
    course = "The validation loss was lowest in epoch 2 of 4 and rose afterwards"
    assert _course_of(rises, [0.5, 0.8, 0.8, 0.7]) == f"{course}: patience would have helped."
    better = _course_of(rises, [0.5, 0.8, 0.8, 0.9])
    assert better == f"{course}, while validation accuracy went from 80.0 to 90.0 %."
    assert _course_of(rises, [0.5, 0.8, 0.8, 0.7], patience=2) == ""


@pytest.mark.usefixtures("annotations_unchecked")
def test_the_course_is_that_of_the_last_stage() -> None:
    stages = tuple(Stage(name=name, epochs=3, rate=0.1) for name in ("head", "all"))
    names = ["head"] * 3 + ["all"] * 3
    flat = [0.5] * 6
    assert _course_of([0.2, 0.3, 0.4, 0.9, 0.9, 0.9], flat, names, stages=stages) == ""
    found = _course_of([0.2, 0.3, 0.4, 0.7, 0.8, 0.9], flat, names, stages=stages)
    assert found.startswith("The validation loss was lowest in epoch 4 of 6")


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
    subject = _subject(Recipe(augmentation=augmentation), (-3.0, -5.0, -1.0))
    subject.anatomy = SimpleNamespace(layers=[SimpleNamespace(kind=kind) for kind in kinds])
    assert _overfitting(subject).startswith(f"Test accuracy is 3.0 points above train accuracy: {why}")


@pytest.mark.usefixtures("annotations_unchecked")
def test_few_test_images_do_not_tell_whether_a_network_overfits() -> None:
    assert _overfitting(_subject(Recipe(), (4.0, -1.0, 9.0))) == (
        "Whether the network overfits cannot be told: train accuracy less test accuracy is 4.0 points "
        "(95 % interval −1.0 to 9.0)."
    )
    assert _overfitting(_subject(Recipe(), (-0.04, -0.4, 0.3))) == (
        "There is no sign of overfitting: train accuracy less test accuracy is 0.0 points (95 % interval −0.4 to 0.3)."
    )


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


def test_right_probabilities_are_rarely_said_to_be_wrong() -> None:
    """100 networks whose probabilities are right, of 200 test images each, with three bins: five may be named by chance."""
    generator = np.random.default_rng(0)
    images, confidence = np.array([40, 60, 100]), np.array([0.55, 0.75, 0.95])
    named = 0
    for right in generator.binomial(images, confidence, (100, 3)):
        rows = [
            {"images": int(n), "accuracy": r / n, "confidence": float(c)}
            for n, r, c in zip(images, right, confidence, strict=True)
        ]
        error = float(abs(right - images * confidence).sum() / 200)
        said = _calibration({"reliability": rows, "calibration_error": {"value": error, "low": 0.0, "high": 2 * error}})
        named += "cannot be told" not in said and "well calibrated" not in said
    assert named <= 10
