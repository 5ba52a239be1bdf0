"""What makes a result show itself in a notebook."""

from __future__ import annotations


class Shown:
    """A result that a notebook shows as a picture.

    Lenses know no drawing, so the face is asked for the room that draws them, and only once a notebook asks.
    """

    def _repr_png_(self) -> bytes | None:
        import convscope

        return convscope.analyses.notebook_picture(self)
