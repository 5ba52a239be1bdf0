"""Images of every kind become the same batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from convscope.data import as_images
from convscope.errors import DataError, RequestError

from .samples import noise

SHAPE = (3, 6, 9)  # oblong, so that rows and columns cannot be taken for each other
PIXELS = noise(6, 9, 3, 0)
TENSOR = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1).float() / 255


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "a picture.png")
    return tmp_path / "a picture.png"


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


KINDS: dict[str, Callable[[Path], Any]] = {
    "tensor": lambda file: TENSOR,
    "batch": lambda file: TENSOR[None],
    "whole numbers": lambda file: PIXELS,
    "batch of whole numbers": lambda file: PIXELS[None],
    "floats": lambda file: PIXELS.astype(np.float32) / 255,
    "doubles of another byte order": lambda file: (PIXELS / 255).astype(">f8"),
    "a view that runs backwards": lambda file: PIXELS[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "not to be written to": lambda file: _frozen(PIXELS.copy()),
    "PIL": lambda file: Image.fromarray(PIXELS),
    "opened by PIL": lambda file: Image.open(file),
    "Path": lambda file: file,
    "str": str,
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_image(file: Path, kind: str) -> None:
    found = as_images(KINDS[kind](file), SHAPE)
    torch.testing.assert_close(found, TENSOR[None], rtol=0, atol=1e-7, check_dtype=False)  # a division in float32
    assert torch.equal(TENSOR, torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 255)


def test_a_list_of_all_kinds_in_its_order(file: Path) -> None:
    given = [make(file) for make in KINDS.values()]
    dark = torch.zeros(2, *SHAPE)
    found = as_images((*given, dark), SHAPE)
    expected = torch.cat([TENSOR.expand(len(given), -1, -1, -1), dark])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7, check_dtype=False)


def test_grey(tmp_path: Path, file: Path) -> None:
    grey = noise(6, 9, 1, 1)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    expected = torch.from_numpy(grey).float()[None, None] / 255
    for given in (grey, grey[..., None], grey[None, ..., None], tmp_path / "grey.png"):
        assert torch.equal(as_images(given, (1, 6, 9)), expected)
    assert torch.equal(as_images(tmp_path / "grey.png", SHAPE), expected.expand(1, *SHAPE))
    luminance = np.asarray(Image.fromarray(PIXELS).convert("L"))
    assert torch.equal(as_images(file, (1, 6, 9)), torch.from_numpy(luminance.copy()).float()[None, None] / 255)


def test_sixteen_bits(tmp_path: Path) -> None:
    """Files, images and arrays alike: kept with bits 16, and with 8 as an 8-bit image of them."""
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    kept, reduced = (torch.from_numpy(each) for each in (deep / 65535, (deep + 128.0) // 257 / 255))
    for given in (deep, deep.astype(">u2"), Image.fromarray(deep), tmp_path / "deep.png"):
        assert torch.equal(as_images(given, (1, 6, 9), 16)[0, 0], kept.float())
        assert torch.equal(as_images(given, (1, 6, 9))[0, 0], reduced.float())
    assert torch.equal(as_images(PIXELS, SHAPE, 16), as_images(PIXELS, SHAPE))
    bands = np.stack([deep] * 4, axis=2)
    assert torch.equal(as_images(bands, (4, 6, 9), 16), kept.float().expand(1, 4, -1, -1))


@pytest.mark.parametrize("shape", [(3, 6, 6), (3, 4, 8), (3, 20, 10)])
def test_files_are_scaled_and_their_centre_cut_out(file: Path, shape: tuple[int, int, int]) -> None:
    fitted = ImageOps.fit(Image.fromarray(PIXELS), (shape[2], shape[1]), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 255
    for given in (file, Image.fromarray(PIXELS)):
        assert torch.equal(as_images(given, shape)[0], expected)


def test_the_orientation_of_a_camera(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    turned = np.rot90(PIXELS)
    Image.fromarray(turned).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        for given in (tmp_path / "turned.png", opened):
            assert torch.equal(as_images(given, SHAPE)[0], TENSOR)
        assert opened.size == (6, 9)  # the user's own is left as it was


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (PIXELS[:5], RequestError, "images have the shape 5×9×3; this network takes 6×9×3 or N×6×9×3"),
        (PIXELS.transpose(2, 0, 1), RequestError, "images have the shape 3×6×9; this network takes 6×9×3"),
        (PIXELS[..., 0], RequestError, "images have the shape 6×9; this network takes 6×9×3"),
        (PIXELS[:, :, :, None, None], RequestError, "images have the shape 6×9×3×1×1"),
        (PIXELS[None, :0], RequestError, "images have the shape 1×0×9×3"),
        (TENSOR[:, 1:], RequestError, "images have the shape 3×5×9; this network takes 3×6×9 or N×3×6×9"),
        (PIXELS.astype(np.int64), RequestError, r"images are int64; expected uint8, uint16, or floats in \[0, 1\]"),
        (PIXELS.astype(np.float32), RequestError, r"pixels run from .* expected \[0, 1\]"),
        ([TENSOR, TENSOR * 255], RequestError, r"pixels run from .* expected \[0, 1\]"),
        ([], RequestError, "images: the list is empty; give one at least"),
        (3, RequestError, "images: a int is no image; give a tensor, an array, a PIL image, a path, or a list"),
        ([TENSOR, None], RequestError, "images: a NoneType is no image"),
        (b"a.png", RequestError, "images: a bytes is no image"),
        ("no.png", DataError, "no.png: there is no such file; give an image file"),
        (["no.png"], DataError, "no.png: there is no such file"),
        (Path(__file__).parent, DataError, "data: there is no such file"),
        (__file__, DataError, r"test_read\.py: is no image; give another image"),
        (Image.new("F", (9, 6)), DataError, "a PIL image: has 32 bits a value"),
    ],
)
def test_what_is_refused(annotations_unchecked: None, given: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"^[^\n]*{message}[^\n]*$"):
        as_images(given, SHAPE)


def test_files_for_a_network_of_other_channels(file: Path) -> None:
    with pytest.raises(
        DataError, match=r"a picture\.png: is no TIFF file, the only kind that is read with 4 channels; give"
    ):
        as_images(file, (4, 6, 9))
    assert as_images(np.zeros((6, 9, 4)), (4, 6, 9)).shape == (1, 4, 6, 9)


def test_a_file_that_is_cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"a picture\.png: is damaged or cut short"):
        as_images(file, SHAPE)
