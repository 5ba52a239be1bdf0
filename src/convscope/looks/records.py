"""What is asked of a look, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from convscope.draw import Picture
from convscope.lenses import Fill, Position, Size


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
    """

    image: Tensor | None = None
    layer: str | None = None
    unit: int | None = None
    position: Position = None
    target: int | None = None
    size: list[Size] | None = None
    stride: Size | None = None
    fill: Fill | None = None

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
    """

    picture: Picture
    tensors: dict[str, Tensor]
    heading: str
