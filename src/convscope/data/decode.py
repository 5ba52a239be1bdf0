"""From encoded images to one array of pixels: every header first, then the pixels, in parallel threads."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

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


def bad_image(name: str, reason: str) -> DataError:
    """The error for an image that cannot be used, with the remedy."""
    return DataError(f"{name}: {reason}; repair or remove it, or leave such images out with skip_bad=True (--skip-bad)")


@dataclass
class Decoder:
    """Decodes these rows of a source, in their order.

    Attributes:
        faults: a pair (position in `rows`, reason) for each image that cannot be read, under `spec.skip_bad`.
    """

    source: Source
    rows: Rows
    spec: DataSpec
    faults: list[tuple[int, str]] = field(default_factory=list)

    def filling(self) -> Filling:
        """What fills the cache.

        The headers are read at once, so that the shape is known, and what is no image is found, before anything
        is written; the pixels when they are drawn. `about` holds 'encoding', as 'side' the median shorter side, and
        the 'faults', whose images stay black. 'deep' says whether any has 16 bits.

        Raises:
            DataError: an image cannot be read and `spec.skip_bad` is off, or sizes differ and there is no
                `spec.image_size`.
        """
        headers = self._headers()
        channels = self._channels(headers)
        height, width = (self.spec.image_size,) * 2 if self.spec.image_size else self._common_size(headers)
        encodings = Counter(header.encoding for header in headers.values())
        sides = sorted(min(header.height, header.width) for header in headers.values())
        about = {
            "encoding": " and ".join(name for name, _ in encodings.most_common()),
            "side": sides[len(sides) // 2],
            "deep": any(header.bits == 16 for header in headers.values()),
            "faults": self.faults,
        }
        dtype = DTYPES[self.spec.bits]

        def decode(chunk: list[tuple[int, Item]]) -> UInt[np.ndarray, "n C H W"]:
            pixels = np.zeros((len(chunk), channels, height, width), dtype)
            for place, (position, item) in enumerate(chunk):
                if position in headers:
                    try:
                        pixels[place] = pixels_of(item, channels, self.spec.image_size, self.spec.bits)
                    except UnreadableError as error:
                        self._note(position, str(error))
            return pixels

        large = max(header.height * header.width for header in headers.values()) >= _SMALL
        size = max(1, min(_CHUNK, _CHUNK_BYTES // (channels * height * width)))
        return Filling(
            "decoding",
            (len(self.rows), channels, height, width),
            chunks(enumerate(self.source.items(self.rows)), size),
            decode,
            os.cpu_count() or 1 if large else 1,
            about,
            dtype,
        )

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

    def _note(self, position: int, reason: str) -> None:
        if not self.spec.skip_bad:
            raise bad_image(self._name(position), reason)
        self.faults.append((position, reason))

    def _name(self, position: int) -> str:
        return self.source.name(int(self.rows[position]))
