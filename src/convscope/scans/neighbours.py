"""The features of images at a layer, and which images of a set are nearest to others by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from convscope.data import ImageSet
from convscope.errors import RequestError
from convscope.graph import Positions, TracedGraph, positions
from convscope.scans.cached import cached_record
from convscope.scans.exact import ByImage
from convscope.scans.scan import (
    AnyImages,
    BatchOutputs,
    PassSettings,
    Subject,
    check_count,
    scan,
    shown,
    sizes,
)

MOST = 20_000
"""Images among which nearest ones are looked for: of a larger set so many, evenly."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The features of images at a layer, each of length 1.

    Attributes:
        layer: whose they are.
        index: of each image in its set.
        features: divided by their length; zeros where all are zero.
    """

    layer: str
    index: Int64[Tensor, " N"]
    features: Float[Tensor, "N D"]

    def table(self) -> pd.DataFrame:
        """A row an image: its index and its features."""
        return pd.DataFrame(
            self.features.numpy(), columns=[f"feature {k}" for k in range(self.features.shape[1])]
        ).assign(index=self.index.numpy())

    def nearest(self, others: Embeddings, n: int) -> Nearest:
        """Of `others` the n that are nearest to each image, the nearest first; of equal ones those of lower index."""
        parts = []
        for some in self.features.split(256):
            similarity, rows = largest(some @ others.features.T, n)
            parts.append((similarity, others.index[rows]))
        similarities, indexes = zip(*parts, strict=True)
        return Nearest(torch.cat(indexes), torch.cat(similarities))


@dataclass(frozen=True, eq=False)
class Nearest:
    """The images of a set that are nearest to some images.

    Attributes:
        index: of each in its set, the nearest first.
        similarity: the cosine of the angle between their features, in [-1, 1]: 1 for the same direction.
    """

    index: Int64[Tensor, "Q n"]
    similarity: Float[Tensor, "Q n"]


def largest(values: Float[Tensor, "Q N"], n: int) -> tuple[Float[Tensor, "Q n"], Int64[Tensor, "Q n"]]:
    """Of each row the n largest values and their columns, the largest first; of equal ones those of lower column."""
    top, columns = values.topk(min(n, values.shape[1]), dim=1)
    tied = (values >= top[:, -1:]).sum(dim=1) > top.shape[1]  # which of the equal ones topk takes is left to it
    columns, order = columns.sort(dim=1)
    top, ranked = top.gather(1, order).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, ranked)
    if tied.any():
        all_values, all_columns = values[tied].sort(dim=1, descending=True, stable=True)
        top[tied], columns[tied] = all_values[:, :n], all_columns[:, :n]
    return top, columns


def embeddings(
    scope: Subject, images: AnyImages, layer: str | None = None, **settings: Unpack[PassSettings]
) -> Embeddings:
    """The features of images at a layer. In the folder of a run those of a set are kept, and found again.

    Args:
        scope: the network, a `Scope`.
        images: a set, or a tensor in [0, 1].
        layer: of maps the mean over their positions is taken. By default the features that the logits are read from, with
            all their positions.
        settings: batch_size, max_memory, workers, progress; see `scan`.

    Raises:
        RequestError: there are no images, or no layer is given and the network reads its logits from the image itself.
        UnknownNameError: there is no such layer; the message lists those there are.
    """
    images, key = shown(scope, images), sizes(settings, ["layer"])
    name = read_by_logits(scope.graph) if layer is None else scope.graph.operation(layer).name
    place = None if layer is None else positions(scope.graph).get(name)

    def make() -> Embeddings:
        [embedded] = scan(scope, images, [_Embedding(name, place)], **settings)
        return embedded

    if not isinstance(images, ImageSet):
        return make()
    mean_of = {} if layer is None else {"mean_of": name}
    return cached_record(scope, "embeddings", images, key | mean_of, Embeddings, make)


def nearest(
    scope: Subject, images: AnyImages, among: ImageSet, n: int = 8, **settings: Unpack[PassSettings]
) -> Nearest:
    """The n images of a set that are nearest to each of some images, by the features that the logits are read from.

    The measure is the cosine of the angle between features. Of a set of more than 20,000 images so many, evenly, are looked
    at.

    Args:
        scope: the network, a `Scope`.
        images: a set, or a tensor in [0, 1].
        among: the set, such as the training images.
        n: how many of it.
        settings: batch_size, max_memory, workers, progress; see `scan`.

    Raises:
        RequestError: as `embeddings`, or n is no whole number above 0, or `among` is no set.

    Example:
        >>> nearest(scope, data.test.images([7]), data.train).index
    """
    check_count("n", n)
    if not isinstance(among, ImageSet):
        raise RequestError(f"among: a {type(among).__name__}; expected a set of images, such as data.train")
    sizes(settings, ["n"])  # refuses a misspelt one with those of this function
    rows = evenly(len(among), MOST)
    neighbours = embeddings(scope, images, **settings).nearest(embeddings(scope, among.subset(rows), **settings), n)
    return Nearest(rows[neighbours.index], neighbours.similarity)


def evenly(n: int, most: int) -> Int64[Tensor, " n"]:
    """At most so many of n rows."""
    return torch.linspace(0, n - 1, min(most, n), dtype=torch.float64).long()


def read_by_logits(graph: TracedGraph) -> str:
    """The operation whose result the last dense layer or convolution reads.

    Raises:
        RequestError: that is the image itself, or there is no such layer.
    """
    name = graph.outputs[0]
    while name in graph.by_name:
        operation = graph.by_name[name]
        name = operation.inputs[0]
        if operation.kind in ("dense", "conv") and name in graph.by_name:
            return name
    raise RequestError("this network reads its logits from the image itself; there are no features to compare")


class _Embedding(ByImage):
    """A scan that keeps the features of each image: their mean over the positions, where these are given."""

    def __init__(self, layer: str, place: Positions | None = None) -> None:
        self.layers, self._place = (layer,), place

    def update(self, seen: BatchOutputs) -> None:
        features = seen.activations[self.layers[0]].float()
        if self._place is not None:
            features = self._place.as_map(features).mean(dim=(2, 3))
        self.keep(seen.index, features=F.normalize(features.flatten(1), dim=1))

    def result(self) -> Embeddings:
        return Embeddings(self.layers[0], **super().result())
