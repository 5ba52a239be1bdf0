"""One encoded image: what its header says, and its pixels.

Whatever a file holds, it becomes 8 or 16 bits a channel, grey or RGB; only arrays, and TIFF files of which so many are wanted,
have other channels:

- Each depth is scaled over its whole range: 65535 of 16 bits is 255 of 8. Pillow reads 16-bit colour as 8-bit, so that it is
  refused where 16 bits are wanted. A 32-bit image has no known range and is refused.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, UInt
from PIL import Image, ImageOps, UnidentifiedImageError

from convscope.base.optional import import_optional
from convscope.errors import first_line

Item = Path | bytes | np.ndarray | Image.Image
"""A file, its bytes, pixels (H, W) or (H, W, C) of uint8, uint16 or floats in [0, 1], or an image that Pillow has opened."""

DTYPES: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16}
"""Of pixels, by their bits."""

_LUMA = (19595, 38470, 7471)  # 65536ths of red, green and blue (ITU-R 601), as Pillow's
_GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
_ORIENTATION = 0x0112  # the Exif tag
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its orientation."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a file begins; the last two are BigTIFF
_HEIC = "is HEIC, as iPhones write it, which is not read; save it as JPEG or PNG"


class UnreadableError(Exception):
    """This is no image, or a damaged one; the message ends a sentence that the file's name begins."""


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded."""

    encoding: str
    height: int
    width: int
    channels: int
    bits: int = 8  # 16 where those can be kept


def header_of(item: Item, bits: int = 8, channels: int | None = None) -> Header:
    """The header of an image; its pixels are not decoded.

    Args:
        bits: those that are wanted, 8 or 16.
        channels: those that are wanted; other than 1 or 3 are the bands of TIFF files.

    Raises:
        UnreadableError: it is no image, or of a kind whose pixels cannot be had with so many bits.
    """
    if isinstance(item, np.ndarray):
        height, width, n_bands = item.shape if item.ndim == 3 else (*item.shape, 1)
        return Header("arrays", height, width, n_bands, 16 if item.dtype == np.uint16 else 8)
    if channels not in (None, 1, 3):
        return replace(header_of(_bands(item, channels, decode=False)), encoding="TIFF")
    with _opened(item) as image:
        _keeps_depth(image, bits)
        width, height = image.size
        if _orientation(image) >= 5:  # turned by a quarter
            width, height = height, width
        n_channels = 1 if image.mode in _GREY_MODES else 3
        return Header(image.format or "arrays", height, width, n_channels, 16 if _is_deep(image) else 8)


def pixels_of(
    item: Item, channels: int, image_size: int | tuple[int, int] | None, bits: int = 8
) -> UInt[np.ndarray, "C H W"]:
    """The pixels of an image, shape (C, H, W), 0…255, or 0…65535 with 16 bits.

    Args:
        channels: 1 for grey, 3 for RGB; other ones of an array, or a TIFF file, that has as many.
        image_size: height and width, or the side of a square: scale until it is covered and cut out the centre (bilinear
            over the area that a pixel covers, so that nothing aliases); None leaves the size as it is.
        bits: 8 or 16.

    Raises:
        UnreadableError: it is no image, or damaged, or 16 bits are wanted of 16-bit colour.
    """
    if channels not in (1, 3) and not isinstance(item, np.ndarray):
        item = _bands(item, channels)
    if isinstance(item, np.ndarray):
        item = of_depth(item, bits)
        if channels == 1 and item.ndim == 3 and bits == 16:
            item = ((item.astype(np.uint32) @ np.array(_LUMA, np.uint32) + 0x8000) >> 16).astype(np.uint16)
        if item.ndim == 3 and (item.shape[2] not in (1, 3) or bits == 16):
            bands = item.transpose(2, 0, 1)
            return np.concatenate([pixels_of(np.ascontiguousarray(band), 1, image_size, bits) for band in bands])
    with _opened(item) as image:
        keeps_depth = _keeps_depth(image, bits)
        if (orientation := _orientation(image)) in _TURN:
            image = image.transpose(_TURN[orientation])
        # of floats, which every version of Pillow resizes
        image = Image.fromarray(np.asarray(image).astype(np.float32)) if keeps_depth else _eight_bits(image, channels)
        if image_size is not None:
            height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    pixels = of_depth(np.rint(pixels).astype(np.uint16) if keeps_depth else pixels, bits)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else np.broadcast_to(pixels, (channels, *pixels.shape))


def of_depth(pixels: Num[np.ndarray, "*shape"], bits: int) -> UInt[np.ndarray, "*shape"]:
    """Pixels with so many bits: of 8 times 257, of 16 divided by it and rounded, floats in [0, 1] times the largest value."""
    if pixels.dtype == DTYPES[bits]:
        return pixels
    if pixels.dtype.kind == "f":
        return np.round(pixels * 255 if bits == 8 else pixels.astype(np.float64) * 65535).astype(DTYPES[bits])
    return pixels.astype(np.uint16) * 257 if bits == 16 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _bands(item: Item, channels: int, decode: bool = True) -> UInt[np.ndarray, "H W C"]:
    """The bands of a TIFF file, whatever Pillow takes them for; undecoded they are 0."""
    if isinstance(item, Path):
        try:
            item = item.read_bytes()
        except OSError as error:
            raise UnreadableError(f"cannot be read ({error.strerror})") from None
    if not isinstance(item, bytes) or item[:4] not in _TIFF:
        raise UnreadableError(f"is no TIFF file, the only kind that is read with {channels} channels")
    tifffile = import_optional("tifffile", "a TIFF file of several bands", "tiff")
    try:
        with tifffile.TiffFile(io.BytesIO(item)) as file:
            series = file.series[0]
            values = series.asarray() if decode else np.broadcast_to(series.dtype.type(0), series.shape)
    except Exception as error:  # on damaged bytes it raises nearly anything
        raise UnreadableError(f"cannot be read as a TIFF file of bands ({first_line(error)})") from None
    axes = [series.axes.find(axis) for axis in "YX"]
    others = [n for n in range(values.ndim) if n not in axes]
    if -1 in axes or len(others) != 1 or values.shape[others[0]] != channels:
        shape = " × ".join(f"{axis} {n}" for axis, n in zip(series.axes, values.shape, strict=True))
        raise UnreadableError(f"has not {channels} bands, but the axes {shape}")
    if values.dtype.type not in DTYPES.values():
        raise UnreadableError(f"has bands of {values.dtype}; save them as uint8 or uint16")
    return values.astype(values.dtype.type, copy=False).transpose(*axes, *others)


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
                if image.format == "EPS":
                    raise UnreadableError("is PostScript, a program that is not run; save it as PNG")
                yield image
    except Image.DecompressionBombError as error:
        n_pixels, limit = re.findall(r"\d+", str(error))[:2]
        raise UnreadableError(
            f"has {int(n_pixels):,} pixels, more than the {int(limit):,} that are read, as a guard against small files that "
            "fill the memory; scale it down"
        ) from None
    except UnidentifiedImageError:
        raise UnreadableError(_HEIC if _is_heic(item) else "is no image") from None
    except (UnreadableError, MemoryError):
        raise
    except PermissionError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from None
    except Exception as error:  # on damaged bytes Pillow's decoders raise nearly anything
        raise UnreadableError(f"is damaged or cut short ({error})") from None


def _is_heic(item: Any) -> bool:
    if isinstance(item, Path):
        with item.open("rb") as file:
            item = file.read(12)
    return item[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1")


def _orientation(image: Any) -> int:
    """1 to 8, as the camera noted it; 1 where its notes are broken, which harms no pixel."""
    try:
        noted = image.getexif().get(_ORIENTATION) if "exif" in image.info else 1
        return noted if noted in _TURN else 1
    except Exception:  # on broken notes Pillow raises nearly anything
        return 1


def _is_deep(image: Any) -> bool:
    """Whether an image has 16 bits that Pillow gives."""
    # Pillow before 11 opens 16-bit PNG, and every version 16-bit PGM, as "I"; neither format holds 32 bits
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _keeps_depth(image: Any, bits: int) -> bool:
    """Whether an image has 16 bits that are wanted."""
    if bits == 16 and _is_deep_colour(image):
        raise UnreadableError("has colour of 16 bits, of which 8 are read; save it in grey, or give an .npz of uint16")
    return bits == 16 and _is_deep(image)


def _is_deep_colour(image: Any) -> bool:
    """Whether an image has several channels of 16 bits, of which Pillow gives 8, or one of them."""
    if tags := getattr(image, "tag_v2", None):  # of TIFF: samples a pixel, and their bits
        return tags.get(277, 1) > 1 and 16 in tags.get(258, ())
    return image.mode not in _GREY_MODES and ";16" in str(getattr(image, "tile", ""))  # how its file is decoded


def _eight_bits(image: Any, channels: int) -> Any:
    """The image in grey or RGB, on white."""
    if _is_deep(image):
        image = Image.fromarray(of_depth(np.asarray(image).astype(np.uint16), 8))
    if image.mode in ("I", "F"):
        raise UnreadableError("has 32 bits a value and so no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")
