"""The part of a report on filter ablation: the effect of some filters on the answers, alone and all together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from convscope.analyses import ablation_plan
from convscope.draw import coloured, enlarge_to, scale_of
from convscope.errors import NetworkError
from convscope.lenses import convolutions
from convscope.report.budget import Fit
from convscope.report.subject import ReportedRun
from convscope.scans import Ablation, Estimate, LayerEffects

_LAYERS, _UNITS = 5, 2  # the first two filters of each of the first five convolutions
_MOST_IMAGES, _FEWEST_IMAGES = 1000, 40
_EXAMPLES, _MOVES = 8, 3
_CELLS = 12  # classes of a matrix with numbers in it; of more it is a picture

UnitOf = tuple[LayerEffects, int]
"""One unit of a layer with its effect."""


def ablation_section(subject: ReportedRun) -> dict[str, Any] | None:
    """A few filters ablated, each alone and all together; None where there is no filter to ablate.

    The details are of the filter that changes the accuracy most, and of all together.
    """
    try:
        units = chosen_filters(subject)
    except NetworkError:  # it cannot be traced; the anatomy's note says so
        return None
    if not units:
        return None
    fit, test = ablation_fit(subject, units), subject.data.test
    names = " ".join(f"{layer}:{','.join(map(str, some))}" for layer, some in units.items())
    if not (n := fit.n):
        return {"n": 0, "fit": fit, "units": names}
    rows = torch.linspace(0, len(test) - 1, n).long()  # evenly, as on the filter page
    images = test.subset(rows)
    plan = ablation_plan(subject.scope, units)
    effects = plan.effects(images, units)
    filters = [(effects[layer], unit) for layer, some in units.items() for unit in some]
    unit_rows = [_of_unit(*one) for one in filters]
    most = max(unit_rows, key=lambda row: (abs(row["difference"]["value"]), row["lost"] + row["gained"]))
    together = plan.ablation(images, units)
    details = {f"Without {most['name']}, the largest change": plan.ablation(images, {most["layer"]: [most["unit"]]})}
    if len(filters) > 1:
        details[f"Without all {len(filters)} together"] = together
    return {
        "n": n,
        "fit": fit,
        "tests": len(test),
        "off": plan.words,
        "layers": list(units),
        "filters": len(filters),
        "first": max(map(len, units.values())),
        "units": names,
        "before": together.accuracy_before().to_json(),
        "rows": unit_rows,
        "together": _figures(
            together.accuracy_after().value, together.change(), len(together.lost), len(together.gained)
        ),
        "words": in_words(filters, together),
        "details": [_details(subject, one, title, rows) for title, one in details.items()],
    }


def chosen_filters(subject: ReportedRun) -> dict[str, list[int]]:
    """The first two filters of the first five convolutions that have filters of their own."""
    modules, scope = dict(subject.scope.net.named_modules()), subject.scope
    names = [name for name in convolutions(scope.graph) if name in modules]
    own = [name for name in names if "weight" in dict(modules[name].named_parameters(recurse=False))]
    return {name: list(range(min(_UNITS, scope.n_units(name)))) for name in own[:_LAYERS]}


def ablation_fit(subject: ReportedRun, units: dict[str, list[int]]) -> Fit:
    """How many test images: about a pass over each for each filter, and two for each of two comparisons."""
    passes, n = sum(map(len, units.values())) + 4, min(_MOST_IMAGES, len(subject.data.test))
    return Fit.of(subject.minutes, "Ablation", n, lambda n: n * passes * subject.work, _FEWEST_IMAGES)


def in_words(filters: Sequence[UnitOf], together: Ablation) -> str:
    """What the figures carry: the largest change of one filter, and that of all together."""
    most, unit = max(filters, key=lambda one: abs(one[0].change(one[1]).figures[0]))
    n = len(filters)
    change = most.change(unit, level=1 - 0.05 / n)  # Bonferroni: it was picked as the largest
    points = _points(change, f", widened for having looked at {n}" if n > 1 else "")
    if _clear(change):
        verb = "costs" if change.figures[0] < 0 else "gains"
        first = f"Ablating unit {unit} of {most.layer} alone {verb} most: {points}."
    else:
        first = f"No filter alone changes the accuracy clearly; the largest change is {points}."
    if n == 1:
        return first
    whole = together.change()
    clearly = "change it by" if _clear(whole) else "change it by no more than chance may:"
    return f"{first} All {n} together {clearly} {_points(whole)}."


def _clear(change: Estimate) -> bool:
    _, low, high = change.figures
    return low > 0 or high < 0


def _points(change: Estimate, note: str = "") -> str:
    value, low, high = (f"{100 * figure:+z.1f}".replace("-", "−") for figure in change.figures)
    return f"{value} points (95 %{note}: {low} to {high})"


def _of_unit(effects: LayerEffects, unit: int) -> dict[str, Any]:
    accuracy, lost, gained = (t[unit] for t in (effects.accuracy_after, effects.lost.sum(1), effects.gained.sum(1)))
    names = {"name": f"{effects.layer} · {unit}", "layer": effects.layer, "unit": unit}
    return names | _figures(float(accuracy), effects.change(unit), int(lost), int(gained))


def _figures(after: float | None, change: Estimate, lost: int, gained: int) -> dict[str, Any]:
    return {"after": after, "difference": change.to_json(), "lost": lost, "gained": gained}


def _details(subject: ReportedRun, ablation: Ablation, title: str, rows: Int64[Tensor, " N"]) -> dict[str, Any]:
    flips = {"right before, wrong without": ablation.lost, "wrong before, right without": ablation.gained}
    return {
        "title": title,
        "classes": _by_change(ablation),
        "names": list(ablation.classes),
        "matrix": _matrix(ablation),
        "moves": _moves(ablation),
        "flips": [
            {"words": words, "n": len(flipped), "images": _images(subject, ablation, flipped, rows)}
            for words, flipped in flips.items()
        ],
    }


def _by_change(ablation: Ablation) -> list[dict[str, Any]]:
    """A row for each class, the largest change first; a class without images has none."""
    rows = [
        {
            "class": name,
            "images": int((ablation.target == k).sum()),
            "before": ablation.accuracy_before(k).value,
            "after": ablation.accuracy_after(k).value,
            "difference": ablation.change(k).to_json(),
        }
        for k, name in enumerate(ablation.classes)
    ]
    return sorted(rows, key=lambda row: abs(row["difference"]["value"] or 0.0), reverse=True)


def _matrix(ablation: Ablation) -> dict[str, Any]:
    """The change of the confusion matrix: its numbers, or a picture where the classes are many."""
    change = ablation.confusion_change
    reach = max(1, int(change.abs().max()))
    if len(change) <= _CELLS:
        return {"cells": change.tolist(), "reach": reach, "picture": None}
    picture = coloured(change.double(), scale_of(change.double(), "images", signed=True))
    return {"cells": None, "reach": reach, "picture": enlarge_to(picture, 384)}


def _moves(ablation: Ablation) -> list[str]:
    """The mistakes whose number changes most."""
    change = ablation.confusion_change.clone().fill_diagonal_(0)
    order = change.abs().flatten().argsort(descending=True, stable=True)[:_MOVES].tolist()
    places = [divmod(place, len(change)) for place in order if change.flatten()[place]]
    before, after, names = ablation.confusion_before, ablation.confusion_after, ablation.classes
    return [f"“{names[i]}” predicted as “{names[j]}”: {before[i, j]} before, {after[i, j]} after" for i, j in places]


def _images(subject: ReportedRun, ablation: Ablation, flipped: Tensor, rows: Tensor) -> list[dict[str, Any]]:
    """Those whose probability of the true class changes most."""
    change = (ablation.probability_after - ablation.probability_before)[flipped].abs()
    chosen = flipped[change.argsort(descending=True, stable=True)[:_EXAMPLES]].tolist()
    return [
        {
            "row": int(rows[n]),
            "picture": subject.thumbnail(int(rows[n])),
            "true": ablation.classes[ablation.target[n]],
            "before": ablation.classes[ablation.before[n]],
            "after": ablation.classes[ablation.after[n]],
            "probabilities": [float(ablation.probability_before[n]), float(ablation.probability_after[n])],
        }
        for n in chosen
    ]
