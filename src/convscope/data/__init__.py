"""Labelled images: from a name or a path to three sets of pixels, and from a set to batches.

`load_data` finds a source, decodes it once into one tensor, and divides it into train, val and test.
`batches` makes the batches of an epoch from such a set, `augment` distorts them, and `mix` mixes them.
"""

from __future__ import annotations

from convscope.data import operations
from convscope.data.augment import Augmentation, augment
from convscope.data.batches import Batch, Normalizer, batches
from convscope.data.catalogue import LINES, data_names, hub_name, located
from convscope.data.files import image_files, in_text
from convscope.data.geometry import Change, transform
from convscope.data.images import DTYPES, Item, UnreadableError, pixels_of, without_warnings
from convscope.data.load import load_data
from convscope.data.mixing import mix
from convscope.data.read import ImageLike, ImagesLike, as_images, read_image
from convscope.data.sets import DataBundle, ImageSet, in_unit_range, rows_of
from convscope.data.spec import DataSettings, DataSpec, Folds, Labels, Normalization, check_unit_range
from convscope.data.stream import ImageStream, NamedItems

__all__ = [
    "DTYPES",
    "LINES",
    "Augmentation",
    "Batch",
    "Change",
    "DataBundle",
    "DataSettings",
    "DataSpec",
    "Folds",
    "ImageLike",
    "ImageSet",
    "ImageStream",
    "ImagesLike",
    "Item",
    "Labels",
    "NamedItems",
    "Normalization",
    "Normalizer",
    "UnreadableError",
    "as_images",
    "augment",
    "batches",
    "check_unit_range",
    "data_names",
    "hub_name",
    "image_files",
    "in_text",
    "in_unit_range",
    "load_data",
    "located",
    "mix",
    "operations",
    "pixels_of",
    "read_image",
    "rows_of",
    "transform",
    "without_warnings",
]
