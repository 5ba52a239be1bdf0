"""Strongest patches and statistics from one pass, each kept as if it had been asked for by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Unpack

from convscope.scans.scan import Images, PassSettings, Scan, Subject, scan
from convscope.scans.statistics import LayerStatistics, Statistics, kept_statistics
from convscope.scans.top_patches import LayerPatches, Score, TopPatches, kept_patches


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
        As `top_patches` and `statistics`.

    Example:
        >>> patches, statistics = patches_and_statistics(scope, data.test, ["conv"])
        >>> patches["conv3"].mean, statistics["conv3"].dead
    """

    @cache
    def made() -> list[Any]:
        wanted: list[Scan] = [TopPatches.of(scope, images, layers, top, score), Statistics.of(scope, images, layers)]
        return scan(scope, images, wanted, **how)

    patches = kept_patches(scope, images, layers, top, score, how=how, make=lambda: made()[0])
    return patches, kept_statistics(scope, images, layers, how=how, make=lambda: made()[1])
