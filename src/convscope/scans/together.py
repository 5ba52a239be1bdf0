"""Strongest patches and statistics from one pass, each kept as if it had been asked for by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from convscope.scans.cached import cached_scans
from convscope.scans.scan import Images, PassSettings, Subject
from convscope.scans.statistics import LayerStatistics, statistics_request
from convscope.scans.top_patches import LayerPatches, Score, patches_request


def patches_and_statistics(
    scope: Subject,
    images: Images,
    layers: Sequence[str] | str,
    top: int = 20,
    score: Score = "sum",
    **how: Unpack[PassSettings],
) -> tuple[dict[str, LayerPatches], dict[str, LayerStatistics]]:
    """What `top_patches` and `statistics` give; most of what either takes is the pass, which they share.

    Args:
        scope, images, layers, top, score, how: see `top_patches`.

    Raises:
        ConvscopeError: those of `top_patches` and `statistics`.

    Example:
        >>> patches, statistics = patches_and_statistics(scope, data.test, ["conv"])
        >>> patches["conv3"].mean, statistics["conv3"].dead
    """
    of_patches = patches_request(images, layers, top, score)
    patches, figures = cached_scans(scope, images, [of_patches, statistics_request(layers)], how)
    return patches, figures
