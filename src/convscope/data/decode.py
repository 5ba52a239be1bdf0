"""From encoded images to one array of pixels: every header first, then the pixels, in parallel threads."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt

from convscope.base.console import progress_bar
from convscope.compute import chunks
from convscope.data.images import DTYPES, Header, Item, UnreadableError, header_of, pixels_of
from convscope.data.source import Rows, Source
from convscope.data.spec import DataSpec
from convscope.data.store import Filling
from convscope.errors import DataError

_SMALL = 64 * 64  # images of fewer pixels decode so fast that threads only wait for the interpreter's lock
_CHUNK = 256
_CHUNK_BYTES = 4 << 20


def filling_of(source: Source, rows: Rows, spec: DataSpec) -> Filling:
    """What fills the cache with these rows of a source, in their order.

    The headers are read at once, so that the shape is known, and what is no image is found, before anything
    is written; the pixels when they are drawn. `about` holds 'encoding', as 'side' the median shorter side, and
    as 'faults' a pair (position in `rows`, reason) for each image that cannot be read; it stays black. 'deep' says whether
    any has 16 bits.

    Raises:
        DataError: an image cannot be read and `spec.skip_bad` is off, or sizes differ and there is no
            `spec.image_size`.
    """
    faults: list[tuple[int, str]] = []

    def name(position: int) -> str:
        return source.name(int(rows[position]))

    def note(position: int, error: UnreadableError) -> None:
        if not spec.skip_bad:
            raise bad_image(name(position), str(error))
        faults.append((position, str(error)))

    headers: dict[int, Header] = {}
    with progress_bar("reading headers", len(rows)) as advance:
        for chunk in chunks(enumerate(source.items(rows)), _CHUNK):
            for position, item in chunk:
                try:
                    headers[position] = header_of(item, spec.bits, spec.channels)
                except UnreadableError as error:
                    note(position, error)
            advance(len(chunk))
    if not headers:
        raise DataError(f"{source.words}: holds no image that can be read; check the path")
    channels = _channels(headers, spec.grey, name)
    height, width = (spec.image_size,) * 2 if spec.image_size else _common_size(headers, name)
    shape = channels, height, width

    def decode(chunk: list[tuple[int, Item]]) -> UInt[np.ndarray, "n C H W"]:
        pixels = np.zeros((len(chunk), *shape), DTYPES[spec.bits])
        for place, (position, item) in enumerate(chunk):
            if position in headers:
                try:
                    pixels[place] = pixels_of(item, channels, spec.image_size, spec.bits)
                except UnreadableError as error:
                    note(position, error)
        return pixels

    encodings = Counter(header.encoding for header in headers.values())
    sides = sorted(min(header.height, header.width) for header in headers.values())
    large = max(header.height * header.width for header in headers.values()) >= _SMALL
    return Filling(
        "decoding",
        (len(rows), *shape),
        chunks(enumerate(source.items(rows)), max(1, min(_CHUNK, _CHUNK_BYTES // math.prod(shape)))),
        decode,
        os.cpu_count() or 1 if large else 1,
        {
            "encoding": " and ".join(name for name, _ in encodings.most_common()),
            "side": sides[len(sides) // 2],
            "deep": any(header.bits == 16 for header in headers.values()),
            "faults": faults,
        },
        DTYPES[spec.bits],
    )


def bad_image(name: str, reason: str) -> DataError:
    """The error for an image that cannot be used, with the remedy."""
    return DataError(f"{name}: {reason}; repair or remove it, or leave such images out with skip_bad=True (--skip-bad)")


def _channels(headers: dict[int, Header], grey: bool, name: Callable[[int], str]) -> int:
    """Grey if that is wanted, colour if any is, or the bands that all have."""
    first: dict[int, int] = {}
    for position, header in headers.items():
        first.setdefault(header.channels, position)
    if set(first) <= {1, 3}:
        return 1 if grey else max(first)
    if len(first) > 1:
        (one, here), (other, there) = list(first.items())[:2]
        raise DataError(f"{name(here)} has {one} channels and {name(there)} {other}; give images of the same number")
    return next(iter(first))


def _common_size(headers: dict[int, Header], name: Callable[[int], str]) -> tuple[int, int]:
    first = next(iter(headers))
    height, width = headers[first].height, headers[first].width
    for position, header in headers.items():
        if (header.height, header.width) != (height, width):
            raise DataError(
                f"{name(position)} is {header.width}×{header.height} and "
                f"{name(first)} {width}×{height} (width × height); "
                f"give image_size, such as image_size={min(height, width)}, for one size"
            )
    return height, width
