"""One image of every unusual kind."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from convscope.data.images import Header, Item, UnreadableError, header_of, pixels_of

from .samples import encoded, noise


def saved(image: Image.Image, encoding: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, encoding, **options)
    return buffer.getvalue()


def test_plain_ones(tmp_path: Path) -> None:
    colour, grey = noise(4, 6, 3, 0), noise(4, 6, 1, 1)
    (tmp_path / "colour.png").write_bytes(encoded(colour))
    for item in (colour, encoded(colour), tmp_path / "colour.png"):
        assert np.array_equal(pixels_of(item, 3, None), colour.transpose(2, 0, 1))
    assert np.array_equal(pixels_of(grey, 1, None), grey[None])
    assert np.array_equal(pixels_of(grey, 3, None), np.stack([grey] * 3))
    header = header_of(encoded(grey, "BMP"))
    assert (header.encoding, header.height, header.width, header.channels) == ("BMP", 4, 6, 1)


def test_sixteen_bits_are_scaled() -> None:
    values = np.array([[0, 257, 128, 129], [65535, 256 * 257 - 257, 1, 40000]], np.uint16)
    found = pixels_of(saved(Image.fromarray(values)), 1, None)
    assert found.tolist() == [[[0, 1, 0, 1], [255, 255, 0, round(40000 / 257)]]]
    assert header_of(saved(Image.fromarray(values))).channels == 1


DEEP = np.random.default_rng(0).integers(0, 65536, (6, 9), dtype=np.uint16)
EIGHT = noise(6, 9, 1, 1)


@pytest.mark.parametrize(
    ("item", "expected", "deep"),
    [
        (saved(Image.fromarray(DEEP)), DEEP, True),
        (saved(Image.fromarray(DEEP), "TIFF"), DEEP, True),
        (saved(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"), DEEP, True),
        (b"P5 %d %d 65535\n" % DEEP.shape[::-1] + DEEP.astype(">u2").tobytes(), DEEP, True),  # Pillow 10 writes none
        (Image.fromarray(DEEP), DEEP, True),
        (DEEP, DEEP, True),
        (DEEP / 65535, DEEP, False),
        ((DEEP / 65535).astype(np.float32), DEEP, False),
        (saved(Image.fromarray(EIGHT)), EIGHT.astype(np.uint16) * 257, False),
        (EIGHT, EIGHT.astype(np.uint16) * 257, False),
    ],
)
def test_sixteen_bits_are_kept_where_wanted(item: Item, expected: np.ndarray, deep: bool) -> None:
    header = header_of(item, 16)
    assert (header.height, header.width, header.channels, header.bits) == (6, 9, 1, 16 if deep else 8)
    for channels in (1, 3):
        found = pixels_of(item, channels, None, 16)
        assert found.dtype == np.uint16
        assert np.array_equal(found, [expected] * channels)


def test_sixteen_bits_are_scaled_and_their_centre_cut_out() -> None:
    rows, columns = np.mgrid[:40, :60]
    ramp = (30000 + 7 * rows - 3 * columns).astype(np.uint16)
    middle = np.arange(20) * 2 + 0.5
    expected = 30000 + 7 * middle[:, None] - 3 * (middle + 10)
    for item in (ramp, saved(Image.fromarray(ramp))):
        found = pixels_of(item, 1, 20, 16)[0].astype(float)
        assert np.abs(found - expected)[2:-2, 2:-2].max() <= 0.5


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_an_array_of_sixteen_bits_keeps_each_channel(channels: int) -> None:
    values = np.stack([DEEP // (n + 1) for n in range(channels)], axis=2)
    assert header_of(values) == Header("arrays", 6, 9, channels, 16)
    assert np.array_equal(pixels_of(values, channels, None, 16), values.transpose(2, 0, 1))
    if channels == 3:
        luma = values @ np.array([0.299, 0.587, 0.114])
        assert np.abs(pixels_of(values, 1, None, 16)[0] - luma).max() <= 1


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"bigtiff": True}, {"byteorder": ">"}])
def test_bands_of_a_tiff_file(options: dict[str, Any], tmp_path: Path) -> None:
    values = np.stack([DEEP // (n + 1) for n in range(4)], axis=2)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", **options)
    tifffile.imwrite(
        tmp_path / "b.tif", values.transpose(2, 0, 1), planarconfig="separate", photometric="minisblack", **options
    )
    for name in ("a.tif", "b.tif"):
        for item in (tmp_path / name, (tmp_path / name).read_bytes()):
            assert header_of(item, 16, 4) == Header("TIFF", 6, 9, 4, 16)
            assert np.array_equal(pixels_of(item, 4, None, 16), values.transpose(2, 0, 1))
            assert np.array_equal(pixels_of(item, 4, None), pixels_of(values, 4, None))
    with pytest.raises(UnreadableError, match=r"^has colour of 16 bits"):
        header_of(tmp_path / "b.tif", 16)


def test_bands_that_cannot_be_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 9, 4), np.float32), photometric="rgb")
    whole = (tmp_path / "a.tif").read_bytes()
    for item, message in (
        (tmp_path / "a.tif", r"^has bands of float32; save them as uint8 or uint16$"),
        (whole[:60], r"^cannot be read as a TIFF file of bands"),
        (whole[:-100], r"^cannot be read as a TIFF file of bands"),
        (tmp_path / "no.tif", r"^cannot be read \(No such file"),
        (encoded(EIGHT), r"^is no TIFF file, the only kind that is read with 4 channels$"),
        (Image.fromarray(EIGHT), r"^is no TIFF file"),
    ):
        with pytest.raises(UnreadableError, match=message):
            pixels_of(item, 4, None)


def png_of_sixteen_bits(colour: int, channels: int) -> bytes:
    """A PNG of a colour type that Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + np.full((4, channels), 30000, ">u2").tobytes() for _ in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels", "shown"), [(2, 3, 117), (4, 2, 192), (6, 4, 192)])
