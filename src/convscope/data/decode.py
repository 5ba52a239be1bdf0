"""From encoded images to one array of pixels: every header first, then the pixels, in parallel threads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64

from convscope.base.console import progress_bar
from convscope.compute import chunks, in_order
from convscope.data.images import DTYPES, Header, Item, UnreadableError, header_of, pixels_of
from convscope.data.source import Source
from convscope.data.spec import DataSpec
from convscope.data.store import Filling, StoredBlock, block_of
from convscope.errors import DataError

_SMALL = 64 * 64  # images of fewer pixels decode so fast that threads only wait for the interpreter's lock
_CHUNK = 256
_CHUNK_BYTES = 4 << 20


def filling_of(source: Source, rows: Int64[np.ndarray, " n"], spec: DataSpec) -> Filling:
    """What fills the cache with these rows of a source, in their order.

    The headers are read at once, so that the shape is known, and what is no image is found, before anything
    is written; the pixels when the blocks are drawn. Then `about` holds 'encoding', as 'side' the median shorter side, and
    as 'faults' a pair (position in `rows`, reason) for each image that cannot be read; it stays black. 'deep' says whether
    any has 16 bits.

    Raises:
        DataError: an image cannot be read and `spec.skip_bad` is off, or sizes differ and there is no
            `spec.image_size`.
    """
    return _Decoder(source, rows, spec).filling()


def bad_image(name: str, reason: str) -> DataError:
    """The error for an image that cannot be used, with the remedy."""
    return DataError(f"{name}: {reason}; repair or remove it, or leave such images out with skip_bad=True (--skip-bad)")


@dataclass
class _Decoder:
    source: Source
    rows: Int64[np.ndarray, " n"]
    spec: DataSpec
    faults: dict[int, str] = field(default_factory=dict)  # by position in rows

    def filling(self) -> Filling:
        headers = self._headers()
        channels = self._channels(headers)
        height, width = (self.spec.image_size,) * 2 if self.spec.image_size else self._common_size(headers)
        encodings = Counter(header.encoding for header in headers.values())
        sides = sorted(min(header.height, header.width) for header in headers.values())
        about: dict[str, Any] = {
            "encoding": " and ".join(name for name, _ in encodings.most_common()),
            "side": sides[len(sides) // 2],
            "deep": any(header.bits == 16 for header in headers.values()),
        }
        large = max(header.height * header.width for header in headers.values()) >= _SMALL
        shape = (len(self.rows), channels, height, width)
        blocks = self._blocks(shape[1:], os.cpu_count() or 1 if large else 1, about)
        return Filling(shape, blocks, about, DTYPES[self.spec.bits])

    def _headers(self) -> dict[int, Header]:
        headers: dict[int, Header] = {}
        with progress_bar("reading headers", len(self.rows)) as advance:
            for chunk in chunks(enumerate(self.source.items(self.rows)), _CHUNK):
                for position, item in chunk:
                    try:
                        headers[position] = header_of(item, self.spec.bits, self.spec.channels)
                    except UnreadableError as error:
                        self._note(position, str(error))
                advance(len(chunk))
        if not headers:
            raise DataError(f"{self.source.words}: holds no image that can be read; check the path")
        return headers

    def _channels(self, headers: dict[int, Header]) -> int:
        """Grey if the spec says so, colour if any is, or the bands that all have."""
        first: dict[int, int] = {}
        for position, header in headers.items():
            first.setdefault(header.channels, position)
        if set(first) <= {1, 3}:
            return 1 if self.spec.grey else max(first)
        if len(first) > 1:
            (one, here), (other, there) = list(first.items())[:2]
            raise DataError(
                f"{self._name(here)} has {one} channels and {self._name(there)} {other}; give images of the same number"
            )
        return next(iter(first))

    def _common_size(self, headers: dict[int, Header]) -> tuple[int, int]:
        first, *others = headers
        height, width = headers[first].height, headers[first].width
        for other in others:
            if (headers[other].height, headers[other].width) != (height, width):
                raise DataError(
                    f"{self._name(other)} is {headers[other].width}×{headers[other].height} and "
                    f"{self._name(first)} {width}×{height} (width × height); "
                    f"give image_size, such as image_size={min(height, width)}, for one size"
                )
        return height, width

    def _blocks(self, shape: tuple[int, int, int], n_threads: int, about: dict[str, Any]) -> Iterator[StoredBlock]:
        faulty = frozenset(self.faults)

        def decode(chunk: list[tuple[int, Item]]) -> tuple[StoredBlock, dict[int, str]]:
            pixels, faults = np.zeros((len(chunk), *shape), DTYPES[self.spec.bits]), {}
            for place, (position, item) in enumerate(chunk):
                if position in faulty:
                    continue
                try:
                    pixels[place] = pixels_of(item, shape[0], self.spec.image_size, self.spec.bits)
                except UnreadableError as error:
                    faults[position] = str(error)
            return block_of(pixels), faults

        size = max(1, min(_CHUNK, _CHUNK_BYTES // int(np.prod(shape))))
        with progress_bar("decoding", len(self.rows)) as advance:
            for block, faults in in_order(decode, chunks(enumerate(self.source.items(self.rows)), size), n_threads):
                for position, reason in faults.items():
                    self._note(position, reason)
                yield block
                advance(len(block.pixels))
        about["faults"] = sorted(self.faults.items())

    def _note(self, position: int, reason: str) -> None:
        if not self.spec.skip_bad:
            raise bad_image(self._name(position), reason)
        self.faults[position] = reason

    def _name(self, position: int) -> str:
        return self.source.name(int(self.rows[position]))
