"""For every unit the images it answers most to, and the patch of each that it answers to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

from convscope.data import ImageSet
from convscope.errors import RequestError, SettingError
from convscope.graph import TracedGraph, check_finite, relu_after
from convscope.scans.cached import ScanRequest, cached_scans
from convscope.scans.exact import ByLayer, ExactSum, Summed
from convscope.scans.layers import LayerMap, layer_maps
from convscope.scans.scan import AnyImages, BatchOutputs, Images, PassSettings, Subject, check_count, shown

Score = Literal["sum", "max", "mean"]
"""How one number is made of a unit's feature map: over its positions."""
SCORES: tuple[Score, ...] = ("sum", "max", "mean")


@dataclass(frozen=True, eq=False)
class LayerPatches:
    """The strongest images of every unit of a layer; k of them, strongest first, equal ones by their index.

    Units that never fire have none: `count` is 0 and their rows hold -1, NaN and zeros.

    Attributes:
        layer: the layer that was asked for.
        looked_at: the operation whose results these are: the layer itself, or the ReLU behind it.
        score: how a response was made of a map.
        index: of the images in the set, (U, k).
        response: of the unit to each of them, (U, k); in float32, whatever the network computes in.
        activation: the largest on the map, (U, k); not positive where the unit is silent in that image.
        position: (row, column) of it on the map, the first in reading order where several are equal, (U, k, 2).
        box: (top, left, bottom, right) of that position's receptive field in pixels, half-open and clipped to the image,
            (U, k, 4).
        count: how many images there are, (U,): k, or as many as were seen.
        fired: whether the unit gave a positive number anywhere in the data, (U,).
        class_counts: how many of the images belong to each class, (U, K); None where the images came without.
        mean: response over all images seen, (U,), in float64.
        largest: response over all images seen, (U,).
        n_images: how many were seen; of one class only, where one was asked for.
    """

    layer: str
    looked_at: str
    score: str
    index: Int64[Tensor, "U k"]
    response: Float32[Tensor, "U k"]
    activation: Float32[Tensor, "U k"]
    position: Int64[Tensor, "U k 2"]
    box: Int64[Tensor, "U k 4"]
    count: Int64[Tensor, " U"]
    fired: Bool[Tensor, " U"]
    class_counts: Int64[Tensor, "U K"] | None
    mean: Float[Tensor, " U"]
    largest: Float32[Tensor, " U"]
    n_images: int

    def patches(self, images: Images, unit: int) -> list[Float[Tensor, "C h w"]]:
        """The patches of a unit, strongest first, cut from the same images; smaller at the image's border.

        Raises:
            RequestError: there is no such unit, or the images are fewer than those that were scanned.
        """
        if not 0 <= unit < len(self.count):
            raise RequestError(f"unit {unit} is not in layer {self.layer!r}; it has 0 to {len(self.count) - 1}")
        n = int(self.count[unit])
        rows = self.index[unit, :n]
        if n and int(rows.max()) >= len(images):
            raise RequestError(
                f"image {int(rows.max())} is not among these {len(images)}; give those that were scanned"
            )
        strongest = images.images(rows) if isinstance(images, ImageSet) else images[rows]
        boxes = self.box[unit, :n].tolist()
        return [
            image[:, top:bottom, left:right] for image, (top, left, bottom, right) in zip(strongest, boxes, strict=True)
        ]

    def table(self) -> pd.DataFrame:
        """A row for each unit and image: layer, unit, rank (from 0), image, response, activation, row, column, box."""
        unit, rank = (torch.arange(self.index.shape[1]) < self.count[:, None]).nonzero().unbind(1)
        chosen = {name: getattr(self, name)[unit, rank] for name in ("index", "response", "activation")}
        places = torch.cat([self.position, self.box], 2)[unit, rank].unbind(1)
        named = dict(zip(("row", "column", "top", "left", "bottom", "right"), places, strict=True))
        columns = {"unit": unit, "rank": rank, **chosen, **named}
        table = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
        table.insert(0, "layer", self.layer)
        return table.rename(columns={"index": "image"})


