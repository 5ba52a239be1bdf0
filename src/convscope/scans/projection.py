"""Images as points of a plane: the features of a layer in two dimensions, and how far the picture keeps neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from convscope.base.optional import import_optional
from convscope.data import ImageSet
from convscope.errors import RequestError, UnknownNameError
from convscope.graph import check_finite
from convscope.runs import EMBEDDINGS, Run
from convscope.scans.cached import cached_record
from convscope.scans.neighbours import MOST, embeddings, evenly, largest
from convscope.scans.scan import AnyImages, PassSettings, Subject, shown, sizes

NEIGHBOURS = 10
"""Of each image, that are compared."""

MOST_SHOWN: dict[str, int] = {"pca": MOST, "tsne": 5000}
"""Images that a method shows: of a larger set so many, evenly."""

_BLOCK = 256  # rows of a table of distances that are held at once


@dataclass(frozen=True, eq=False)
class Projection:
    """The features of images at a layer, in two dimensions.

    Attributes:
        layer: whose they are.
        method: "pca" or "tsne".
        index: of each image in its set.
        points: x and y of each.
        neighbours: of each image the nearest others by the features (cosine), the nearest first, as rows of `index`.
        similarity: the cosine of the angle between its features and theirs.
        kept: the share of these neighbours, over all images, that are among as many nearest in the picture (Euclidean): 1
            where all are; for points without any order it is about n / N.
    """

    layer: str
    method: str
    index: Int64[Tensor, " N"]
    points: Float[Tensor, "N 2"]
    neighbours: Int64[Tensor, "N n"]
    similarity: Float[Tensor, "N n"]
    kept: float

    def table(self) -> pd.DataFrame:
        """A row an image: its index, x and y."""
        x, y = self.points.T.numpy()
        return pd.DataFrame({"index": self.index.numpy(), "x": x, "y": y})


def project(
    scope: Subject, images: AnyImages, layer: str | None = None, method: str = "pca", **settings: Unpack[PassSettings]
) -> Projection:
    """Images as points, so that those of similar features are near each other.

    PCA turns the features, so that the two directions of largest variance are x and y: exact, and the same for the same
    features; of each direction the point farthest out has a positive value. t-SNE keeps near neighbours together, while
    distances between groups, and their sizes, say little; it starts from PCA with seed 0, and runs in one thread, for the
    result depends on how many there are. Features are divided by their
    length first, so that both go by the angle between them. PCA holds a table of min(N, D) squared numbers. In the folder
    of a run the result is kept, and found again.

    Args:
        scope: the network, a `Scope`.
        images: a set, or a tensor in [0, 1]. Of more than 20,000, for t-SNE 5,000, so many are shown, evenly.
        layer: see `embeddings`.
        method: "pca", or "tsne", which needs scikit-learn.
        settings: batch_size, max_memory, workers, progress; see `scan`.

    Raises:
        RequestError: there are fewer than three images, or their features have one number, or are all the same.
        UnknownNameError: there is no such layer or method.
        MissingPackageError: t-SNE without scikit-learn.
        FailedError: features are NaN or infinite.

    Source: van der Maaten and Hinton 2008; van der Maaten 2014 (Barnes-Hut), as scikit-learn has it.

    Example:
        >>> project(scope, data.test, "conv3").kept
    """
    images = shown(scope, images)
    if method not in _METHODS:
        raise UnknownNameError("method", method, _METHODS, "one of a projection's")

    def make() -> Projection:
        embedded = embeddings(scope, images, layer, **settings)
        rows = evenly(len(embedded.index), MOST_SHOWN[method])
        features = _checked(embedded.features[rows], embedded.layer)
        points = _METHODS[method](features).float()
        similarity, near = _nearest_others(features, lambda some, others: some @ others.T)
        _, near_points = _nearest_others(
            points.double(),
            lambda some, others: -torch.cdist(some, others, compute_mode="donot_use_mm_for_euclid_dist"),
        )
        share = (near[:, :, None] == near_points[:, None, :]).any(dim=2).double().mean()
        return Projection(embedded.layer, method, embedded.index[rows], points, near, similarity, float(share))

    request = {"layer": layer, "method": method}
    return cached_record(scope, "projection", images, request | sizes(settings, request), Projection, make)


def write_embeddings(run: Run, images: ImageSet, shown: Projection) -> Path:
    """Writes a projection of a run's test images to `embeddings.parquet` in its folder, for other viewers.

    A row an image: index, name, class, predicted, confidence, x, y, and `neighbors`, the rows of the nearest others with
    their cosine distances, as `embedding-atlas embeddings.parquet --x x --y y --neighbors neighbors` reads them. For a
    network of several heads the first counts.

    Raises:
        RunFolderError: the run is not evaluated.
        WriteError: the folder cannot be written.
    """
    head, rows = run.task.heads[0], shown.index
    stored = run.predictions
    confidence, predicted = head.probabilities(stored["logits"][rows].float()).max(dim=1)
    columns = {
        "index": rows.tolist(),
        "name": [images.name(row) for row in rows.tolist()],
        "class": [head.classes[k] for k in stored[f"target.{head.target}"][rows].tolist()],
        "predicted": [head.classes[k] for k in predicted.tolist()],
        "confidence": confidence.tolist(),
        "x": shown.points[:, 0].tolist(),
        "y": shown.points[:, 1].tolist(),
        "neighbors": [
            {"ids": ids, "distances": distances}
            for ids, distances in zip(shown.neighbours.tolist(), (1 - shown.similarity).tolist(), strict=True)
        ],
    }
    run.write_table(EMBEDDINGS, pd.DataFrame(columns))
    return run.path / EMBEDDINGS


def _checked(features: Float[Tensor, "N D"], layer: str) -> Float[Tensor, "N D"]:
    n, dimensions = features.shape
    if n < 3:
        raise RequestError(f"a map shows three images or more, and there are {n}; give more")
    check_finite(features, f"layer {layer!r} gives NaN or infinity for these images; train the network again")
    if dimensions < 2 or bool((features == features[0]).all()):
        what = "one number for an image" if dimensions < 2 else "the same features for all images"
        raise RequestError(f"layer {layer!r} gives {what}, of which there is no map; give another layer")
    return features


def _pca(features: Float[Tensor, "N D"]) -> Float[Tensor, "N 2"]:
    """From the covariance of the features, or of the images where these are fewer; in double precision, a block at a time."""
    n, dimensions = features.shape
    mean = features.double().mean(dim=0)
    if n < dimensions:
        products = torch.zeros(n, n, dtype=torch.float64)
        for part, its_mean in zip(features.split(_BLOCK, dim=1), mean.split(_BLOCK), strict=True):
            centred = part.double() - its_mean
            products.addmm_(centred, centred.T)
        values, vectors = torch.linalg.eigh(products)
        points = (vectors * values.clamp(min=0).sqrt())[:, -2:]
    else:
        products = torch.zeros(dimensions, dimensions, dtype=torch.float64)
        for part in features.split(_BLOCK):
            centred = part.double() - mean
            products.addmm_(centred.T, centred)
        axes = torch.linalg.eigh(products).eigenvectors[:, -2:]
        points = torch.cat([(part.double() - mean) @ axes for part in features.split(_BLOCK)])
    points = points.flip(1)
    farthest = points.gather(0, points.abs().argmax(dim=0, keepdim=True))
    return torch.where(farthest < 0, -points, points)


def _tsne(features: Float[Tensor, "N D"]) -> Float[Tensor, "N 2"]:
    manifold = import_optional("sklearn.manifold", "t-SNE", "map", "scikit-learn")
    limits = import_optional("threadpoolctl", "t-SNE", "map").threadpool_limits(
        1
    )  # sums depend on the number of threads
    with limits:
        model = manifold.TSNE(init="pca", perplexity=min(30.0, (len(features) - 1) / 3), random_state=0)
        return torch.from_numpy(model.fit_transform(features.numpy()))


_METHODS: dict[str, Callable[[Tensor], Tensor]] = {"pca": _pca, "tsne": _tsne}


def _nearest_others(
    rows: Float[Tensor, "N D"], similarity: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Float[Tensor, "N n"], Int64[Tensor, "N n"]]:
    """For each row the most similar others: how similar they are, and which."""
    parts = []
    for start in range(0, len(rows), _BLOCK):
        block = similarity(rows[start : start + _BLOCK], rows)
        own = torch.arange(len(block))
        block[own, start + own] = -torch.inf
        parts.append(largest(block, min(NEIGHBOURS, len(rows) - 1)))
    values, columns = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(columns)
