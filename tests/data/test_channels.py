"""Channels, bands and bits: grey and colour, more bands than three, and 16 bits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from convscope.data import Augmentation, DataSpec, augment, batches, load, load_data, store
from convscope.errors import DataError, MissingPackageError, SettingError
from tests.conftest import spots_of, write_spots

from .samples import encoded, noise, write_parquet


class TestChannels:
    def test_a_grey_channel_is_repeated_and_lies_in_memory_once(self, tmp_path: Path, cache: Path) -> None:
        write_spots(tmp_path / "grey.npz", 60, channels=1)
        grey, three = load_data(tmp_path / "grey.npz"), load_data(tmp_path / "grey.npz", channels=3)
        assert (grey.input_shape, three.input_shape) == ((1, 8, 8), (3, 8, 8))
        assert torch.equal(three.train.images(), grey.train.images().expand(-1, 3, -1, -1))
        assert torch.equal(three.test[0][0], grey.test[0][0].expand(3, -1, -1))
        assert (three.mean, three.std) == (grey.mean * 3, grey.std * 3)
        assert (three.repeats_grey, grey.repeats_grey) == (True, False)
        assert three.train.pixels.untyped_storage().nbytes() == grey.train.pixels.untyped_storage().nbytes()
        assert len(list(cache.rglob("*.npy"))) == 1
        assert three.source.endswith("grey in 3 channels")
        assert three.digest != grey.digest
        assert load_data(three.spec).digest == three.digest
        values = load_data(tmp_path / "grey.npz", channels=3, normalize="imagenet")
        assert values.mean == (0.485, 0.456, 0.406)
        next(batches(three.train, 8, seed=0, augmentation=Augmentation(crop=2, saturation=0.5)))

    def test_colour_is_as_it_was_with_three_and_grey_with_one(self, tmp_path: Path) -> None:
        write_spots(tmp_path / "colour.npz", 60)
        colour, three = load_data(tmp_path / "colour.npz"), load_data(tmp_path / "colour.npz", channels=3)
        assert (colour.digest, three.repeats_grey) == (three.digest, False)
        one, grey = (load_data(tmp_path / "colour.npz", **said) for said in ({"channels": 1}, {"grey": True}))
        assert (one.input_shape, one.spec, one.digest) == ((1, 8, 8), grey.spec, grey.digest)
        assert one.spec.grey

    def test_a_setting_wins_over_that_of_the_spec(self, tmp_path: Path) -> None:
        write_spots(tmp_path / "colour.npz", 60)
        grey, three = (DataSpec(source=str(tmp_path / "colour.npz"), channels=channels) for channels in (1, 3))
        for spec, said, channels in [
            (grey, {}, 1),
            (grey, {"grey": False}, 3),
            (grey, {"channels": None}, 3),
            (grey, {"channels": 3}, 3),
            (three, {"grey": True}, 1),
            (three, {"channels": 1}, 1),
        ]:
            data = load_data(spec, **said)
            assert (data.input_shape[0], data.spec.grey) == (channels, channels == 1)
        assert load_data(three, grey=False).spec.channels == 3

    @pytest.mark.parametrize(
        ("source", "said", "expected"),
        [
            ("mnist", {"grey": True, "channels": 3}, "^channels: 3 contradicts grey: true; leave one of the two out$"),
            ("mnist", {"channels": 0}, "^channels: input should be greater than or equal to 1; given 0"),
            ("lines", {"channels": 4}, "^channels: lines are drawn in colour at 28×28"),
            ("cifar10-grey28", {"channels": 3}, "^channels: cifar10-grey28 is grey; leave it out, or take"),
            ("lines", {"channels": 1}, "^grey: lines are drawn in colour at 28×28"),
        ],
    )
    def test_what_contradicts_itself(self, source: str, said: dict[str, Any], expected: str) -> None:
        with pytest.raises(SettingError, match=expected):
            load_data(source, **said)


class TestBands:
    @pytest.mark.parametrize("bands", [2, 4, 6])
    @pytest.mark.parametrize("first", [False, True])
    def test_arrays_keep_any_number_of_channels(self, tmp_path: Path, bands: int, first: bool) -> None:
        images, labels = spots_of(60, bands)
        np.savez(tmp_path / "a.npz", x=images.transpose(0, 3, 1, 2) if first else images, y=labels)
        data = load_data(tmp_path / "a.npz")
        assert data.input_shape == (bands, 8, 8)
        row = int(data.test.index[0])
        assert torch.equal(data.test[0][0], torch.from_numpy(images[row]).permute(2, 0, 1).float() / 255)
        assert (len(data.mean), len(data.std)) == (bands, bands)
        assert data.source.endswith(f"{bands} bands (pictures show the first {'one' if bands == 2 else 'three'})")
        augmentation = Augmentation(crop=1, brightness=0.2, contrast=0.2, saturation=0.5, cutout=2)
        [batch] = batches(data.test, 60, augmentation=augmentation, seed=0)
        assert batch.images.shape[1:] == (bands, 8, 8)
        assert load_data(tmp_path / "a.npz", image_size=5).input_shape == (bands, 5, 5)

    def test_the_last_axis_is_that_of_the_channels_where_nothing_else_tells(self, tmp_path: Path) -> None:
        np.savez(
            tmp_path / "a.npz", x=np.stack([np.full((6, 8, 20), n, np.uint8) for n in range(30)]), y=np.arange(30) % 2
        )
        assert load_data(tmp_path / "a.npz").input_shape == (20, 6, 8)

    @pytest.mark.parametrize(
        ("parts", "said", "error", "expected"),
        [
            (
                (4, 4),
                {"channels": 3},
                SettingError,
                "^channels: 3, said here or by the network, and these images have 4; take",
            ),
            (
                (4, 4),
                {"grey": True},
                SettingError,
                "^channels: 1, said here or by the network, and these images have 4",
            ),
            ((4, 3), {}, DataError, r"a.npz image 0 has 4 channels and .*a.npz image 30 3; give images of the same"),
            ((4, 4), {"normalize": "imagenet"}, SettingError, "normalize.mean: 3 values for images of 4 channels"),
        ],
    )
    def test_what_does_not_go_with_them(
        self, tmp_path: Path, parts: tuple[int, int], said: dict[str, Any], error: type, expected: str
    ) -> None:
        (train, of_train), (test, of_test) = (spots_of(30, bands, seed) for seed, bands in enumerate(parts))
        np.savez(tmp_path / "a.npz", x_train=train, y_train=of_train, x_test=test, y_test=of_test)
        with pytest.raises(error, match=expected):
            load_data(tmp_path / "a.npz", **said)


def deep_of(n: int, bands: int = 1, seed: int = 0) -> np.ndarray:
    """Images of 16 bits, (n, 8, 9), or with bands (n, 8, 9, bands)."""
    shape = (n, 8, 9) if bands == 1 else (n, 8, 9, bands)
    return np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)


def write_deep(root: Path, images: np.ndarray, ending: str = "png") -> Path:
    """An image folder of PNG or TIFF, an .npz, or a parquet file, of two classes in turn."""
    labels = np.arange(len(images)) % 2
    if ending == "npz":
        np.savez(root / "set.npz", x=images, y=labels)
        return root / "set.npz"
    encoded_ones = [encoded(image, "TIFF" if ending == "tif" else "PNG") for image in images]
    if ending == "parquet":
        write_parquet(root / "set.parquet", encoded_ones, labels.tolist())
        return root / "set.parquet"
    for k, (image, label) in enumerate(zip(encoded_ones, labels, strict=True)):
        (root / "deep" / f"class {label}").mkdir(parents=True, exist_ok=True)
        (root / "deep" / f"class {label}" / f"{k:03}.{ending}").write_bytes(image)
    return root / "deep"


class TestDepth:
    @pytest.mark.parametrize("ending", ["png", "tif", "npz", "parquet"])
    def test_sixteen_bits_are_kept_where_wanted(self, tmp_path: Path, ending: str) -> None:
        images = deep_of(40)
        data = load_data(write_deep(tmp_path, images, ending), bits=16)
        assert (data.input_shape, data.train.pixels.dtype, data.is_reduced) == ((1, 8, 9), torch.uint16, False)
        assert data.source.endswith(", 16 bits")
        order = [k for label in (0, 1) for k in range(label, 40, 2)] if ending in ("png", "tif") else list(range(40))
        expected = torch.from_numpy(images[order].astype(np.float64)) / 65535
        for part in (data.train, data.test):
            wanted = expected[part.index][:, None].float()
            assert torch.equal(part.images(), wanted)
            assert torch.equal(part[1][0], wanted[1])
            [batch] = batches(part, 60)
            assert torch.equal(batch.images, wanted)
        seen = expected[data.train.index]
        assert data.mean == pytest.approx((float(seen.mean()),), rel=1e-12)
        assert data.std == pytest.approx((float(seen.std(correction=0)),), rel=1e-12)
        again = load_data(data.spec)
        assert (again.digest, again.spec.bits) == (data.digest, 16)

    @pytest.mark.parametrize("ending", ["png", "npz", "parquet"])
    def test_scaled_to_eight_they_say_so(self, tmp_path: Path, ending: str) -> None:
        images = deep_of(40)
        path = write_deep(tmp_path, images, ending)
        (tmp_path / "eight").mkdir()
        reduced = load_data(path)
        eight = load_data(write_deep(tmp_path / "eight", ((images + 128.0) // 257).astype(np.uint8), ending))
        assert (reduced.digest, reduced.mean, reduced.std) == (eight.digest, eight.mean, eight.std)
        assert (reduced.is_reduced, eight.is_reduced) == (True, False)
        assert reduced.source.endswith(", 16 bits scaled to 8 (data.bits: 16 keeps them)")
        assert eight.source.endswith(("PNG", "arrays"))
        assert load_data(path, bits=16).digest != reduced.digest

    def test_images_of_eight_bits_among_them_are_scaled_by_257(self, tmp_path: Path) -> None:
        path = write_deep(tmp_path, deep_of(40))
        shallow = noise(8, 9, 1, 5)
        (path / "class 0" / "000.png").write_bytes(encoded(shallow))
        data = load_data(path, bits=16)
        assert np.array_equal(data.train.pixels[0, 0].numpy(), shallow.astype(np.uint16) * 257)
        assert torch.equal(load_data(path).train.pixels[0, 0], torch.from_numpy(shallow))

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("bands", [2, 3, 4])
    def test_bands(self, tmp_path: Path, bands: int, order: str) -> None:
        images = deep_of(40, bands)
        data = load_data(write_deep(tmp_path, images.astype(f"{order}u2"), "npz"), bits=16)
        assert np.array_equal(data.train.pixels.numpy(), images.transpose(0, 3, 1, 2))
        assert load_data(data.spec, bits=8).digest != data.digest

    def test_duplicates_are_told_by_all_bits(self, tmp_path: Path) -> None:
        images = np.full((40, 8, 9), 30000, np.uint16) + np.arange(40, dtype=np.uint16)[:, None, None]
        images[3] = images[39]
        labels = np.arange(40) % 2
        np.savez(tmp_path / "a.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
        data = load_data(tmp_path / "a.npz", bits=16)
        assert (data.duplicates, len(data.train) + len(data.val)) == (1, 29)

    def test_a_constant_channel_has_std_one(self, tmp_path: Path) -> None:
        images = deep_of(40, 2)
        images[..., 1] = 65534
        data = load_data(write_deep(tmp_path, np.repeat(np.repeat(images, 40, 1), 40, 2), "npz"), bits=16)
        assert (data.mean[1], data.std[1]) == (pytest.approx(65534 / 65535, rel=1e-12), 1)

    def test_grey_repeated_and_augmented(self, tmp_path: Path) -> None:
        path = write_deep(tmp_path, deep_of(40), "npz")
        grey, three = load_data(path, bits=16), load_data(path, bits=16, channels=3)
        assert torch.equal(three.train.images(), grey.train.images().expand(-1, 3, -1, -1))
        assert three.repeats_grey
        augmentation = Augmentation(crop=2, flip="random", rotation=10, brightness=0.2, contrast=0.2, cutout=2)
        found = list(batches(three.train, 16, seed=1, augmentation=augmentation))
        for step, batch in enumerate(found):
            expected = augment(three.train.images(batch.index), augmentation, (1, 0, step), batch.index)
            assert torch.equal(batch.images, expected)

    def test_the_entries_of_earlier_versions_are_those_of_eight_bits(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[dict[str, Any]] = []

        def as_earlier(name: str, key: dict[str, Any], fill: Callable[[], store.Filling]) -> store.Stored:
            seen.append(key)
            stored = store.obtain(name, key, fill)
            return replace(stored, about={k: v for k, v in stored.about.items() if k != "deep"})

        monkeypatch.setattr(load, "obtain", as_earlier)
        path = write_deep(tmp_path, deep_of(40))
        assert (load_data(path).is_reduced, set(seen[0])) == (False, {"content", "image_size", "grey", "rows"})
        assert load_data(path, bits=16).train.pixels.dtype == torch.uint16

    @pytest.mark.parametrize(
        ("source", "said", "expected"),
        [
            ("mnist", {"bits": 12}, "^bits: input should be 8 or 16; given 12"),
            ("lines", {"bits": 16}, "^bits: lines are drawn in colour at 28×28, of 8 bits"),
        ],
    )
    def test_what_cannot_be(self, source: str, said: dict[str, Any], expected: str) -> None:
        with pytest.raises(SettingError, match=expected):
            load_data(source, **said)


class TestBandsOfFiles:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("bands", [2, 4, 12])
    def test_tiff_files(self, tmp_path: Path, bands: int, dtype: type) -> None:
        images, bits = deep_of(20, bands).astype(dtype), 8 * np.dtype(dtype).itemsize
        for k, image in enumerate(images):
            (tmp_path / f"{k % 2}").mkdir(exist_ok=True)
            tifffile.imwrite(
                tmp_path / f"{k % 2}" / f"{k:02}.tif", image, photometric="minisblack", planarconfig="contig"
            )
        data = load_data(tmp_path, channels=bands, bits=bits)
        assert data.input_shape == (bands, 8, 9)
        order = [k for label in (0, 1) for k in range(label, 20, 2)]
        assert np.array_equal(data.train.pixels.numpy(), images[order].transpose(0, 3, 1, 2))
        depth = ", 16 bits" if bits == 16 else ""
        assert data.source.startswith(f"image folder {tmp_path}, TIFF{depth}, {bands} bands (pictures show")
        assert load_data(data.spec).digest == data.digest
        with pytest.raises(DataError, match=rf"00.tif: has not 5 bands, but the axes Y 8 × X 9 × S {bands}; repair"):
            load_data(tmp_path, channels=5)
        (tmp_path / "0" / "a.png").write_bytes(encoded(noise(8, 9, 3, 0)))
        with pytest.raises(
            DataError, match=rf"a.png: is no TIFF file, the only kind that is read with {bands} channels"
        ):
            load_data(tmp_path, channels=bands)

    def test_the_package_that_reads_them_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for k in range(20):
            (tmp_path / f"{k % 2}").mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / f"{k % 2}" / f"{k:02}.tif", deep_of(1, 4, k)[0], photometric="rgb")
        monkeypatch.setitem(sys.modules, "tifffile", None)
        expected = r"^a TIFF file of several bands needs the package 'tifffile', .* pip install 'convscope\[tiff\]'$"
        with pytest.raises(MissingPackageError, match=expected):
            load_data(tmp_path, channels=4)
        assert load_data(tmp_path, skip_bad=True).input_shape == (3, 8, 9)  # as Pillow reads them
