"""One image of every unusual kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.data.images import Header, UnreadableError, header_of, pixels_of

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


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_are_refused(mode: str) -> None:
    with pytest.raises(UnreadableError, match="32 bits"):
        pixels_of(saved(Image.new(mode, (4, 4), 3), "TIFF"), 1, None)


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


def test_camera_orientation_is_applied() -> None:
    pixels = noise(4, 6, 3, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter clockwise
    item = saved(Image.fromarray(pixels), "PNG", exif=exif)
    assert (header_of(item).height, header_of(item).width) == (6, 4)
    assert np.array_equal(pixels_of(item, 3, None), np.rot90(pixels, -1).transpose(2, 0, 1))


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
