"""Labelled images, as every other room sees them: one tensor of pixels, and sets that are rows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, Int64, Num, UInt
from torch import Tensor

from convscope.base.words import shape_text
from convscope.data.spec import DataSpec
from convscope.errors import RequestError, UnknownNameError, shortened


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with their targets: the rows `index` of a tensor of pixels that several sets share.

    `len(images)` is N; `images[i]` is one image (C, H, W) in [0, 1] with its class index.

    Args:
        pixels: uint8, or uint16 where the data keeps 16 bits, of all M images of the source; possibly mapped from a file, so
            never write to it.
        index: the N rows of `pixels` that belong to this set.
        targets: for each target its index per row of `pixels`, within `classes`. 'class' is always there; the
            Lines set also has 'length', 'width', 'colour' and 'angle'.
        classes: for each target the names of its indices.
        names: of all M images: each one's file below the source's folder, or its row of a file there. Empty where images have
            none, as generated ones.
    """

    pixels: UInt[Tensor, "M C H W"]
    index: Int[Tensor, " N"]
    targets: dict[str, Int64[Tensor, " M"]]
    classes: dict[str, tuple[str, ...]]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[Float[Tensor, "C H W"], int]:
        if not hasattr(i, "__index__"):
            raise RequestError(
                f"image {shortened(i)}: expected one position, such as 0; images(…) gives several, subset(…) a set of them"
            )
        row = int(self.index[i])  # IndexError past the end, so that a plain loop over the set stops
        return in_unit_range(self.pixels[row]), int(self.targets["class"][row])

    def __repr__(self) -> str:
        shape = shape_text(self.pixels.shape[1:])
        return f"ImageSet({len(self):,} images of {shape}; {_targets_in_words(self.classes)})"

    def images(self, rows: Sequence[int] | slice | Int[Tensor, " n"] | None = None) -> Float[Tensor, "n C H W"]:
        """Images as floats in [0, 1], before normalization, shape (n, C, H, W).

        Args:
            rows: positions within this set (0 … N − 1), or a slice of them; None for all, which takes 4 bytes
                a value.

        Raises:
            RequestError: these are no positions within the set.
        """
        return in_unit_range(rows_of(self.pixels, self._rows(rows)))

    def name(self, i: int) -> str:
        """What an image of this set is called: its file, or "image 7"."""
        return self.names[int(self.index[i])] if self.names else f"image {i}"

    def called(self, i: int, kind: str = "test image") -> str:
        """An image's number in this set, and its name where it has one: "test image 7, cats/004.jpg"."""
        return f"{kind} {i}, {self.name(i)}" if self.names else f"{kind} {i}"

    def find(self, name: str) -> int | None:
        """The position of the first image of that name in this set; None where there is none."""
        return next((i for i in range(len(self)) if self.names and self.name(i) == name), None)

    def targets_of(self, name: str = "class") -> Int64[Tensor, " N"]:
        """The target of each image of this set, as an index into `classes[name]`, shape (N,).

        Raises:
            UnknownNameError: there is no such target; the message lists those there are.
        """
        if name not in self.targets:
            raise UnknownNameError("target", name, self.targets, "in this data set")
        return self.targets[name][self.index]

    def subset(self, rows: Sequence[int] | slice | Int[Tensor, " n"] | Bool[Tensor, " M"]) -> ImageSet:
        """The set of these positions (0 … N − 1), in their order; it shares the pixels."""
        return replace(self, index=self._rows(rows))

    def _rows(self, rows: Sequence[int] | slice | Int[Tensor, " n"] | Bool[Tensor, " M"] | None) -> Int[Tensor, " n"]:
        if rows is None or isinstance(rows, slice):
            return self.index[rows or slice(None)]
        try:
            chosen = torch.as_tensor(rows)
        except (TypeError, ValueError, RuntimeError):
            raise self._no_positions(rows) from None
        is_mask = chosen.dtype == torch.bool
        if is_mask and chosen.shape == self.index.shape:
            return self.index[chosen]
        if is_mask or chosen.ndim != 1 or (len(chosen) and (chosen.is_floating_point() or chosen.is_complex())):
            raise self._no_positions(rows)
        if len(outside := chosen[(chosen < -len(self)) | (chosen >= len(self))]):
            raise self._no_positions(int(outside[0]))
        return self.index[chosen.long()]

    def _no_positions(self, positions: object) -> RequestError:
        return RequestError(
            f"images {shortened(positions)}: expected positions from 0 to {len(self) - 1}, such as [0, 1], or a slice"
        )


