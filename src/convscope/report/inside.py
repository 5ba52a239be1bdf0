"""The parts of a report that look inside: the drawing of the network, its table, first filters, and feature maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscope.base.words import shape_text
from convscope.draw import (
    Picture,
    enlarge,
    enlarge_to,
    filter_picture,
    map_picture,
    network_map,
    picture,
    sheet,
    shrink_to,
    signed_picture,
    tinted_picture,
)
from convscope.errors import NetworkError
from convscope.graph import relu_after
from convscope.lenses import convolutions
from convscope.report.page import Photo
from convscope.report.subject import LARGE_PX, ReportedRun, spread

_SHEET_PX = 520
_MOST_UNITS = 64
_MOST_LAYERS = 4
_MOST_CLASSES, _EXAMPLES = 24, 6  # training images of each


def network(subject: ReportedRun) -> dict[str, Any]:
    """The anatomy table and its drawing."""
    table = subject.anatomy.to_json()
    return {"table": table, "map": network_map(table["layers"], subject.run.input_shape)}


def first_filters(subject: ReportedRun) -> dict[str, Any] | None:
    """The first convolution's filters as a sheet: in colour on colour images, else signed, blue below 0 and red above."""
    layer = next((layer.name for layer in subject.anatomy.layers if layer.kind == "conv"), None)
    modules = dict(subject.run.net.named_modules())
    if layer is None or layer not in modules or not hasattr(modules[layer], "weight"):  # none, or a functional one
        return None
    filters = subject.scope.filters(layer)
    weights = filters[:_MOST_UNITS]
    in_colour = weights.shape[1] == 3
    pictures = [filter_picture(w) if in_colour else signed_picture(w[0]) for w in weights]
    return {
        "layer": layer,
        "units": len(filters),
        "shown": len(pictures),
        "size": shape_text(weights.shape[1:]),
        "channels": weights.shape[1],
        "colour": in_colour,
        "picture": _enlarged(pictures, columns=8),
    }


def feature_maps(subject: ReportedRun) -> list[dict[str, Any]]:
    """Feature maps of a few layers, from the first convolution to the last, on a few test images.

    One scale for all maps of an image: white is the level that half a percent of its activations exceed. Those of the
    first layer also in the image's colours.
    """
    rows = subject.chosen_images()
    images = subject.data.test.images(rows)
    try:
        names = convolutions(subject.scope.graph)
        chosen = [names[k] for k in spread(len(names), _MOST_LAYERS)]
        layers = [relu_after(subject.scope.graph, name) or name for name in chosen]
        activations = subject.scope.activations(images, layers) if layers else {}
    except NetworkError:  # it cannot be traced; the anatomy's note says so
        return []
    return [
        {
            "layer": name,
            "units": maps.shape[1],
            "shown": min(maps.shape[1], _MOST_UNITS),
            "size": shape_text(maps.shape[2:]),
            "images": [
                _maps_of(subject, row, image, units, tint=name == layers[0])
                for row, image, units in zip(rows, images, maps, strict=True)
            ],
        }
        for name, maps in activations.items()
    ]


def _maps_of(subject: ReportedRun, row: int, image: Tensor, units: Tensor, tint: bool) -> dict[str, Any]:
    """A layer's maps of one image, of at most _MOST_UNITS units."""
    answers, maps = subject.answers[0], units[:_MOST_UNITS]
    # of at most a million values, evenly: a quantile needs no more, and PyTorch's takes no more than 16 million
    top = max(float(maps.flatten()[:: max(1, maps.numel() // 1_000_000)].quantile(0.995)), 1e-12)
    return {
        "row": row,
        "class": answers.head.classes[answers.true[row]],
        "image": enlarge_to(picture(image), 160),
        "grey": _enlarged([map_picture(unit, top) for unit in maps], ground=40),
        "tinted": _enlarged([tinted_picture(unit, image, top) for unit in maps], ground=40) if tint else None,
        "silent": int((units.flatten(1).amax(1) <= 0).sum()),
        "top": top,
    }


def class_examples(subject: ReportedRun) -> list[dict[str, Any]]:
    """The first training images of each class, None for a class without any; of many classes an even choice."""
    classes, targets = subject.data.classes, subject.data.train.targets_of("class")
    examples = []
    for k in spread(len(classes), _MOST_CLASSES):
        rows = torch.nonzero(targets == k).flatten()[:_EXAMPLES]
        pictures = [shrink_to(picture(image), LARGE_PX) for image in subject.data.train.images(rows)]
        shown: Picture | Photo | None = sheet(pictures, columns=_EXAMPLES, gap=2) if pictures else None
        if isinstance(shown, np.ndarray) and max(subject.run.input_shape[1:]) > LARGE_PX:
            shown = Photo(shown)
        examples.append({"class": classes[k], "picture": shown})
    return examples


def _enlarged(pictures: list[Picture], ground: int = 255, columns: int | None = None) -> Picture:
    """A sheet of about _SHEET_PX pixels a side; each picture is enlarged by itself, so that the gaps stay thin."""
    across = columns or (8 if len(pictures) > 16 else math.ceil(math.sqrt(len(pictures))))
    scale = max(1, _SHEET_PX // (across * pictures[0].shape[1]))
    return sheet([enlarge(one, scale) for one in pictures], columns=across, gap=3, ground=ground)
