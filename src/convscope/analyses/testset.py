"""What the analyses of the test images share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from convscope import draw
from convscope.analyses.request import NImages, Reads, Request

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.data import ImageSet


class TestSetRequest(Request):
    """Of an analysis that looks at all test images."""

    reads: ClassVar[Reads] = "test images"


class SampleRequest(TestSetRequest):
    """Of an analysis that looks at some of the test images, evenly over the set."""

    default_images: ClassVar[int] = 50

    images: NImages = None

    def rows(self, test: ImageSet) -> Tensor:
        """Their numbers among the test images."""
        import torch

        return torch.linspace(0, len(test) - 1, min(self.images or self.default_images, len(test))).long()

    def sample(self, test: ImageSet) -> ImageSet:
        """These images."""
        return test.subset(self.rows(test))


def chart(specification: dict[str, Any]) -> tuple[str, Any]:
    """A chart as a figure of a view."""
    return "", draw.chart_picture(specification)
