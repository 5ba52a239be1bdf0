"""The part of a report that takes filters away: what switching some of them off does to the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from convscope.draw import coloured, data_uri, enlarge, scale_of
from convscope.errors import NetworkError
from convscope.looks import ablation_without, effects_without, switched_off
from convscope.report.subject import Subject
from convscope.scans import Ablation, Estimate, LayerEffects, paired_difference

_LAYERS, _UNITS = 5, 2  # the first two filters of each of the first five convolutions
_WORK, _MOST_IMAGES, _FEWEST_IMAGES = 1e12, 1000, 100  # multiply-adds: some 15 s on two cores
_EXAMPLES, _MOVES = 8, 3
_CELLS = 12  # classes of a matrix with numbers in it; of more it is a picture


@dataclass(frozen=True)
class _Filter:
    """One that was switched off: a unit of a layer, and what that did."""

    effects: LayerEffects
    unit: int

    @property
    def name(self) -> str:
        return f"{self.effects.layer} · {self.unit}"

    @property
    def moved(self) -> int:
        """Images that became right or wrong."""
        return int(self.effects.lost[self.unit].sum() + self.effects.gained[self.unit].sum())

    def change(self, level: float = 0.95) -> Estimate:
        found = self.effects
        lost, gained = int(found.lost[self.unit].sum()), int(found.gained[self.unit].sum())
        right = int(found.right.sum())
        return paired_difference(right - lost, gained, lost, found.n_images - right - gained, level)


def without(subject: Subject) -> dict[str, Any] | None:
    """Each of a few filters switched off, and all of them together; None where there is no filter to switch off.

    The details are of the filter that changes the accuracy most, and of all together.
    """
    try:
        units = chosen_filters(subject)
    except NetworkError:  # it cannot be traced; the anatomy's note says so
        return None
    n = n_images(subject, units)
    if not n:
        return None
    test = subject.data.test
    rows = torch.linspace(0, len(test) - 1, n).long()  # evenly, as on the filter page
    images = test.subset(rows)
    off = switched_off(subject.scope, units)
    found = effects_without(subject.scope, images, units, off)
    filters = [_Filter(found[layer], unit) for layer, some in units.items() for unit in some]
    most = max(filters, key=lambda one: (abs(one.change().figures[0]), one.moved))
    alone = ablation_without(subject.scope, images, {most.effects.layer: [most.unit]}, off)
    together = ablation_without(subject.scope, images, units, off)
    return {
        "n": n,
        "tests": len(test),
        "off": off.words,
        "layers": list(units),
        "filters": len(filters),
        "first": max(map(len, units.values())),
        "units": " ".join(f"{layer}:{','.join(map(str, some))}" for layer, some in units.items()),
        "before": together.accuracy_before().to_json(),
        "rows": [_row(one) for one in filters],
        "together": _figures(together),
        "words": in_words(filters, together),
        "details": [_details(subject, one, title, rows) for title, one in _looked_into(most, alone, together).items()],
    }


def chosen_filters(subject: Subject) -> dict[str, list[int]]:
    """The first two filters of the first five convolutions that have filters of their own."""
    modules = dict(subject.scope.net.named_modules())
    own = [
        op.name
        for op in subject.scope.graph.operations
        if op.kind == "conv"
        and op.name in modules
        and "weight" in dict(modules[op.name].named_parameters(recurse=False))
    ]
    return {name: list(range(min(_UNITS, subject.scope.n_units(name)))) for name in own[:_LAYERS]}


def n_images(subject: Subject, units: dict[str, list[int]]) -> int:
    """How many test images cost some seconds: about a pass for each filter, and two for each of two comparisons."""
    passes = sum(map(len, units.values())) + 4
    afford = int(_WORK / (passes * max(1, subject.anatomy.multiply_adds)))
    return min(_MOST_IMAGES, max(_FEWEST_IMAGES, afford), len(subject.data.test)) if units else 0


def in_words(filters: Sequence[_Filter], together: Ablation) -> str:
    """What the figures carry: the largest change of one filter, and that of all together."""
    most = max(filters, key=lambda one: abs(one.change().figures[0]))
    n = len(filters)
    change = most.change(1 - 0.05 / n)  # Bonferroni: it was picked as the largest
    said = _points(change, f", widened for having looked at {n}" if n > 1 else "")
    if _clear(change):
        kind = "costs" if change.figures[0] < 0 else "gains"
        first = f"Switching off unit {most.unit} of {most.effects.layer} alone {kind} most: {said}."
    else:
        first = f"No filter alone changes the accuracy clearly; the largest change is {said}."
    if n == 1:
        return first
    whole = together.change()
    clearly = "change it by" if _clear(whole) else "change it by no more than chance may:"
    return f"{first} All {n} together {clearly} {_points(whole)}."


def _clear(change: Estimate) -> bool:
    _, low, high = change.figures
    return low > 0 or high < 0


def _points(change: Estimate, note: str = "") -> str:
    value, low, high = (f"{100 * figure:+.1f}".replace("-", "−") for figure in change.figures)
    return f"{value} points (95 %{note}: {low} to {high})"


def _row(one: _Filter) -> dict[str, Any]:
    found = one.effects
    return {
        "name": one.name,
        "layer": found.layer,
        "unit": one.unit,
        "after": float(found.accuracy_after[one.unit]),
        "difference": one.change().to_json(),
        "lost": int(found.lost[one.unit].sum()),
        "gained": int(found.gained[one.unit].sum()),
    }


def _figures(found: Ablation) -> dict[str, Any]:
    return {
        "after": found.accuracy_after().value,
        "difference": found.change().to_json(),
        "lost": len(found.lost),
        "gained": len(found.gained),
    }


def _looked_into(most: _Filter, alone: Ablation, together: Ablation) -> dict[str, Ablation]:
    n = sum(map(len, together.units.values()))
    one = {f"Without {most.name}, the largest change": alone}
    return one | ({f"Without all {n} together": together} if n > 1 else {})


def _details(subject: Subject, found: Ablation, title: str, rows: Int64[Tensor, " N"]) -> dict[str, Any]:
    return {
        "title": title,
        "classes": _by_change(found),
        "names": list(found.classes),
        "matrix": _matrix(found),
        "moves": _moves(found),
        "flips": [
            {
                "words": "right before, wrong without",
                "n": len(found.lost),
                "images": _images(subject, found, found.lost, rows),
            },
            {
                "words": "wrong before, right without",
                "n": len(found.gained),
                "images": _images(subject, found, found.gained, rows),
            },
        ],
    }


def _of_class(found: Ablation, k: int) -> dict[str, Any]:
    return {
        "class": found.classes[k],
        "images": int((found.target == k).sum()),
        "before": found.accuracy_before(k).value,
        "after": found.accuracy_after(k).value,
        "difference": found.change(k).to_json(),
    }


def _by_change(found: Ablation) -> list[dict[str, Any]]:
    """A row for each class, the largest change first; a class without images has none."""
    rows = [_of_class(found, k) for k in range(len(found.classes))]
    return sorted(rows, key=lambda row: abs(row["difference"]["value"] or 0.0), reverse=True)


def _matrix(found: Ablation) -> dict[str, Any]:
    """The change of the confusion matrix: its numbers, or a picture where the classes are many."""
    change = found.confusion_change
    reach = max(1, int(change.abs().max()))
    if len(change) <= _CELLS:
        return {"cells": change.tolist(), "reach": reach, "picture": None}
    shown = coloured(change.double(), scale_of(change.double(), "images", signed=True))
    return {"cells": None, "reach": reach, "picture": data_uri(enlarge(shown, max(1, 384 // len(change))))}


def _moves(found: Ablation) -> list[str]:
    """The mistakes whose number changes most."""
    change = found.confusion_change.clone().fill_diagonal_(0)
    order = change.abs().flatten().argsort(descending=True, stable=True)[:_MOVES].tolist()
    places = [divmod(place, len(change)) for place in order if change.flatten()[place]]
    before, after, names = found.confusion_before, found.confusion_after, found.classes
    return [f"“{names[i]}” taken for “{names[j]}”: {before[i, j]} before, {after[i, j]} after" for i, j in places]


def _images(subject: Subject, found: Ablation, flipped: Tensor, rows: Tensor) -> list[dict[str, Any]]:
    """Those whose probability of the true class changes most."""
    moved = (found.probability_after - found.probability_before)[flipped].abs()
    chosen = flipped[moved.argsort(descending=True, stable=True)[:_EXAMPLES]].tolist()
    return [
        {
            "row": int(rows[n]),
            "picture": subject.thumbnail(int(rows[n])),
            "true": found.classes[found.target[n]],
            "before": found.classes[found.before[n]],
            "after": found.classes[found.after[n]],
            "probabilities": [float(found.probability_before[n]), float(found.probability_after[n])],
        }
        for n in chosen
    ]
