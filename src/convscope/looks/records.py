"""What is asked of a look, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
from torch import Tensor

from convscope.data import ImageSet
from convscope.draw import Picture
from convscope.lenses import Fill, NamedTarget, Position, Size


@dataclass(frozen=True, eq=False)
class Asked:
    """What a lens is asked, each part as the lens takes it; None where it is left to the lens.

    Attributes:
        image: in [0, 1], (C, H, W).
        layer: a layer's name.
        unit: of the layer.
        position: row and column on the layer's map, or "max" for where the unit answers most.
        target: a class.
        size: of an occluding square, or several sizes.
        stride: of the square.
        fill: what covers the image.
        test: the test images, which a scan looks at.
        method: the lens that is examined.
        n: how many test images, taken evenly; all of them where a scan is a single pass.
        top: how many of the strongest.
        units: to be switched off together, by layer.
        how: they are switched off; see `switched_off`.
        screen: measure only so many units of each layer, those that a first-order estimate names first.
    """

    image: Tensor | None = None
    layer: str | None = None
    unit: int | None = None
    position: Position = None
    target: NamedTarget = None
    size: list[Size] | None = None
    stride: Size | None = None
    fill: Fill | None = None
    test: ImageSet | None = None
    method: str | None = None
    n: int | None = None
    top: int | None = None
    units: dict[str, list[int]] | None = None
    how: str | None = None
    screen: int | None = None

    def given(self) -> dict[str, Any]:
        """The parts that were given, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Look:
    """What a lens shows.

    Attributes:
        picture: to be looked at.
        tensors: what it was drawn from, by name.
        heading: what it is, in a line.
        table: its figures, where it has rows of them.
        note: what a reader of the network's answers has to know; see `Scope.note`.
    """

    picture: Picture
    tensors: dict[str, Tensor]
    heading: str
    table: pd.DataFrame | None = None
    note: str | None = None
