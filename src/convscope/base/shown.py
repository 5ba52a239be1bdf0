"""What makes a result show itself in a notebook."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import ClassVar


class Shown:
    """A result that a notebook shows as a picture.

    Attributes:
        drawn_by: "module:function" that gives the PNG file of a result; lenses know no drawing, so the package's face names it.
    """

    drawn_by: ClassVar[str]

    def _repr_png_(self) -> bytes | None:
        picture: bytes | None = resolve_name(self.drawn_by)(self)
        return picture
