"""The parts of a report about right and wrong: matrices, classes, pairs that are confused, confident errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convscope.report.subject import Answers, Subject

_PAIRS, _EXAMPLES, _CONFIDENT = 8, 8, 24


def confusion_matrices(subject: Subject) -> list[dict[str, Any]]:
    """For each head: its classes, its matrix, and orders of the classes to choose from."""
    found = []
    for target, head in subject.metrics["heads"].items():
        matrix = head["confusion"]
        found.append({"target": target, "classes": head["classes"], "matrix": matrix, "orders": orders(matrix)})
    return found


def orders(confusion: list[list[int]]) -> dict[str, list[int]]:
    """Orders of the classes to choose from, by name."""
    matrix = np.array(confusion)
    recall = matrix.diagonal() / matrix.sum(1).clip(1)
    return {
        "as given": list(range(len(matrix))),
        "confused side by side": _side_by_side(matrix),
        "hardest first": np.argsort(recall, kind="stable").tolist(),
    }


def _side_by_side(matrix: np.ndarray) -> list[int]:
    """An order in which classes that are confused stand near each other: along the Fiedler vector of their confusions.

    Source: Atkins, Boman & Hendrickson 1998, doi:10.1137/S0097539795285771.
    """
    alike = matrix + matrix.T + 1e-3  # a little of everything, so that the graph is connected
    np.fill_diagonal(alike, 0)
    laplacian = np.diag(alike.sum(1)) - alike
    vector = np.linalg.eigh(laplacian)[1][:, 1]
    first = np.flatnonzero(np.abs(vector) > 1e-9)[:1]
    if len(first) and vector[first[0]] > 0:  # an eigenvector's sign is arbitrary: fix it
        vector = -vector
    return np.argsort(vector, kind="stable").tolist()


def confused_pairs(subject: Subject) -> list[dict[str, Any]]:
    """The most frequent confusions of the first head, each with the images that were mistaken most confidently."""
    answers = subject.answers[0]
    classes = answers.head.classes
    k = len(classes)
    counts = torch.bincount(answers.true[answers.wrong] * k + answers.predicted[answers.wrong], minlength=k * k)
    most = counts.sort(descending=True, stable=True)
    pairs = []
    for n, code in zip(most.values[:_PAIRS].tolist(), most.indices[:_PAIRS].tolist(), strict=True):
        if n == 0:
            break
        true, predicted = divmod(code, k)
        rows = torch.nonzero((answers.true == true) & (answers.predicted == predicted)).flatten()
        rows = rows[answers.confidence[rows].argsort(descending=True, stable=True)][:_EXAMPLES]
        of_class = int((answers.true == true).sum())
        pairs.append({
            "true": classes[true], "predicted": classes[predicted], "images": n, "share": n / of_class,
            "examples": [_example(subject, answers, row) for row in rows.tolist()],
        })  # fmt: skip
    return pairs


def confident_errors(subject: Subject) -> list[dict[str, Any]]:
    """The test images that the first head got wrong with the highest probability."""
    answers = subject.answers[0]
    rows = torch.nonzero(answers.wrong).flatten()
    rows = rows[answers.confidence[rows].argsort(descending=True, stable=True)][:_CONFIDENT]
    return [_example(subject, answers, row) for row in rows.tolist()]


def _example(subject: Subject, answers: Answers, row: int) -> dict[str, Any]:
    names = answers.head.classes
    return {
        "row": row,
        "picture": subject.thumbnail(row),
        "true": names[answers.true[row]],
        "predicted": names[answers.predicted[row]],
        "confidence": float(answers.confidence[row]),
    }
