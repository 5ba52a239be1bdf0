"""The strongest patches of the units of a layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from convscope import draw
from convscope.analyses.analysis import Inputs
from convscope.analyses.request import TOP, Layer, Unit
from convscope.analyses.testset import TestSetRequest
from convscope.analyses.view import View, framed
from convscope.base.words import counted

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from convscope.data import ImageSet
    from convscope.draw import Picture
    from convscope.scans import LayerPatches
    from convscope.scope import Scope

_MOST_UNITS = 64
_PATCHES = 9  # of a unit on the sheet of a layer
_TENSORS = ("index", "response", "activation", "position", "box", "count", "mean", "largest")


class Request(TestSetRequest):
    """The patches of the test images that the units of a layer answer most, and the classes they come from."""

    layer: Layer
    unit: Unit = None
    top: Annotated[int | None, Field(ge=1, description=TOP)] = None


def compute(scope: Scope, request: Request, inputs: Inputs) -> LayerPatches:
    """The strongest images of every unit of the layer."""
    return next(iter(scope.top_patches(inputs.test, [request.layer], top=request.top or 20).values()))


def view(scope: Scope, request: Request, result: LayerPatches, inputs: Inputs) -> View:
    """Of one unit its strongest images, with the patch framed, and the patches; of a layer a sheet of all units' patches."""
    images, tensors = inputs.test, {name: getattr(result, name) for name in _TENSORS}
    if request.unit is not None:
        return _of_unit(int(request.unit), result, images, tensors)
    table = _named(result.table(), images)
    squares = [patch_square(result, images, unit) for unit in range(min(_MOST_UNITS, len(result.count)))]
    heading = f"strongest patches of {result.layer}: {len(squares)} of {len(result.count)} units, nine each"
    figures = [(f"unit {unit}", square) for unit, square in enumerate(squares)]
    silent = int((~result.fired).sum())
    remark = f"{counted(silent, 'unit')} without patches: never fires on these images" if silent else None
    return View(heading, figures, tensors, table, remark=remark, side=116, columns=8)


def _of_unit(unit: int, result: LayerPatches, images: ImageSet, tensors: dict[str, Tensor]) -> View:
    import torch

    patches = result.patches(images, unit)  # says at once if there is no such unit
    table = result.table()
    table = _named(table[table["unit"] == unit], images)
    heading = f"unit {unit} of {result.layer}: {unit_in_words(result, unit, images.classes['class'])}"
    if not patches:
        plain = [("it never fires on these images", draw.picture(torch.ones(3, 8, 32)))]
        return View(heading, plain, tensors, table)
    rows, boxes = result.index[unit, : len(patches)].tolist(), result.box[unit].tolist()
    figures = []
    for row, box, patch, response in zip(rows, boxes, patches, result.response[unit].tolist(), strict=False):
        large = framed(images[row][0], box, 96)
        figures.append((f"{row}: {response:.3g}", _beside(large, draw.picture(patch))))
    remark = "below each image its number in the test set, and the unit's response: the sum of its map"
    return View(heading, figures, tensors, table, remark=remark, side=96, columns=5)


def _named(table: pd.DataFrame, images: ImageSet) -> pd.DataFrame:
    """With what each image is called, where the set has names."""
    return table.assign(name=[images.name(row) for row in table["image"].tolist()]) if images.names else table


def patch_square(result: LayerPatches, images: ImageSet, unit: int) -> Picture:
    """The strongest patches of a unit, three in a row, each on a square of the field's size; blank where there is none."""
    side = max(1, int((result.box[..., 2:] - result.box[..., :2]).max()))
    cells = [_centred(draw.picture(patch), side) for patch in result.patches(images, unit)[:_PATCHES]]
    cells += [_centred(None, side)] * (_PATCHES - len(cells))
    return draw.sheet(cells, columns=math.isqrt(_PATCHES), gap=1)


def unit_in_words(result: LayerPatches, unit: int, classes: tuple[str, ...]) -> str:
    """Its mean response, the largest, and the classes that are most among its strongest images."""
    words = [f"response {float(result.mean[unit]):.3g} on average, {float(result.largest[unit]):.3g} at most"]
    if result.class_counts is not None and int(result.count[unit]):
        counts = result.class_counts[unit]
        first = [k for k in counts.argsort(descending=True, stable=True).tolist()[:2] if counts[k]]
        words.append(" and ".join(f"{int(counts[k])} of {int(result.count[unit])} are {classes[k]}" for k in first))
    return "; ".join(words)


def _centred(patch: Picture | None, side: int) -> Picture:
    """A patch in the middle of a light square."""
    import torch

    square = draw.picture(torch.full((3, side, side), 0.93))
    if patch is not None:
        top, left = ((side - n) // 2 for n in patch.shape[:2])
        square[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return square


def _beside(image: Picture, patch: Picture) -> Picture:
    """An image and its patch on one strip, the patch as high as fits."""
    import torch

    large = draw.enlarge_to(patch, image.shape[0])
    strip = draw.picture(torch.ones(3, image.shape[0], image.shape[1] + 4 + image.shape[0]))
    strip[:, : image.shape[1]] = image
    strip[: large.shape[0], image.shape[1] + 4 : image.shape[1] + 4 + large.shape[1]] = large
    return strip
