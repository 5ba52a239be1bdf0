"""The parts of a report that explain: test images of each class through several lenses."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from operator import mul
from typing import Any

from convscope.analyses import drop_scale, small_picture, sum_in_words
from convscope.draw import coloured, enlarge_to, picture
from convscope.errors import NetworkError, RequestError
from convscope.lenses import Attribution, OcclusionMap, Size
from convscope.report.budget import Fit
from convscope.report.subject import ReportedRun, spread
from convscope.report.validation import (
    OF_A_PASS,
    HeatmapKind,
    areas_of_image,
    positions,
    validate,
    validation_fit,
    validation_table,
)

_MOST_CLASSES = 10
_FILL = "mean"  # of the image: grey on the black of drawings is a thing of its own, and what a map then shows
_KINDS = {
    "guided_backprop": HeatmapKind("guided_backprop", "Guided backpropagation"),
    "grad_cam": HeatmapKind("grad_cam", "Grad-CAM"),
}
_ENOUGH = 16  # images on which the maps are examined as they are drawn
_SIDE_PX = 112


def saliency_maps(subject: ReportedRun) -> dict[str, Any] | None:
    """The first rightly answered test image of each class (of many, an even choice) through three lenses, side by side.

    Of several heads some images for each, asked about that head.
    """
    sizes, (stride, fit) = occlusion_sizes(min(subject.run.input_shape[1:])), _occlusion_fit(subject)
    selection = _shown(subject)
    selection = [selection[k] for k in spread(len(selection), fit.n)] if fit.n else selection
    rows = [row for _, row in selection]
    images = subject.data.test.images(rows)
    scope = subject.scope
    classes = [scope.task.first_class(head) + int(subject.answers[head].predicted[row]) for head, row in selection]
    try:
        occluded = (
            scope.occlusion(images, list[Size](sizes), stride=stride, target=classes, fill=_FILL) if fit.n else []
        )
        heatmaps = dict[str, Attribution]()
        for name in _KINDS:
            with suppress(RequestError):  # no rectifier to guide through, or no map to weigh
                heatmaps[name] = scope.attribute(name, images, classes)
    except NetworkError:  # it cannot be traced; the anatomy's note says so
        return None
    middle = len(sizes) // 2
    kinds = _kinds(subject, heatmaps, sizes[middle] if fit.n else None)
    examined = validate(subject, [row for head, row in selection if head == 0], kinds)
    return {
        "sizes": sizes if fit.n else [],
        "stride": stride,
        "fit": fit,
        "validation_fit": validation_fit(subject, kinds),
        "titles": {name: _KINDS[name].title for name in heatmaps},
        "validation": validation_table(examined),
        "cam_layer": heatmaps["grad_cam"].layer if "grad_cam" in heatmaps else None,
        "rows": [
            {
                "row": row,
                "head": head,
                "answer": scope.class_name(classes[n]),
                "probability": float(subject.answers[head].confidence[row]),
                "image": enlarge_to(picture(images[n]), _SIDE_PX),
                "random": areas.get("random"),
                "attributed": [
                    {"picture": enlarge_to(small_picture(one, images[n], n), _SIDE_PX), "areas": areas.get(name)}
                    for name, one in heatmaps.items()
                ],
                "occluded": _occluded(occluded, n, middle, areas.get("occlusion")) if occluded else [],
            }
            for n, (head, row) in enumerate(selection)
            for areas in [areas_of_image(examined if head == 0 else (), row)]
        ],
    }


def occlusion_sizes(side: int) -> list[int]:
    """Three squares for images of that many pixels: 3, 5 and 9 of 32."""
    return sorted({max(2, round(side * share)) for share in (0.09, 0.16, 0.28)})


def _shown(subject: ReportedRun) -> list[tuple[int, int]]:
    """Head and test image of each row."""
    n = len(subject.answers)
    return [(head, row) for head in range(n) for row in subject.chosen_images(max(2, _MOST_CLASSES // n), head)]


def _occlusion_fit(subject: ReportedRun) -> tuple[int, Fit]:
    """How far the square moves, and on how many images: on one at least, if need be in steps of twice the length."""
    side, n = min(subject.run.input_shape[1:]), len(_shown(subject))
    for stride in _strides(side):
        n_positions = sum(positions(subject, {"size": size, "stride": stride}) for size in occlusion_sizes(side))
        work = OF_A_PASS * n_positions * subject.work
        fit = Fit.of(subject.minutes, "Saliency maps", n, partial(mul, work))
        if fit.n:
            break
    return stride, fit


def _kinds(subject: ReportedRun, attributed: Iterable[str], size: int | None) -> list[HeatmapKind]:
    """The kinds of heatmaps as they are drawn; the covering square, if there is one, moves by more where the network is
    large."""
    kinds = plain = [_KINDS[name] for name in attributed]
    fine, coarse = _strides(min(subject.run.input_shape[1:]))
    for stride in (fine, coarse) if size else ():
        settings = {"size": size, "stride": stride, "occlusion_fill": _FILL}
        at_random = settings | {"stride": coarse}
        kinds = [*plain, HeatmapKind("occlusion", f"Occlusion {size}×{size}", settings, at_random)]
        if validation_fit(subject, kinds).n >= _ENOUGH:
            break
    return kinds


def _strides(side: int) -> tuple[int, int]:
    """How far the square of an occlusion moves over images of that many pixels, and how far in a large network."""
    return max(1, side // 16), max(1, side // 8)


def _occluded(maps: list[OcclusionMap], n: int, middle: int, areas: list[float] | None) -> list[dict[str, Any]]:
    scale = drop_scale(maps, slice(n, n + 1))
    return [
        {
            "picture": enlarge_to(coloured(each.drop[n], scale), _SIDE_PX),
            "sum": sum_in_words(each, n),
            "reach": scale.high,
            "areas": areas if place == middle else None,
        }
        for place, each in enumerate(maps)
    ]
