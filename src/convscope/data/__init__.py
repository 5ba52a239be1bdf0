"""Labelled images: from a name or a path to three sets of pixels, and from a set to batches.

`load_data` finds a source, decodes it once into one tensor, and divides it into train, val and test.
`batches` makes the batches of an epoch from such a set, `augment` distorts them, and `mix` mixes them.
"""

from typing import TYPE_CHECKING

from convscope.base.lazy import load_when_used

if TYPE_CHECKING:
    from convscope.data import operations as operations
    from convscope.data.augment import Augmentation as Augmentation, augment as augment, mix as mix
    from convscope.data.batches import Batch as Batch, Normalizer as Normalizer, batches as batches
    from convscope.data.catalogue import (
        LINES as LINES,
        data_names as data_names,
        hub_name as hub_name,
        located as located,
    )
    from convscope.data.folders import image_files as image_files, in_text as in_text
    from convscope.data.images import (
        DTYPES as DTYPES,
        Item as Item,
        UnreadableError as UnreadableError,
        pixels_of as pixels_of,
        without_warnings as without_warnings,
    )
    from convscope.data.load import load_data as load_data
    from convscope.data.operations import Change as Change, transform as transform
    from convscope.data.read import (
        ImageLike as ImageLike,
        ImagesLike as ImagesLike,
        as_images as as_images,
        read_image as read_image,
    )
    from convscope.data.sets import (
        DataBundle as DataBundle,
        ImageSet as ImageSet,
        check_bundle as check_bundle,
        in_unit_range as in_unit_range,
        rows_of as rows_of,
    )
    from convscope.data.spec import (
        DataSettings as DataSettings,
        DataSpec as DataSpec,
        Folds as Folds,
        Labels as Labels,
        Normalization as Normalization,
        check_unit_range as check_unit_range,
    )
    from convscope.data.store import available_memory as available_memory
    from convscope.data.stream import ImageStream as ImageStream, NamedItems as NamedItems
else:
    load_when_used(__name__)
