"""What an analysis shows: figures with a sentence, and the numbers that they were drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convscope import draw

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float
    from torch import Tensor

    from convscope.draw import Picture, Scale

Figure = tuple[str, "Picture"]
"""A picture with the line below it."""


def framed(image: Float[Tensor, "C H W"], box: Sequence[int], side: int) -> Picture:
    """An image with its longer side enlarged to at most `side` pixels, and a box (top, left, bottom, right) of it framed."""
    shown = draw.picture(image)
    scale = max(1, side // max(shown.shape[:2]))
    top, left, bottom, right = (scale * edge for edge in box)
    return draw.framed(draw.enlarge(shown, scale), (top, left, bottom, right))


@dataclass(frozen=True, eq=False)
class View:
    """What an analysis shows.

    Attributes:
        heading: the result in a line.
        figures: pictures with their captions.
        tensors: the numbers that they were drawn from, by name.
        table: figures of the result, where it has rows of them.
        title: the line above the figures, where it is not the heading.
        remark: the line below them.
        scale: of the heatmaps among them.
        side: of each figure in pixels; smaller pictures are enlarged.
        columns: figures in a row; all of them by default.
        note: what a reader of the network's answers has to know; see `Scope.note`.
    """

    heading: str
    figures: Sequence[Figure]
    tensors: Mapping[str, Tensor]
    table: pd.DataFrame | None = None
    title: str | None = None
    remark: str | None = None
    scale: Scale | None = None
    side: int = 256
    columns: int | None = None
    note: str | None = None

    @property
    def picture(self) -> Picture:
        """All figures under the title, as one picture."""
        title = self.heading if self.title is None else self.title
        return draw.panel(self.figures, title, self.scale, self.side, self.remark, self.columns)
