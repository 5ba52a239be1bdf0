"""What class imbalance may do to a classifier, in words: no better than the most frequent class, classes never predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convscope.data import DataBundle
from convscope.runs import Recipe, Run
from convscope.scans.evaluate import class_counts, feed_set, kept_epoch
from convscope.scans.metrics import Confusion

_LEVEL = 0.05
_MOST_NAMES = 5
_UNEVEN = 2  # times the images of the smallest class, from where on balancing may help


def imbalance_in_words(metrics: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Sentences about an evaluated run, each only where it holds for a head; none of a network without such a fault.

    Args:
        metrics: see evaluate.
        recipe: of the run; what it does against imbalance already is not advised.
    """
    heads, sentences = metrics["heads"], []
    for target, head in heads.items():
        about = f"{target.capitalize()}: test" if len(heads) > 1 else "Test"
        matrix = np.array(head["confusion"])
        images = matrix.sum(1).tolist()
        faults = [
            *_not_better(f"{about} accuracy", int(matrix.trace()), images, head["classes"]),
            *_never_predicted(f"{target.capitalize()}: " if len(heads) > 1 else "", matrix, head["classes"]),
        ]
        sentences += _advised(faults, head.get("train_images", images), recipe)
    return sentences


def validation_in_words(run: Run, data: DataBundle, device: str = "auto") -> list[str]:
    """The same of the validation accuracy of a trained run that is not evaluated.

    That of one head is in the history; of several heads the network runs over the validation images once more.

    Args:
        run: trained.
        data: its data set.
        device: see convscope.compute.choose_device.
    """
    heads, sentences = run.task.heads, []
    for head, right in zip(heads, _right_of_heads(run, data, device), strict=True):
        about = f"{head.target.capitalize()}: validation" if len(heads) > 1 else "Validation"
        faults = _not_better(f"{about} accuracy", right, class_counts(data.val, head), head.classes)
        sentences += _advised(faults, class_counts(data.train, head), run.spec.recipe)
    return sentences


def _right_of_heads(run: Run, data: DataBundle, device: str) -> list[int]:
    """How many validation images each head gets right."""
    if len(run.task.heads) == 1:
        return [round(float(kept_epoch(run)["val_accuracy"]) * len(data.val))]
    scans = [Confusion(head) for head in run.task.heads]
    feed_set(run, data.val, scans, device)
    return [int(scan.result().diagonal().sum()) for scan in scans]


def p_of_most_frequent(right: int, n: int, share: float) -> float:
    """How likely so many right answers, or more, are for one who is right with the probability `share`.

    The one-sided exact binomial test of an accuracy against the share of the most frequent class (the no-information rate),
    which is taken as known.

    Args:
        right: right answers.
        n: of so many.
        share: of the most frequent class among the images, 0 to 1.
    Source: `confusionMatrix` of caret (Kuhn 2008, doi:10.18637/jss.v028.i05).

    Example:
        >>> p_of_most_frequent(90, 100, 0.9) > 0.5
        True
    """
    from scipy.special import bdtrc  # what looks at a single image needs no SciPy

    return float(bdtrc(right - 1, n, share)) if right else 1.0


def _not_better(accuracy: str, right: int, images: Sequence[int], classes: Sequence[str]) -> list[str]:
    n, most = sum(images), max(range(len(images)), key=images.__getitem__)
    share = images[most] / max(1, n)
    p = p_of_most_frequent(right, n, share)
    if p < _LEVEL:
        return []
    return [
        f"{accuracy} is not shown to be better than always predicting “{classes[most]}”, the most frequent class "
        f"({100 * share:.1f} % of the images; p = {p:.2f}, exact binomial test)."
    ]


def _never_predicted(about: str, matrix: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    images, predicted = matrix.sum(1), matrix.sum(0)
    names = [f"“{classes[k]}”" for k in np.flatnonzero((images > 0) & (predicted == 0)).tolist()]
    if not names:
        return []
    listed = ", ".join(names[:_MOST_NAMES]) + (f" and {len(names) - _MOST_NAMES} more" * (len(names) > _MOST_NAMES))
    verb = "is" if len(names) == 1 else "are"
    return [
        f"{about}{len(names)} of {np.count_nonzero(images)} classes with test images {verb} never predicted: {listed}."
    ]


def _advised(sentences: list[str], train_images: Sequence[int], recipe: Recipe) -> list[str]:
    """With advice at the end of the last sentence, where the training images are uneven and nothing was done about it."""
    present = [n for n in train_images if n]
    balanced = recipe.class_weights is not None or recipe.sampling == "balanced"
    if not sentences or balanced or max(present) < _UNEVEN * min(present):
        return sentences
    return [*sentences[:-1], f"{sentences[-1]} Try recipe.class_weights: balanced, or recipe.sampling: balanced."]