def rows_of(pixels: Num[Tensor, "M ..."], rows: Int[Tensor, " n"]) -> Num[Tensor, "n ..."]:
    """Some rows of pixels: those of uint16, with which PyTorch computes on few devices, as floats in [0, 1]."""
    if pixels.dtype != torch.uint16:
        return pixels[rows]
    return in_unit_range(pixels.view(torch.int16)[rows].view(torch.uint16))


def in_unit_range(pixels: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Pixels as floats in [0, 1]: uint8 / 255, uint16 / 65535; floats are so already."""
    return pixels if pixels.is_floating_point() else pixels.float().div_(torch.iinfo(pixels.dtype).max)


def repeats_grey(pixels: UInt[Tensor, "M C H W"]) -> bool:
    """Whether the channels of images are one channel, which lies in memory once."""
    return pixels.shape[1] > 1 and pixels.stride(1) == 0


@dataclass(frozen=True, eq=False, repr=False)
class DataBundle:
    """A data set ready for use: three sets of images, and all that a report must say about them.

    No image of `test` is in `train` or `val`: images there whose pixels equal those of a test image are taken
    out. A source with its own splits keeps them; each that is missing is drawn from train, a seeded tenth of
    every class. So a source with train and test has 90 % of its train left, and one without splits is divided
    80/10/10.

    Args:
        train, val, test: the sets; they share one tensor of pixels.
        name: the catalogue's name, or the last part of the path or Hub name.
        classes: names of the target 'class'.
        mean, std: of each channel, for images in [0, 1]: over the training images (std is 1 for a channel that
            never changes), or what the spec's `normalize` says.
        source: where the pixels came from, in words: "copy in CONVSCOPE_DATA, JPEG".
        digest: of pixels, targets and splits, hexadecimal; the same for the same content wherever it lies.
        left_out: under `skip_bad`, the images that are in no set: (file or row, reason).
        duplicates: how many images were taken out of train and val because a test image has the same pixels.
        spec: the settings, with the catalogue's defaults filled in; `load_data(spec)` gives this bundle
            again.
        layout: what the folders of an image folder were taken for, a line each; of other sources what is not used.
        is_reduced: whether images of 16 bits were scaled to 8, as far as is known.
        own_side: median of the images' shorter side in the source, before `spec.image_size`, in pixels; None for generated
            images, and for those that an older convscope decoded.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    digest: str
    left_out: tuple[tuple[str, str], ...]
    duplicates: int
    spec: DataSpec
    layout: tuple[str, ...] = ()
    is_reduced: bool = False
    own_side: int | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    @property
    def repeats_grey(self) -> bool:
        """Whether the channels of its images are one grey channel, repeated."""
        return repeats_grey(self.train.pixels)

    @property
    def shared_source(self) -> str:
        """`source` as others may read it: of an absolute path its last name alone."""
        path = Path(self.spec.source)
        return self.source.replace(str(path), path.name) if path.is_absolute() else self.source

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(getattr(self, split)):,} {split}" for split in ("train", "val", "test"))
        shape = shape_text(self.input_shape)
        targets = _targets_in_words(self.train.classes)
        return f"DataBundle({self.name}: {sizes}; {shape}; {targets}; {self.source}; digest {self.digest[:12]})"


def _targets_in_words(classes: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{name} of {len(names)}" for name, names in classes.items())


def check_bundle(data: object) -> None:
    """Raises RequestError where a value that is given as a data set is none."""
    if not isinstance(data, DataBundle):
        raise RequestError(
            f"data: {shortened(data)} is no data set; convscope.load_data makes one of a name, a folder or a file"
        )
