"""One encoded image: what its header says, and its pixels.

Whatever a file holds, it becomes 8 bits a channel, grey or RGB; only arrays may have other channels:

- 16-bit grey is scaled from 0…65535 to 0…255 (Pillow reads 16-bit colour as 8-bit); a 32-bit image has no
  known range and is refused.
- What is transparent shows white. Palettes, CMYK and other colour spaces become RGB.
- An array of other than 1 or 3 channels keeps them all, as they are: bands.
- Of an animation the first frame counts. The orientation that a camera noted (Exif) is applied.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

Item = Path | bytes | np.ndarray | Image.Image
"""A file, its bytes, pixels (H, W) or (H, W, C) as they are, or an image that Pillow has opened."""

_GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_ORIENTATION = 0x0112  # the Exif tag


class UnreadableError(Exception):
    """This is no image, or a damaged one; the message ends a sentence that the file's name begins."""


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded."""

    encoding: str
    height: int
    width: int
    channels: int


def header_of(item: Item) -> Header:
    """The header of an image; its pixels are not decoded.

    Raises:
        UnreadableError: it is no image, or of a kind that has no known range of values.
    """
    if isinstance(item, np.ndarray) and _is_bands(item):
        return Header("arrays", *item.shape)
    with _opened(item) as image:
        width, height = image.size
        if _orientation(image) >= 5:  # turned by a quarter
            width, height = height, width
        return Header(image.format or "arrays", height, width, 1 if image.mode in _GREY_MODES else 3)


def pixels_of(item: Item, channels: int, image_size: int | tuple[int, int] | None) -> UInt8[np.ndarray, "C H W"]:
    """The pixels of an image, shape (C, H, W), 0…255.

    Args:
        channels: 1 for grey, 3 for RGB; other ones of an array that has as many.
        image_size: height and width, or the side of a square: scale until it is covered and cut out the centre (bilinear
            over the area that a pixel covers, so that nothing aliases); None leaves the size as it is.

    Raises:
        UnreadableError: it is no image, or damaged.
    """
    if isinstance(item, np.ndarray) and _is_bands(item):
        return np.concatenate(
            [pixels_of(np.ascontiguousarray(band), 1, image_size) for band in item.transpose(2, 0, 1)]
        )
    with _opened(item) as image:
        if _orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
        image = _eight_bits(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
        if image_size is not None:
            height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _is_bands(item: np.ndarray) -> bool:
    return item.ndim == 3 and item.shape[2] not in (1, 3)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Pillow warns of the broken Exif notes that photographs often carry, and of large images, which it reads all the same.

    Not for a thread: warnings are of the whole process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def _opened(item: Item) -> Iterator[Any]:
    try:
        if isinstance(item, np.ndarray):
            yield Image.fromarray(item)
        elif isinstance(item, Image.Image):
            yield item
        elif isinstance(item, Path) and not item.is_file():
            raise UnreadableError("is a link to a file that is not there" if item.is_symlink() else "is no file")
        else:
            with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
                yield image
    except Image.DecompressionBombError as error:
        found, most = re.findall(r"\d+", str(error))[:2]
        raise UnreadableError(
            f"has {int(found):,} pixels, more than the {int(most):,} that are read, as a guard against small files that "
            "fill the memory; scale it down"
        ) from None
    except UnidentifiedImageError:
        raise UnreadableError("is no image") from None
    except (UnreadableError, MemoryError):
        raise
    except PermissionError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from None
    except Exception as error:  # on damaged bytes Pillow's decoders raise nearly anything
        raise UnreadableError(f"is damaged or cut short ({error})") from None


def _orientation(image: Any) -> int:
    return int(image.getexif().get(_ORIENTATION, 1)) if "exif" in image.info else 1


def _eight_bits(image: Any) -> Any:
    # Pillow before 11 opens 16-bit PNG, and every version 16-bit PGM, as "I"; neither format holds 32 bits
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UnreadableError("has 32 bits a value and so no known range; save it with 8 or 16 bits")
    return image
