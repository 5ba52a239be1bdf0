"""What the analyses of the test images share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from convscope import draw
from convscope.analyses.request import NImages, Reads, Request

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.analyses.analysis import Inputs
    from convscope.data import ImageSet


class TestSetRequest(Request):
    """Of an analysis that looks at all test images."""

    reads: ClassVar[Reads] = "test images"


class SampleRequest(TestSetRequest):
    """Of an analysis that looks at some of the test images."""

    images: NImages = None


def sample(inputs: Inputs, n: int) -> ImageSet:
    """At most `n` test images, evenly over the set."""
    return inputs.test.subset(sample_rows(inputs, n))


def sample_rows(inputs: Inputs, n: int) -> Tensor:
    """Their numbers among the test images."""
    import torch

    n_test = len(inputs.test)
    return torch.linspace(0, n_test - 1, min(n, n_test)).long()


def counted(n: int, noun: str) -> str:
    """A number with its noun."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def chart(specification: dict[str, Any]) -> tuple[str, Any]:
    """A chart as a figure of a view."""
    return "", draw.chart_picture(specification)