class TopPatches(ByLayer):
    """Ranks the images by each unit's response, and remembers where on the map the strongest activation was.

    See `top_patches` for the arguments that are not explained here.

    Args:
        maps: how to read each layer, by the layer's name.
        boxes: of each map's positions, (4, rows, columns), by the layer's name; see `convscope.graph.ReceptiveField`.
        n_classes: of the target `class`; None where the images have none.
        of_class: only images of that class are looked at.
    """

    def __init__(
        self,
        maps: dict[str, LayerMap],
        boxes: dict[str, Tensor],
        top: int = 20,
        score: Score = "sum",
        n_classes: int | None = None,
        of_class: int | None = None,
    ) -> None:
        if score not in SCORES:
            raise SettingError(f"score: {score!r}; expected one of {', '.join(SCORES)}")
        check_count("top", top)
        if of_class is not None and not (n_classes and 0 <= of_class < n_classes):
            choices = f"0 to {n_classes - 1}" if n_classes else "none, for the images came without"
            raise SettingError(f"of_class: {of_class} is no class; there is {choices}")
        self.n_classes, self.of_class = n_classes, of_class
        self.layers = tuple(dict.fromkeys(each.name for each in maps.values()))
        self.parts = {layer: _Ranking(layer, each, boxes[layer], top, score, n_classes) for layer, each in maps.items()}

    @classmethod
    def of(
        cls,
        scope: Subject,
        images: Images,
        layers: Sequence[str] | str,
        top: int = 20,
        score: Score = "sum",
        before_relu: bool = True,
        of_class: str | int | None = None,
    ) -> TopPatches:
        """That of a network and a set, for a pass that feeds others too; arguments as of `top_patches`.

        Example:
            >>> scan(scope, test, [TopPatches.of(scope, test, "conv"), Statistics.of(scope, test, "conv")])
        """
        n_classes, number = class_number(images, of_class)
        chosen = layer_maps(scope.graph, layers)
        maps = {each.name: each if before_relu else _behind(scope.graph, each.name) for each in chosen}
        boxes = {layer: scope.receptive_field(each.name).boxes for layer, each in maps.items()}
        return cls(maps, boxes, top, score, n_classes, number)

    def update(self, seen: BatchOutputs) -> None:
        labels = seen.targets["class"] if self.n_classes is not None else torch.full_like(seen.index, -1)
        rows = None if self.of_class is None else (labels == self.of_class).nonzero()[:, 0]
        if rows is not None and not len(rows):
            return
        for ranking in self.parts.values():
            ranking.update(seen, labels, rows)


