"""Sentences about class imbalance, on confusion matrices made by hand; the exact test is SciPy's."""

from typing import Any

import pytest
from scipy.stats import binomtest

from convscope.runs import Recipe
from convscope.scans import imbalance_in_words
from convscope.scans.imbalance import p_of_most_frequent

ADVICE = "Try recipe.class_weights: balanced, or recipe.sampling: balanced."


def _said(matrix: list[list[int]], recipe: Recipe | None = None, **others: list[list[int]]) -> list[str]:
    heads: dict[str, Any] = {
        target: {"classes": [f"k{n}" for n in range(len(confusion))], "confusion": confusion}
        for target, confusion in {"class": matrix, **others}.items()
    }
    return imbalance_in_words({"heads": heads}, recipe or Recipe())


@pytest.mark.parametrize(
    ("right", "n", "share"), [(0, 7, 0.5), (7, 7, 0.9), (90, 100, 0.9), (96, 100, 0.9), (5, 9, 1.0)]
)
def test_the_test_is_the_exact_one_of_scipy(right: int, n: int, share: float) -> None:
    expected = binomtest(right, n, share, alternative="greater").pvalue
    assert p_of_most_frequent(right, n, share) == pytest.approx(expected)


def test_a_network_that_names_one_class_alone() -> None:
    assert _said([[90, 0], [10, 0]]) == [
        "Test accuracy is not shown to be better than always predicting “k0”, the most frequent class (90.0 % of the images; "
        "p = 0.58, exact binomial test).",
        f"1 of 2 classes with test images is never predicted: “k1”. {ADVICE}",
    ]


def test_a_little_better_is_not_shown_on_few_images_and_is_on_many() -> None:
    [said] = _said([[89, 1], [7, 3]])
    assert "92.0" not in said
    assert f"p = {binomtest(92, 100, 0.9, alternative='greater').pvalue:.2f}, exact binomial test). {ADVICE}" in said
    assert _said([[8900, 100], [700, 300]]) == []


def test_a_good_network_and_classes_without_test_images_give_no_sentence() -> None:
    assert _said([[50, 0, 0], [1, 49, 0], [0, 0, 0]]) == []


def test_even_classes_get_no_advice_and_neither_does_a_recipe_that_follows_it() -> None:
    assert _said([[30, 20], [30, 20]])[-1].endswith("(50.0 % of the images; p = 0.54, exact binomial test).")
    for recipe in (Recipe(class_weights="balanced"), Recipe(class_weights={"k1": 2}), Recipe(sampling="balanced")):
        assert _said([[90, 0], [10, 0]], recipe)[-1].endswith("never predicted: “k1”.")


def test_the_advice_looks_at_the_training_images() -> None:
    """The test images may be even, and the training images not; figures of before there were their counts have none."""
    head = {"classes": ["a", "b"], "confusion": [[50, 0], [50, 0]]}
    for counts, advised in (([900, 30], True), ([30, 30], False), ([900, 0], False)):
        said = imbalance_in_words({"heads": {"class": head | {"train_images": counts}}}, Recipe())
        assert said[-1].endswith(ADVICE) == advised
    assert not imbalance_in_words({"heads": {"class": head}}, Recipe())[-1].endswith(ADVICE)


def test_of_many_classes_that_are_never_predicted_five_are_named() -> None:
    matrix = [[40 * (predicted == min(true, 1)) for predicted in range(9)] for true in range(9)]
    [said] = _said(matrix)
    assert said == "7 of 9 classes with test images are never predicted: “k2”, “k3”, “k4”, “k5”, “k6” and 2 more."


def test_of_several_heads_each_has_its_own_sentences() -> None:
    said = _said([[50, 0], [0, 50]], colour=[[90, 0], [10, 0]])
    assert [sentence.split(" ")[:2] for sentence in said] == [["Colour:", "test"], ["Colour:", "1"]]
