"""Accuracy with and without the test images whose label a review calls in question."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from convscope.runs import Run, read_review
from convscope.scans.intervals import Estimate, proportion


@dataclass(frozen=True)
class ReviewedAccuracy:
    """Accuracy on the test images, and what a review leaves of it.

    Attributes:
        all_images: on all of them, with Wilson's interval.
        without_wrong_labels: without those whose label is said to be wrong.
        without_doubtful: without these and those that are said to be ambiguous.
        n_images, n_wrong_labels, n_ambiguous, n_model: how many there are, and of each verdict.
    """

    all_images: Estimate
    without_wrong_labels: Estimate
    without_doubtful: Estimate
    n_images: int
    n_wrong_labels: int
    n_ambiguous: int
    n_model: int


def reviewed_accuracy(run: Run) -> ReviewedAccuracy:
    """The accuracy of a run's first head, with and without the images that its review calls in question.

    As a rule only mistakes are reviewed. What is left out then is wrong in the network's eyes alone: the accuracy without it
    is an upper bound, for among the images that are right some labels may be wrong too.

    Args:
        run: evaluated; see `convscope.runs.write_verdict`.
    Raises:
        RunFolderError: the run has not been evaluated, or its review is damaged.
    """
    head = run.task.heads[0]
    right = head.logits(run.predictions["logits"]).argmax(1) == run.predictions[f"target.{head.target}"]
    review = read_review(run)
    review = review[review["image"] < len(right)]

    def accuracy(*left_out: str) -> Estimate:
        kept = torch.ones(len(right), dtype=torch.bool)
        kept[torch.tensor(review["image"][review["verdict"].isin(left_out)].to_numpy(copy=True))] = False
        return proportion(int(right[kept].sum()), int(kept.sum()))

    counts = (int((review["verdict"] == verdict).sum()) for verdict in ("label", "ambiguous", "model"))
    return ReviewedAccuracy(accuracy(), accuracy("label"), accuracy("label", "ambiguous"), len(right), *counts)