class _Ranking(Summed):
    """The best images of each unit of one layer, so far; on the CPU."""

    adds = ("n", "total")

    def __init__(
        self, name: str, layer: LayerMap, boxes: Tensor, top: int, score: Score, n_classes: int | None
    ) -> None:
        shape = (layer.n_units, top)
        self.name, self.layer, self.boxes, self.score, self.n_classes = name, layer, boxes, score, n_classes
        self.n, self.total = 0, ExactSum((layer.n_units,))
        self.ranks = torch.full(shape, NONE)
        self.position, self.label = torch.zeros(2, *shape, dtype=torch.int64)
        self.activation = torch.zeros(shape)
        self.largest, self.highest = torch.full((2, layer.n_units), -torch.inf)

    def update(self, seen: BatchOutputs, labels: Int64[Tensor, " N"], rows: Int64[Tensor, " R"] | None) -> None:
        """Takes in some rows of a batch: two passes over their maps, and a third over those that come in among the best."""
        result, index = seen.activations[self.layer.name], seen.index
        if rows is not None:
            result, index, labels = result[rows.to(result.device)], index[rows], labels[rows]
        maps = self.layer.read(result)  # N, U, P
        peak = maps.amax(2)
        response = peak if self.score == "max" else maps.sum(2) if self.score == "sum" else maps.mean(2)
        peak, response = peak.float().cpu(), response.float().cpu()
        for values in (response, peak):
            check_finite(values, f"layer {self.layer.name!r} gives NaN or infinity; the network's weights are broken")
        best, chosen = torch.cat([self.ranks, ranks(response.T, index)], 1).topk(self.ranks.shape[1])
        unit, rank = (chosen >= self.ranks.shape[1]).nonzero().unbind(1)
        image = chosen[unit, rank] - self.ranks.shape[1]
        old = chosen.clamp(max=self.ranks.shape[1] - 1)
        self.position, self.activation, self.label = (
            values.gather(1, old) for values in (self.position, self.activation, self.label)
        )
        self.ranks = best
        self.position[unit, rank] = maps[image.to(maps.device), unit.to(maps.device)].argmax(1).cpu()
        self.activation[unit, rank] = peak[image, unit]
        self.label[unit, rank] = labels[image]
        self.n += len(index)
        self.total.add(response)
        self._raise(response.amax(0) + 0.0, peak.amax(0) + 0.0)  # no -0, which equals 0 and has other bytes

    def merge(self, other: _Ranking) -> None:
        super().merge(other)
        best, chosen = torch.cat([self.ranks, other.ranks], 1).topk(self.ranks.shape[1])
        for name in ("position", "activation", "label"):
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)], 1).gather(1, chosen))
        self.ranks = best
        self._raise(other.largest, other.highest)

    def _raise(self, largest: Tensor, highest: Tensor) -> None:
        self.largest, self.highest = torch.maximum(self.largest, largest), torch.maximum(self.highest, highest)

    def result(self) -> LayerPatches:
        fired = self.highest > 0
        best = self.ranks.where(fired[:, None], NONE)
        present = best != NONE
        columns = self.layer.size[1]
        position = torch.stack([self.position // columns, self.position % columns], 2)
        flat_position = self.position if self.boxes[0].numel() > 1 else torch.zeros_like(self.position)
        return LayerPatches(
            layer=self.name,
            looked_at=self.layer.name,
            score=self.score,
            index=indices_of(best),
            response=values_of(best),
            activation=self.activation.where(present, torch.nan),
            position=position.where(present[:, :, None], 0),
            box=self.boxes.flatten(1).T[flat_position].where(present[:, :, None], 0),
            count=present.sum(1),
            fired=fired,
            class_counts=self._class_counts(present),
            mean=self.total.value / self.n,
            largest=self.largest.clone(),
            n_images=self.n,
        )

    def _class_counts(self, present: Tensor) -> Tensor | None:
        if self.n_classes is None:
            return None
        units = torch.arange(len(present))[:, None].expand_as(present)
        cells = (units * self.n_classes + self.label)[present]
        return torch.bincount(cells, minlength=len(present) * self.n_classes).view(-1, self.n_classes)


def top_patches(
    scope: Subject,
    images: AnyImages,
    layers: Sequence[str] | str,
    top: int = 20,
    score: Score = "sum",
    before_relu: bool = True,
    of_class: str | int | None = None,
    **how: Unpack[PassSettings],
) -> dict[str, LayerPatches]:
    """For every unit of some layers the images it answers most to, and where in them.

    One pass over the images, in which nothing is kept of a map but what a unit's best images need. Equal responses are ordered
    by the image's index. In the folder of a run the result is kept, and found again.

    Args:
        scope: the network, a `Scope`.
        images: a set, or a tensor (N, C, H, W) in [0, 1]; the latter has no classes.
        layers: names, patterns or kinds; see `convscope.lenses.select_layers`.
        top: how many images a unit.
        score: the response, over the unit's map: "sum" (or "mean", the same order) favours what fills the image, "max" what
            is small and strong.
        before_relu: look at the layer's own output, which for a convolution lies before batch norm and ReLU, where the
            strength of silence shows too; else at the ReLU that follows, see `relu_after`.
        of_class: only images of that class, by name or number.
        how: batch_size, max_memory, workers, progress; see `scan`.

    Returns:
        Layer → `LayerPatches`, in the network's order.

    Raises:
        UnknownNameError: a layer is not in this network; the message lists those there are.
        RequestError: the units of a layer are not known, no ReLU follows it, there are no images or no such class.
        SettingError: `top` or `score` is out of range.
        FailedError: the network gives NaN or infinity.

    Source: Zeiler & Fergus 2014, arXiv 1311.2901, figure 2; Yosinski et al. 2015, arXiv 1506.06579.

    Example:
        >>> patches = top_patches(scope, data.test, ["conv*"])["conv3"]
        >>> patches.patches(data.test, unit=7)[0].shape, patches.class_counts[7]
    """
    images = shown(scope, images)
    request = patches_request(images, layers, top, score, before_relu, of_class)
    [records] = cached_scans(scope, images, [request], how)
    return records


def patches_request(
    images: Images,
    layers: Sequence[str] | str,
    top: int,
    score: Score,
    before_relu: bool = True,
    of_class: str | int | None = None,
) -> ScanRequest:
    """As `top_patches`, for a pass that it shares with other scans."""
    _, number = class_number(images, of_class)
    settings = {"layers": layers, "top": top, "score": score, "before_relu": before_relu, "of_class": number}
    return ScanRequest("top-patches", LayerPatches, TopPatches.of, settings)


def _behind(graph: TracedGraph, layer: str) -> LayerMap:
    name = relu_after(graph, layer)
    if name is None:
        raise RequestError(f"no ReLU follows layer {layer!r} alone; ask with before_relu=True, or name the operation")
    return layer_maps(graph, [name])[0]


def class_number(images: Images, of_class: str | int | None) -> tuple[int | None, int | None]:
    """How many classes the images have, and the number of the one that is meant; None where there is none."""
    if not isinstance(images, ImageSet):
        if of_class is not None:
            raise RequestError(
                f"of_class: {of_class!r} is given, and the images came without classes; give an ImageSet"
            )
        return None, None
    names = images.classes["class"]
    if isinstance(of_class, str):
        if of_class not in names:
            raise RequestError(f"of_class: {of_class!r} is no class of these images; there is {', '.join(names[:40])}")
        return len(names), names.index(of_class)
    return len(names), of_class


NONE = torch.iinfo(torch.int64).min
"""The rank of nothing: below all others."""
_LOW = 2**32 - 1


def ranks(values: Float32[Tensor, "U N"], index: Int[Tensor, " N"]) -> Int64[Tensor, "U N"]:
    """Whole numbers that order as (value, then the smaller index) do; no two images of a unit have the same.

    The upper half holds the value: the bits of a float, read as a whole number, order as floats do; of negative ones the
    bits below the sign are turned over. The lower half holds 2^32 - 1 - index.
    """
    bits = (values + 0.0).view(torch.int32)  # -0 becomes 0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (_LOW - index.long())


def values_of(found: Int64[Tensor, "*rest"]) -> Float32[Tensor, "*rest"]:
    """The values of ranks; NaN for nothing."""
    ordered = (found >> 32).int()
    values = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return torch.where(found == NONE, torch.nan, values)


def indices_of(found: Int64[Tensor, "*rest"]) -> Int64[Tensor, "*rest"]:
    """The indices of ranks; -1 for nothing."""
    return torch.where(found == NONE, -1, _LOW - (found & _LOW))
