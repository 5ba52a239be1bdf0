"""How much the answer depends on each part of an image: the probability with that part covered."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from numbers import Integral, Real
from typing import overload

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from convscope.base.shown import Shown
from convscope.base.words import shape_text
from convscope.data import operations
from convscope.errors import FailedError, NetworkError, RequestError
from convscope.graph import Box, BoxValues, Incremental, Remembered, Span, TracedGraph, check_weights, is_finite
from convscope.lenses.attribution import OVERFLOW
from convscope.lenses.memory import portions
from convscope.lenses.targets import Target, choose_targets, with_task
from convscope.nets import Task

Fill = str | float | int | Tensor
"""What covers a part of an image; see `fill_images`."""


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
        return operations.blur(images, min(images.shape[2:]) / 16)
    value = {"grey": 0.5, "zero": 0.0}.get(fill, fill) if isinstance(fill, str) else fill
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
        raise RequestError(
            f"fill: {fill!r}; expected 'grey', 'mean', 'zero', 'blur', a number in [0, 1], or a tensor of pixels"
        )
    return torch.full_like(images[:1], float(value))


def _image_like(fill: Tensor, images: Tensor) -> Tensor:
    """A colour or images as images; those of `images` tell the shape."""
    n, channels, height, width = images.shape
    if fill.is_meta or fill.layout != torch.strided:
        raise RequestError(
            "fill: a sparse tensor, or one of the meta device; expected a dense tensor of pixels in [0, 1]"
        )
    if fill.shape not in ((channels,), (channels, height, width), (n, channels, height, width)):
        raise RequestError(
            f"fill: a tensor of shape {tuple(fill.shape)} for images {tuple(images.shape)}; expected a colour (C,), an "
            "image (C, H, W), or one for each (N, C, H, W)"
        )
    as_images = fill.view(1, -1, 1, 1) if fill.ndim == 1 else fill.reshape(-1, channels, height, width)
    return as_images.to(images).expand(-1, -1, height, width)


Size = int | tuple[int, int]
"""A side in pixels, or (height, width)."""

Block = tuple[range, range]
"""Neighbouring positions: rows and columns."""

BLOCK_SIDES = (1, 2, 3, 4, 6, 8, 12, 16)
"""How many squares, down and across, may be run together as if they covered what they cover together."""

LARGEST_BLOCK = 256
"""Squares in a block: more gain nothing."""


@dataclass(frozen=True)
class OcclusionMap(Shown):
    """The answer to each image with a square of it covered, for each position of the square.

    Position (r, c) covers rows r·stride … r·stride + height − 1, and columns likewise.

    Attributes:
        probabilities: of the target, in [0, 1].
        whole: its probability with nothing covered.
        targets: the class that each map is about.
        size: (height, width) of the square in pixels.
        stride: (down, across) in pixels.
        logits: all outputs at each position; None unless asked for.
        note: one line on what had to be run whole, which is slower and as exact, and on the network; None without any.
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

    def on_image(self, height: int, width: int) -> Float[Tensor, "N height width"]:
        """The drop at each pixel of the image, with the pixel at the centre of the square.

        Bilinear between centres; beyond the outermost ones their values go on to the border.
        """
        axes = [
            # the position whose square has its centre at each pixel, in -1 … 1 over the map
            2 * ((torch.arange(n) - (side - 1) / 2) / step) / max(1, positions - 1) - 1
            for n, side, step, positions in zip(
                (height, width), self.size, self.stride, self.probabilities.shape[1:], strict=True
            )
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1).to(self.drop)
        grid = grid.expand(len(self.drop), -1, -1, -1)
        return F.grid_sample(self.drop[:, None], grid, padding_mode="border", align_corners=True)[:, 0]


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
        FailedError: weights of the network, or its answers, are NaN or infinite.

    Source: Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2,
        arXiv:1311.2901, with a grey square.

    Example:
        >>> grey = fill_images(images, "grey")
        >>> result = occlusion(graph, normalise(images), normalise(grey), size=5)
        >>> result.probabilities.shape, result.sum
    """
    graph.check(images)
    if not len(images):
        raise RequestError("images: there is none; give at least one")
    check_weights(graph.net)
    sizes, step = size if isinstance(size, list) else [size], _pair("stride", stride)
    grids = [_Grid(_pair("size", one), step, graph.input_shape[1:]) for one in sizes]
    fills = _one_for_each(fill, images)
    network = Incremental(graph)
    bytes_each = sys.maxsize if graph.mixes_images else network.values_each * images.element_size()
    room = next(portions(LARGEST_BLOCK, bytes_each, images.device, max_memory)).stop
    whole = _whole(graph, images, network.shortened(0).at_once(images, len(images), room))
    plans = [_cheapest(network, grid, images, room) for grid in grids]
    shortened = {n_steps: network.shortened(n_steps) for _, n_steps in plans}
    targets, task = choose_targets(whole, target), with_task(target, whole.shape[1]).task
    answers: list[list[Tensor]] = [[] for _ in grids]
    for image, cover in zip(images.split(1), fills.split(1), strict=True):
        remembered = {n_steps: one.remember(image) for n_steps, one in shortened.items()}
        for grid, (side, n_steps), by_image in zip(grids, plans, answers, strict=True):
            at_once = shortened[n_steps].at_once(images, prod(grid.shape), room)
            by_image.append(_answers(remembered[n_steps], image, cover, grid, side, at_once))
    maps = [
        OcclusionMap(
            probabilities=_probability(task, torch.stack(by_image), targets),
            whole=_probability(task, whole, targets),
            targets=targets,
            size=grid.size,
            stride=step,
            logits=torch.stack(by_image) if logits else None,
            note="; ".join(filter(None, (network.note, graph.note))) or None,
        )
        for grid, by_image in zip(grids, answers, strict=True)
    ]
    return maps if isinstance(size, list) else maps[0]


class _Grid:
    """The positions of a square on an image.

    Attributes:
        shape: how many there are, (down, across).
    """

    def __init__(self, size: tuple[int, int], stride: tuple[int, int], image: Sequence[int]) -> None:
        if size[0] > image[0] or size[1] > image[1]:
            raise RequestError(
                f"size: a square of {size[0]}×{size[1]} is larger than the images of {image[0]}×{image[1]}; take a "
                "smaller one"
            )
        self.size, self.stride = size, stride
        down, across = ((whole - side) // step + 1 for whole, side, step in zip(image, size, stride, strict=True))
        self.shape = (down, across)

    def covered(self, axis: int, positions: range) -> Span:
        """The rows (axis 0) or columns (1) that squares at these positions cover together."""
        step = self.stride[axis]
        return Span(positions[0] * step, positions[-1] * step + self.size[axis])

    def inside(self, axis: int, positions: range, device: torch.device) -> Bool[Tensor, "P covered"]:
        """For each position which of the rows or columns that all cover together lie under its square."""
        starts = torch.arange(len(positions), device=device)[:, None] * self.stride[axis]
        pixels = torch.arange(self.covered(axis, positions).length, device=device)
        return (pixels >= starts) & (pixels < starts + self.size[axis])

    def ranges(self, axis: int, side: int) -> list[range]:
        """All positions along an axis, `side` together."""
        n = self.shape[axis]
        return [range(first, min(n, first + side)) for first in range(0, n, side)]

    def cut(self, side: int) -> tuple[list[tuple[Span, int]], list[tuple[Span, int]]]:
        """The rows and the columns that blocks of that side cover, and how many positions each has."""
        rows, columns = ([(self.covered(axis, r), len(r)) for r in self.ranges(axis, side)] for axis in (0, 1))
        return rows, columns


def _cheapest(network: Incremental, grid: _Grid, images: Tensor, room: int) -> tuple[int, int]:
    """The side of the blocks, of at most `room` squares, and the number of steps to follow them that cost least."""
    sides = [side for side in BLOCK_SIDES if side**2 <= room and side < 2 * max(grid.shape)]
    cuts = [grid.cut(side) for side in sides]
    at_once = network.shortened(0).at_once(images, prod(grid.shape), room)
    best, n_steps = network.cheapest(cuts, at_once, images.device)
    return sides[best], n_steps


def _answers(
    remembered: Remembered,
    image: Float[Tensor, "1 C H W"],
    fill: Float[Tensor, "1 C H W"],
    grid: _Grid,
    side: int,
    at_once: int,
) -> Float[Tensor, "rows columns K"]:
    """The logits at each position, with blocks of that side, and so many images at once where they are run whole."""
    blocks = list(product(grid.ranges(0, side), grid.ranges(1, side)))
    logits = remembered.run((_patch(image, fill, grid, block) for block in blocks), at_once)
    numbered = torch.arange(prod(grid.shape), device=image.device).view(grid.shape)
    order = torch.cat([numbered[rows][:, columns].flatten() for rows, columns in blocks])
    return logits[order.argsort()].unflatten(0, grid.shape)


def _patch(image: Tensor, fill: Tensor, grid: _Grid, block: Block) -> BoxValues:
    """The image with each square of a block covered, in the box that holds them all."""
    box = Box(*(grid.covered(axis, positions) for axis, positions in enumerate(block)))
    rows, columns = (grid.inside(axis, positions, image.device) for axis, positions in enumerate(block))
    squares = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1).unsqueeze(1)  # P 1 height width
    return BoxValues(box, torch.where(squares, box.cut(fill), box.cut(image)))


def _whole(graph: TracedGraph, images: Tensor, room: int) -> Float[Tensor, "N K"]:
    """The answer to the images as they are."""
    with torch.no_grad():
        logits = torch.cat([graph.run(batch)[graph.outputs[0]] for batch in images.split(room)])
    if logits.ndim != 2:
        shape = shape_text(logits.shape[1:])
        raise NetworkError(f"occlusion looks at logits (N, K); this network gives {shape} for an image: add its head")
    return logits


def _probability(task: Task, logits: Float[Tensor, "N *P U"], targets: Int[Tensor, " N"]) -> Float[Tensor, ...]:
    """That of each image's target, among the classes of its head; FailedError where it is no number."""
    probabilities = task.probabilities(logits)
    of_target = torch.stack([one[..., target] for one, target in zip(probabilities, targets.tolist(), strict=True)])
    if not is_finite(of_target):
        raise FailedError(OVERFLOW)
    return of_target


def _pair(key: str, value: Size) -> tuple[int, int]:
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2 or not all(isinstance(n, Integral) and n > 0 for n in pair):
        raise RequestError(f"{key}: {value!r}; expected whole pixels above 0, one number or (down, across)")
    return pair


def _one_for_each(fill: Tensor, images: Tensor) -> Tensor:
    if fill.ndim != 4 or fill.shape[1:] != images.shape[1:] or len(fill) not in (1, len(images)):
        given, want = tuple(fill.shape), tuple(images.shape)
        raise RequestError(
            f"fill: shape {given} for images {want}; make it by fill_images, one for all or one for each"
        )
    return fill.to(images).expand_as(images)
