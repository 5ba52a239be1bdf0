"""Accuracy with and without the images that a review calls in question, against a plain count."""

from __future__ import annotations

from pathlib import Path

import torch

from convscope.nets import make_task
from convscope.runs import Run, write_verdict
from convscope.scans import proportion, reviewed_accuracy


def test_figures_are_counts(tmp_path: Path) -> None:
    """Of ten images seven are right: one of two wrong labels and one of two ambiguous ones lie among the mistakes."""
    run = Run(tmp_path)
    run.task = make_task("softmax", {"class": ("a", "b")})
    target, predicted = torch.tensor([0, 1] * 5), torch.tensor([0, 1] * 5)
    predicted[[2, 5, 8]] = 1 - target[[2, 5, 8]]
    run.predictions = {"logits": torch.eye(2)[predicted], "target.class": target}
    before = reviewed_accuracy(run)
    assert before.all_images == before.without_wrong_labels == before.without_doubtful == proportion(7, 10)
    assert (before.n_images, before.n_wrong_labels, before.n_ambiguous, before.n_model) == (10, 0, 0, 0)
    verdicts = {2: "label", 0: "label", 5: "ambiguous", 1: "ambiguous", 8: "model", 15: "label"}
    for image, verdict in verdicts.items():  # 15 is of another test set
        write_verdict(run, image, f"image {image}", verdict)  # type: ignore[arg-type]
    after = reviewed_accuracy(run)
    assert after.all_images == proportion(7, 10)
    assert after.without_wrong_labels == proportion(6, 8)
    assert after.without_doubtful == proportion(5, 6)
    assert (after.n_images, after.n_wrong_labels, after.n_ambiguous, after.n_model) == (10, 2, 2, 1)
