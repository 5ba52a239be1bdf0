"""The effect of edits of the images on a network's answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any, Unpack

from torch import Tensor

from convscope.edits import Edits, Others, apply, check, with_own
from convscope.scans.answered import answers_of_both
from convscope.scans.cached import cached_record, digest_of_images
from convscope.scans.effects import EditEffect
from convscope.scans.scan import AnyImages, PassSettings, Subject, shown, sizes


def edit_effect(
    scope: Subject,
    images: AnyImages,
    edits: str | Sequence[Any],
    others: Others | None = None,
    **settings: Unpack[PassSettings],
) -> EditEffect:
    """What a network answers to images, beside what it answers to the same images after edits.

    Two passes over the same batches. In the folder of a run the result is kept, and found again.

    Args:
        scope: the network, a `Scope`.
        images: a set with the classes that the network tells apart. For a network of several heads the first counts.
        edits: the same for each image, see `convscope.edits`. Noise is the same in every image, so that the intervals, which
            are over the images, say nothing about noise of another seed.
        others: what "paste" and "blend" take from, by index; by default the images themselves.
        settings: batch_size, max_memory, workers, progress; see `scan`.

    Returns:
        An `EditEffect`: each image's answers, and from them accuracies, differences with paired intervals, the images that
        flip, and those that change most.

    Raises:
        SettingError: the edits are wrong or do not fit the images.
        RequestError: there are no images, or they came without classes or with others.
        FailedError: the network gives NaN or infinity.

    Source: the interval: Newcombe 1998, see `paired_difference`.

    Example:
        >>> effect = edit_effect(scope, data.test, [["rectangle", [0, 0, 8, 8], "grey"]])
        >>> effect.change(), effect.change(of_class=0), effect.flipped
    """
    images = shown(scope, images)
    checked = check(edits, scope.input_shape[0])
    numbered, own = with_own(checked, images if others is None else others)
    changed = copy(scope)
    changed.prepare = partial(_prepared, scope, numbered, own)  # type: ignore[method-assign]
    listed = json.loads(json.dumps(checked))

    def make() -> EditEffect:
        return EditEffect(edits=listed, **answers_of_both(scope, changed, images, **settings))

    request = {"edits": listed, "others": None if own is None else digest_of_images(own)}
    return cached_record(scope, "edit_effect", images, request | sizes(settings, request), EditEffect, make)


def _prepared(scope: Subject, edits: Edits, others: Tensor | None, images: Tensor) -> Tensor:
    return scope.prepare(apply(images, edits, others))