def test_sixteen_bits_that_pillow_does_not_give_are_refused_where_wanted(
    colour: int, channels: int, shown: int
) -> None:
    item = png_of_sixteen_bits(colour, channels)
    assert pixels_of(item, 3, None)[0, 0, 0] == shown  # 30000 >> 8, with transparency on white
    for read in (lambda: header_of(item, 16), lambda: pixels_of(item, 3, None, 16)):
        with pytest.raises(UnreadableError, match=r"^has colour of 16 bits, of which 8 are read; save it in grey, or"):
            read()
    assert pixels_of(png_of_sixteen_bits(0, 1), 1, None, 16)[0, 0, 0] == 30000


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_are_refused(mode: str, bits: int) -> None:
    with pytest.raises(UnreadableError, match="32 bits"):
        pixels_of(saved(Image.new(mode, (4, 4), 3), "TIFF"), 1, None, bits)


def test_transparent_shows_white() -> None:
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    assert pixels_of(saved(image), 3, None)[:, 0].T.tolist() == [[200, 100, 50], [255, 255, 255]]
    grey = Image.new("LA", (1, 1), (100, 0))
    assert header_of(saved(grey)).channels == 1
    assert pixels_of(saved(grey), 1, None).tolist() == [[[255]]]


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels_of(saved(image), 3, None)[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]
    assert pixels_of(saved(image, "GIF", transparency=1), 3, None)[:, 0].T.tolist() == [
        [255, 0, 0],
        [255, 255, 255],
    ]
    assert pixels_of(saved(image, "PNG", transparency=b"\xff\x00"), 3, None)[:, 0, 1].tolist() == [
        255,
        255,
        255,
    ]


def test_cmyk_and_bilevel() -> None:
    assert pixels_of(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), 3, None)[:, 0, 0].tolist() == [
        255,
        0,
        0,
    ]
    assert pixels_of(saved(Image.new("1", (2, 2), 1)), 1, None).tolist() == [[[255, 255], [255, 255]]]


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("L", (3, 3), value) for value in (10, 200)]
    item = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels_of(item, 1, None) == 10).all()


@pytest.mark.parametrize("orientation", range(10))
def test_camera_orientation_is_applied(orientation: int) -> None:
    image, exif = Image.fromarray(noise(4, 6, 3, 0)), Image.Exif()
    exif[0x0112] = orientation
    item = saved(image, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(item))))
    assert (header_of(item).height, header_of(item).width) == upright.shape[:2]
    assert np.array_equal(pixels_of(item, 3, None), upright.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "notes",
    [
        b"garbage and more",
        bytes(20),
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0",  # the orientation is a word
        # turned by a quarter, and the unit of the resolution is a word
        b"MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x01\x28\0\x02\0\0\0\x02a\0\0\0\0\0\0\0",
    ],
)
def test_broken_notes_of_a_camera_harm_no_pixel(notes: bytes) -> None:
    pixels = noise(4, 4, 3, 0)
    item = saved(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0" + notes)
    found = pixels_of(item, 3, None)
    assert any(np.array_equal(np.rot90(pixels, turns).transpose(2, 0, 1), found) for turns in (0, -1))


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (20, 20), (10, 13)])
def test_shorter_side_then_centre(height: int, width: int) -> None:
    rows, columns = np.mgrid[:height, :width]
    ramp = (100 + rows - columns).astype(np.uint8)  # linear, so scaling keeps it but for rounding and the edge
    found = pixels_of(ramp, 1, 20)[0].astype(float)
    scale = min(height, width) / 20
    middle = np.arange(20) * scale + (scale - 1) / 2
    expected = 100 + (middle + (height - 20 * scale) / 2)[:, None] - (middle + (width - 20 * scale) / 2)
    assert np.abs(found - expected)[2:-2, 2:-2].max() <= 1


def test_grey_is_luma() -> None:
    image = noise(5, 5, 3, 0)
    expected = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(pixels_of(image, 1, None)[0] - expected).max() <= 0.51


@pytest.mark.parametrize("item", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_no_image(item: bytes) -> None:
    with pytest.raises(UnreadableError):
        header_of(item)


def test_heic_is_an_image_that_is_not_read(tmp_path: Path) -> None:
    item = b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(100)
    (tmp_path / "IMG_1.HEIC").write_bytes(item)
    for one in (item, tmp_path / "IMG_1.HEIC"):
        with pytest.raises(UnreadableError, match=r"is HEIC, .* save it as JPEG or PNG"):
            header_of(one)


@pytest.mark.parametrize("encoding", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_cut_short(encoding: str) -> None:
    whole = encoded(noise(64, 64, 3, 0), encoding)
    for share in (0.02, 0.3, 0.6, 0.9):
        with pytest.raises(UnreadableError, match=r"no image|cut short"):
            pixels_of(whole[: int(share * len(whole))], 3, None)


@pytest.mark.parametrize("bands", [2, 4, 7])
def test_an_array_of_other_channels_keeps_each_as_it_is(bands: int) -> None:
    """Two are no grey with transparency, four no colour with it."""
    values = noise(6, 9, 3, 0)[..., [n % 3 for n in range(bands)]].copy()
    values[..., -1] = 0
    assert header_of(values) == Header("arrays", 6, 9, bands)
    assert np.array_equal(pixels_of(values, bands, None), values.transpose(2, 0, 1))
    scaled = pixels_of(values, bands, 4)
    for band, found in zip(values.transpose(2, 0, 1), scaled, strict=True):
        assert np.array_equal(found[None], pixels_of(np.ascontiguousarray(band), 1, 4))
