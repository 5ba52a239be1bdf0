"""How much the answer depends on each part of an image: the probability with that part covered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import NetworkError, RequestError
from convscope.graph import Box, Incremental, Patch, Remembered, Span, TracedGraph
from convscope.lenses.memory import portions
from convscope.lenses.targets import Target, choose_targets

Size = int | tuple[int, int]
"""A side in pixels, or (height, width)."""

Fill = Literal["grey", "mean", "zero", "blur"] | float | int | Tensor
"""What covers the square; see `fill_images`."""

BLOCK_SIDES = (1, 2, 3, 4, 6, 8, 12, 16)
"""How many squares, down and across, may be run together as if they covered what they cover together."""

LARGEST_PASS = 256
"""Images in one pass of the network's end: more gain nothing."""


@dataclass(frozen=True)
class OcclusionMap:
    """The answer to each image with a square of it covered, for each position of the square.

    Position (r, c) covers rows r·stride … r·stride + height − 1, and columns likewise.

    Attributes:
        probabilities: of the target, in [0, 1].
        whole: its probability with nothing covered.
        targets: the output that each map is about.
        size: (height, width) of the square in pixels.
        stride: (down, across) in pixels.
        logits: all outputs at each position; None unless asked for.
        note: one line on what had to be run whole, which is slower and as exact; None without any.
    """

    probabilities: Float[Tensor, "N rows columns"]
    whole: Float[Tensor, " N"]
    targets: Int[Tensor, " N"]
    size: tuple[int, int]
    stride: tuple[int, int]
    logits: Float[Tensor, "N rows columns K"] | None = None
    note: str | None = None

    @property
    def sum(self) -> Float[Tensor, " N"]:
        """The sum of each map: small where the answer hangs on few places, rows · columns · whole where on none."""
        return self.probabilities.sum((1, 2))

    @property
    def drop(self) -> Float[Tensor, "N rows columns"]:
        """What covering takes from the probability, in [−1, 1]; 0 where the square does not matter."""
        return self.whole[:, None, None] - self.probabilities


@overload
def occlusion(
    graph: TracedGraph,
    images: Tensor,
    fill: Tensor,
    size: Size = ...,
    stride: Size = ...,
    target: Target = ...,
    *,
    logits: bool = ...,
    max_memory: int | None = ...,
) -> OcclusionMap: ...


@overload
def occlusion(
    graph: TracedGraph,
    images: Tensor,
    fill: Tensor,
    size: list[Size],
    stride: Size = ...,
    target: Target = ...,
    *,
    logits: bool = ...,
    max_memory: int | None = ...,
) -> list[OcclusionMap]: ...


def occlusion(
    graph: TracedGraph,
    images: Float[Tensor, "N C H W"],
    fill: Float[Tensor, "F C H W"],
    size: Size | list[Size] = 5,
    stride: Size = 1,
    target: Target = None,
    *,
    logits: bool = False,
    max_memory: int | None = None,
) -> OcclusionMap | list[OcclusionMap]:
    """The target's probability with a square of the image covered, for each position of the square.

    The square stays within the image, so at stride 1 a map is (H − height + 1) × (W − width + 1): one value a
    position, where Captum spreads it over the pixels that it covers. Each value is that of a whole pass over
    the covered image, up to rounding, but at each layer only what the square can reach is run; the rest is
    remembered from the image as it is. What has no such rule is run whole, and the result's note says so.

    Args:
        graph: the traced network, in evaluation mode whatever mode the network is in.
        images: normalised, of the size that the graph was traced with.
        fill: what covers them, normalised like them: one for all, or one for each; see `fill_images`.
        size: of the square in pixels, a side or (height, width); a list gives a map for each.
        stride: from one position to the next in pixels, one number or (down, across).
        target: see `Target`.
        logits: whether to keep all outputs at each position.
        max_memory: in bytes; see `portions`.

    Returns:
        The map, or a list of them; see `OcclusionMap`.

    Raises:
        RequestError: the square does not fit the image, or the images, the fill or the target the network.
        NetworkError: the network gives no logits (N, K).

    Source: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2,
        arXiv:1311.2901, with a grey square.

    Example:
        >>> grey = fill_images(images, "grey")
        >>> found = occlusion(graph, normalise(images), normalise(grey), size=5)
        >>> found.probabilities.shape, found.sum
    """
    sizes = [_pair("size", one) for one in (size if isinstance(size, list) else [size])]
    grids = [_Grid(one, _pair("stride", stride), tuple(graph.input_shape[1:])) for one in sizes]
    fill = _one_for_each(fill, images)
    whole = _whole(graph, images, max_memory)
    targets = choose_targets(whole, target)
    network = Incremental(graph)
    found = [_answers(network.remember(image), cover, grids, max_memory) for image, cover in _one_by_one(images, fill)]
    maps = [
        _map(torch.stack(answers), whole, targets, grid, logits, network.note)
        for grid, answers in zip(grids, zip(*found, strict=True), strict=True)
    ]
    return maps if isinstance(size, list) else maps[0]


def fill_images(images: Float[Tensor, "N C H W"], fill: Fill) -> Float[Tensor, "F C H W"]:
    """What to cover images with, as images of their own; only what lies under the square is used.

    Args:
        images: in [0, 1], before normalisation.
        fill: "grey" for 0.5 in all channels; "mean" for each image's own colour, channel by channel; "zero" for
            black; "blur" for the image under a Gaussian whose deviation is a 16th of its shorter side; a number
            for that value in all channels; or a tensor: a colour (C,) or an image (C, H, W) for all, or one for
            each (N, C, H, W). Numbers and tensors in [0, 1].

    Returns:
        One image for all, or one for each.

    Raises:
        RequestError: the fill is none of these.

    Example:
        >>> fill_images(torch.rand(2, 3, 32, 32), "mean").shape
        torch.Size([2, 3, 32, 32])
    """
    if isinstance(fill, Tensor):
        return _image_like(fill, images)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if fill == "blur":
        return _blurred(images, deviation=min(images.shape[2:]) / 16)
    value = {"grey": 0.5, "zero": 0.0}.get(fill, fill) if isinstance(fill, str) else fill
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RequestError(
            f"fill: {fill!r}; expected 'grey', 'mean', 'zero', 'blur', a number in [0, 1], or a tensor of pixels"
        )
    return torch.full_like(images[:1], value)


class _Grid:
    """The positions of a square on an image.

    Attributes:
        shape: how many there are, (down, across).
    """

    def __init__(self, size: tuple[int, int], stride: tuple[int, int], image: tuple[int, ...]) -> None:
        if size[0] > image[0] or size[1] > image[1]:
            raise RequestError(
                f"size: a square of {size[0]}×{size[1]} does not fit images of {image[0]}×{image[1]}; take a smaller one"
            )
        self.size, self.stride = size, stride
        self.shape = tuple((room - side) // step + 1 for room, side, step in zip(image, size, stride, strict=True))

    def spans(self, axis: int, side: int) -> list[tuple[Span, int]]:
        """What `side` neighbouring squares at a time cover together along an axis, and their number."""
        n, step = self.shape[axis], self.stride[axis]
        firsts = range(0, n, side)
        numbers = [min(side, n - first) for first in firsts]
        return [
            (Span(first * step, (first + number - 1) * step + self.size[axis]), number)
            for first, number in zip(firsts, numbers, strict=True)
        ]
