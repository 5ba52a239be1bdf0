"""The parts of a report about right and wrong: matrices, classes, pairs that are confused, confident errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convscope.report.subject import ReportedRun

_PAIRS, _EXAMPLES, _CONFIDENT = 8, 8, 24


def confusion_matrices(subject: ReportedRun) -> list[dict[str, Any]]:
    """For each head: its classes, its matrix, and orders of the classes to choose from."""
    return [
        {
            "target": target, "classes": head["classes"], "matrix": head["confusion"],
            "orders": orders(head["confusion"]),
        }
        for target, head in subject.metrics["heads"].items()
    ]  # fmt: skip


def orders(confusion: list[list[int]]) -> dict[str, list[int]]:
    """Orders of the classes to choose from, by name."""
    matrix = np.array(confusion)
    images = matrix.sum(1)
    recall = np.where(images > 0, matrix.diagonal() / images.clip(1), np.inf)  # classes without images come last
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


def confused_pairs(subject: ReportedRun) -> list[dict[str, Any]]:
    """The most frequent confusions of all heads, each with the images that were mistaken most confidently."""
    pairs = [pair for head in range(len(subject.answers)) for pair in _pairs_of(subject, head)]
    return sorted(pairs, key=lambda pair: -pair["images"])[:_PAIRS]


def _pairs_of(subject: ReportedRun, head: int) -> list[dict[str, Any]]:
    answers, classes = subject.answers[head], subject.class_names(head)
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
            "examples": [_example(subject, head, row) for row in rows.tolist()],
        })  # fmt: skip
    return pairs


def confident_errors(subject: ReportedRun) -> list[dict[str, Any]]:
    """The test images that a head got wrong with the highest probability."""
    errors = [
        (-float(answers.confidence[row]), head, row)
        for head, answers in enumerate(subject.answers)
        for row in torch.nonzero(answers.wrong).flatten().tolist()
    ]
    return [_example(subject, head, row) for _, head, row in sorted(errors)[:_CONFIDENT]]


def _example(subject: ReportedRun, head: int, row: int) -> dict[str, Any]:
    answers, names = subject.answers[head], subject.class_names(head)
    return {
        "row": row,
        "picture": subject.thumbnail(row),
        "true": names[answers.true[row]],
        "predicted": names[answers.predicted[row]],
        "confidence": float(answers.confidence[row]),
    }
