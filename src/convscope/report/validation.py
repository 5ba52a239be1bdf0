"""How far the heatmaps of a report can be trusted: do they find what the answer hangs on, do they hang on the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from convscope.base.console import progress_bar
from convscope.report.budget import Fit
from convscope.report.subject import ReportedRun
from convscope.scans import Estimate, FaithfulnessCurves, RandomizationCheck

_STEPS = 10  # shares of the pixels, so that the first is the 10 % that the words speak of
_MOST_IMAGES, _FEWEST_IMAGES = 32, 8
OF_A_PASS = 0.35  # what a covered position costs, of a whole pass
_SIMILAR, _UNLIKE = 0.7, 0.3  # as in the verdict of the randomization check


@dataclass(frozen=True)
class HeatmapKind:
    """A kind of heatmap: the lens, what it is called, its settings; and those for maps with random weights."""

    lens: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    at_random: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class HeatmapValidation:
    """One kind of heatmap examined: what its pixels do to the answer, and what is left of it with random weights."""

    kind: HeatmapKind
    rows: list[int]
    curves: FaithfulnessCurves
    check: RandomizationCheck

    @property
    def similarity(self) -> Estimate:
        """Rank correlation of the maps with those of the network with random weights."""
        return self.check.similarities[self.check.layers[-1]]


def validate(subject: ReportedRun, shown: Sequence[int], kinds: Sequence[HeatmapKind]) -> list[HeatmapValidation]:
    """Each kind examined on rightly answered test images, those shown first; none where too few fit the budget.

    Args:
        subject: the run.
        shown: the test images whose heatmaps are shown.
        kinds: of heatmaps.
    """
    n = validation_fit(subject, kinds).n
    if n < _FEWEST_IMAGES:
        return []
    rows, scope = sample(subject, shown, n), subject.scope
    images = subject.data.test.subset(rows)
    first = next(op.name for op in scope.graph.operations if op.kind in ("conv", "dense"))
    validations = []
    with progress_bar("heatmap validation", len(kinds), "kinds of heatmaps") as advance:
        for kind in kinds:
            curves = scope.faithfulness(kind.lens, images, steps=_STEPS, **kind.settings)
            check = scope.randomization_check(kind.lens, images, layers=[first], **kind.at_random)
            validations.append(HeatmapValidation(kind, rows, curves, check))
            advance(1)
    return validations


def validation_fit(subject: ReportedRun, kinds: Sequence[HeatmapKind]) -> Fit:
    """How many images: three curves of each kind, and the positions that occlusion covers, twice for the network with random
    weights."""
    curves = len(kinds) * (3 * _STEPS + 8)  # and a few ways back
    covered = sum(positions(subject, kind.settings) + 2 * positions(subject, kind.at_random) for kind in kinds)
    passes = curves + OF_A_PASS * covered
    right = int((~subject.answers[0].wrong).sum())
    whole = min(_MOST_IMAGES, right)
    return Fit.of(subject.minutes, "Heatmap validation", whole, lambda n: n * passes * subject.work, _FEWEST_IMAGES)


def positions(subject: ReportedRun, settings: Mapping[str, Any]) -> int:
    """How many the square of an occlusion takes; 0 of other lenses."""
    if "size" not in settings:
        return 0
    height, width = subject.run.input_shape[1:]
    size, stride = settings["size"], settings["stride"]
    return ((height - size) // stride + 1) * ((width - size) // stride + 1)


def sample(subject: ReportedRun, shown: Sequence[int], n: int) -> list[int]:
    """Rightly answered test images, as many of each class as can be: those shown, then others by chance, with a fixed seed."""
    answers, generator = subject.answers[0], torch.Generator().manual_seed(0)
    order = torch.randperm(len(answers.true), generator=generator).tolist()
    wrong, true = answers.wrong.tolist(), answers.true.tolist()
    chosen = [row for row in shown if not wrong[row]][:n]
    counts, turn = [0] * len(answers.head.classes), dict[int, tuple[int, int]]()
    for place, row in enumerate(chosen + [row for row in order if row not in chosen and not wrong[row]]):
        turn[row] = (counts[true[row]], place)
        counts[true[row]] += 1
    return sorted(turn, key=lambda row: turn[row])[:n]


def validation_table(found: Sequence[HeatmapValidation]) -> dict[str, Any] | None:
    """The table of all kinds and a sentence on each; None where nothing was examined."""
    if not found:
        return None
    random = found[0].curves  # the same orders for all
    return {
        "n": random.n,
        "step": next((one.kind.settings["stride"] for one in found if "stride" in one.kind.settings), None),
        "random": random.area(random.random).to_json(),
        "kinds": [_row(one) for one in found],
        "words": [in_words(one) for one in found],
    }


def _row(one: HeatmapValidation) -> dict[str, Any]:
    curves = one.curves
    return {
        "title": one.kind.title,
        "deletion": curves.area(curves.deletion).to_json(),
        "insertion": curves.area(curves.insertion).to_json(),
        "deletion_gain": curves.deletion_gain.to_json(),
        "insertion_gain": curves.insertion_gain.to_json(),
        "similarity": one.similarity.to_json(),
    }


def areas_of_image(found: Sequence[HeatmapValidation], row: int) -> dict[str, Any]:
    """The areas of a test image: by lens (deletion, insertion), and for "random" that under the random order; none where it
    was left out."""
    if not found or row not in found[0].rows:
        return {}
    place, chance = found[0].rows.index(row), found[0].curves
    areas: dict[str, Any] = {"random": float(chance.areas(chance.random)[place])}
    for one in found:
        both = (one.curves.deletion, one.curves.insertion)
        areas[one.kind.lens] = [float(one.curves.areas(curve)[place]) for curve in both]
    return areas


def in_words(one: HeatmapValidation) -> str:
    """What the intervals carry of one kind, and no more."""
    return f"{one.kind.title} {_of_pixels(one.curves)} {_of_weights(one.similarity)}".strip()


def _of_pixels(curves: FaithfulnessCurves) -> str:
    gains = {"deletion": curves.deletion_gain, "insertion": curves.insertion_gain}
    better = [name for name, gain in gains.items() if (gain.low or 0) > 0]
    worse = [name for name, gain in gains.items() if (gain.high or 0) < 0]
    first, chance = curves.course(curves.deletion)[1], curves.course(curves.random)[1]
    tenth = f"Without its first 10 % of pixels the probability is {_figures(first)}; without 10 % at random {_figures(chance)}."
    if len(better) == 2:
        return f"finds what the answer hangs on better than chance. {tenth}"
    clauses = [f"better than chance at {' and '.join(better)}"] if better else []
    clauses += [f"worse than chance at {' and '.join(worse)}"] if worse else []
    rest = [name for name in gains if name not in better + worse]
    clauses += [f"no better than chance at {' and '.join(rest)}"] if rest and clauses else []
    return f"is {', '.join(clauses) or 'no better than chance, as far as these images tell'}. {tenth}"


def _of_weights(similarity: Estimate) -> str:
    if similarity.low is None or similarity.high is None:
        return ""
    text = f"rank correlation {_figures(similarity)}".replace(" (95", ", 95").rstrip(")")
    if similarity.low > _SIMILAR:
        return f"With all weights random its maps stay much the same ({text}): they show the image more than what was learned."
    if similarity.high < _UNLIKE:
        return f"With all weights random little is left of its maps ({text}): they depend on what was learned."
    return f"With all weights random a part of its maps stays ({text})."


def _figures(estimate: Estimate) -> str:
    value, low, high = (f"{figure:z.2f}".replace("-", "−") for figure in estimate.figures)
    return value if estimate.low is None else f"{value} (95 %: {low} to {high})"
