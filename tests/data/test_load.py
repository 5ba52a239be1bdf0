"""load_data from every kind of source: what comes back, and how it is divided."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from convscope.data import Augmentation, DataSpec, ImageStream, augment, batches, data_names, load, load_data, store
from convscope.errors import DataError, MissingPackageError, SettingError, UnknownNameError
from tests.conftest import spots_of, write_spots

from .samples import assert_apart, encoded, make_folder, noise


def write_parquet(file: Path, images: list[bytes | None], labels: list, features: dict | None = None) -> None:
    schema = pa.schema(
        [
            ("picture", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.array(labels).type),
        ]
    )
    if features:
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    rows = [{"bytes": image, "path": None} for image in images]
    pq.write_table(pa.table([pa.array(rows, schema.field(0).type), pa.array(labels)], schema=schema), file)


class TestFolder:
    def test_pixels_classes_and_split(self, tmp_path: Path) -> None:
        data = load_data(make_folder(tmp_path / "bugs"))
        assert (data.name, data.classes, data.input_shape) == ("bugs", ("ant", "bee"), (3, 8, 8))
        assert (len(data.train), len(data.val), len(data.test)) == (16, 2, 2)
        assert data.source == f"image folder {tmp_path / 'bugs'}, PNG"
        for k in range(20):
            expected = torch.from_numpy(noise(8, 8, 3, k)).permute(2, 0, 1)
            assert torch.equal(data.train.pixels[k], expected)
        assert data.train.targets["class"].tolist() == [0] * 10 + [1] * 10
        assert_apart(data)

    def test_own_splits_are_kept(self, tmp_path: Path) -> None:
        data = load_data(make_folder(tmp_path, 10, ("train", "validation", "test")))
        assert (len(data.train), len(data.val), len(data.test)) == (20, 20, 20)

    def test_missing_val_is_a_tenth_of_train(self, tmp_path: Path) -> None:
        data = load_data(make_folder(tmp_path, 10, ("train", "test")))
        assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 20)
        assert data.val.targets_of().tolist() == [0, 1]

    def test_path_copy_and_spec_give_the_same(self, tmp_path: Path) -> None:
        data = load_data(make_folder(tmp_path / "a"), seed=3)
        again = load_data(data.spec)
        elsewhere = load_data(make_folder(tmp_path / "b"), seed=3)
        assert data.digest == again.digest == elsewhere.digest
        assert load_data(data.spec, seed=4).digest != data.digest

    def test_grey_and_colour_mixed_become_colour(self, tmp_path: Path) -> None:
        make_folder(tmp_path)
        grey = noise(8, 8, 1, 99)
        (tmp_path / "ant" / "000.png").write_bytes(encoded(grey))
        data = load_data(tmp_path)
        assert data.input_shape == (3, 8, 8)
        assert torch.equal(data.train.pixels[0], torch.from_numpy(grey).expand(3, 8, 8))

    def test_resized_and_grey(self, tmp_path: Path) -> None:
        make_folder(tmp_path)
        (tmp_path / "ant" / "000.png").write_bytes(encoded(noise(20, 30, 3, 99)))
        assert load_data(tmp_path, image_size=6, grey=True).input_shape == (1, 6, 6)

    def test_mean_and_std_are_those_of_train(self, tmp_path: Path) -> None:
        data = load_data(make_folder(tmp_path))
        pixels = data.train.images().double()
        assert torch.allclose(torch.tensor(data.mean).double(), pixels.mean((0, 2, 3)), atol=1e-7)
        assert torch.allclose(torch.tensor(data.std).double(), pixels.std((0, 2, 3), correction=0), atol=1e-7)

    def test_a_constant_channel_has_std_one(self, tmp_path: Path) -> None:
        make_folder(tmp_path)
        for k, file in enumerate(sorted(tmp_path.rglob("*.png"))):
            pixels = noise(8, 8, 3, k)
            pixels[..., 1] = 0
            file.write_bytes(encoded(pixels))
        data = load_data(tmp_path)
        assert data.mean[1] == 0
        assert data.std[1] == 1

    @pytest.mark.parametrize(
        ("given", "mean", "std"),
        [
            ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ({"mean": 0.5, "std": [0.25, 0.5, 1]}, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0)),
        ],
    )
    def test_a_normalization_of_ones_own(self, tmp_path: Path, given: object, mean: object, std: object) -> None:
        data, own = load_data(make_folder(tmp_path), normalize=given), load_data(tmp_path)
        assert (data.mean, data.std, data.digest) == (mean, std, own.digest)
        assert load_data(data.spec).std == std

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("imagnet", "normalize.*: input should be 'own' or 'imagenet'; given 'imagnet'"),
            ({"mean": 0.5}, "normalize.*std: field required"),
            ({"mean": 0.5, "std": 0}, "normalize.*std.0: input should be greater than 0; given 0"),
            (
                {"mean": [123.7, 116.3, 103.5], "std": 58},
                "normalize.*: mean 123.7 cannot be that of images in .0, 1.; of pixels",
            ),
            ({"mean": [0.5, 0.5], "std": 1}, "normalize.mean: 2 values for images of 3 channels; give one value, or 3"),
        ],
    )
    def test_an_impossible_normalization_is_named(self, tmp_path: Path, given: object, expected: str) -> None:
        with pytest.raises(SettingError, match=expected):
            load_data(make_folder(tmp_path), normalize=given)

    def test_duplicates_of_test_images_leave_train_and_val(self, tmp_path: Path) -> None:
        make_folder(tmp_path, 10, ("train", "test"))
        (tmp_path / "train" / "bee" / "extra.png").write_bytes((tmp_path / "test" / "ant" / "003.png").read_bytes())
        data = load_data(tmp_path)
        assert data.duplicates == 1
        assert len(data.train) + len(data.val) == 20
        assert_apart(data)


class TestArrays:
    @pytest.mark.parametrize(
        "keys",
        [
            ("x_train", "y_train", "x_test", "y_test"),
            ("train_images", "train_labels", "test_images", "test_labels"),
        ],
    )
    @pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW", "float"])
    def test_layouts(self, tmp_path: Path, keys: tuple[str, ...], layout: str) -> None:
        grey = np.stack([noise(5, 7, 1, k) for k in range(20)])
        images = {
            "NHW": grey,
            "NHWC": grey[..., None],
            "NCHW": grey[:, None],
            "float": (grey / 255).astype(np.float32),
        }[layout]
        labels = np.arange(20)[:, None] % 2 + 1
        np.savez(
            tmp_path / "set.npz",
            **dict(zip(keys, (images[:16], labels[:16], images[16:], labels[16:]), strict=True)),
        )
        data = load_data(tmp_path / "set.npz")
        assert (data.name, data.input_shape, data.classes) == ("set", (1, 5, 7), ("1", "2"))
        assert (len(data.train), len(data.val), len(data.test)) == (14, 2, 4)
        assert torch.equal(data.test.pixels[:, 0], torch.from_numpy(grey))
        assert data.test.targets_of().tolist() == [0, 1, 0, 1]

    def test_arrays_of_other_names_are_told(self, tmp_path: Path) -> None:
        pixels = np.stack([noise(8, 8, 1, k) for k in range(20)])
        np.savez(tmp_path / "set.npz", x=pixels, y=np.arange(20) % 2, class_names=["ant", "bee"])
        data = load_data(tmp_path / "set.npz")
        assert (data.classes, data.layout) == (("0", "1"), ("arrays that are not used: class_names",))

    def test_colour_with_class_names(self, tmp_path: Path) -> None:
        images = np.stack([noise(5, 7, 3, k) for k in range(20)])
        np.savez(tmp_path / "set.npz", x=images, y=np.arange(20) % 2, classes=np.array(["ant", "bee", "cat"]))
        data = load_data(tmp_path / "set.npz")
        assert data.classes == ("ant", "bee", "cat")
        assert torch.equal(data.test.pixels, torch.from_numpy(images).permute(0, 3, 1, 2))


class TestParquet:
    def test_hub_layout(self, tmp_path: Path) -> None:
        features = {"picture": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}
        pictures = [encoded(noise(8, 8, 3, k)) for k in range(30)]
        (tmp_path / "data").mkdir()
        write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", pictures[:10], [0, 1] * 5, features)
        write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", pictures[10:20], [0, 1] * 5, features)
        write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", pictures[20:], [0, 1] * 5, features)
        data = load_data(tmp_path)
        assert data.classes == ("ant", "bee")
        assert (len(data.train), len(data.val), len(data.test)) == (18, 10, 2)
        for k in (0, 13, 29):
            assert torch.equal(data.train.pixels[k], torch.from_numpy(noise(8, 8, 3, k)).permute(2, 0, 1))

    def test_one_file_with_labels_in_words(self, tmp_path: Path) -> None:
        write_parquet(tmp_path / "all.parquet", [encoded(noise(8, 8, 1, k)) for k in range(20)], ["bee", "ant"] * 10)
        data = load_data(tmp_path / "all.parquet")
        assert (data.classes, data.input_shape) == (("ant", "bee"), (1, 8, 8))
        assert data.train.targets["class"][:2].tolist() == [1, 0]

    @pytest.mark.parametrize(
        ("labels", "classes"), [([1.0, 0.0], ("0", "1")), ([True, False], ("False", "True")), ([" b", "a"], ("a", "b"))]
    )
    def test_labels_are_read_as_those_of_other_tables(
        self, tmp_path: Path, labels: list, classes: tuple[str, ...]
    ) -> None:
        write_parquet(tmp_path / "all.parquet", [encoded(noise(8, 8, 1, k)) for k in range(20)], labels * 10)
        data = load_data(tmp_path / "all.parquet")
        assert (data.classes, data.train.targets["class"][:2].tolist()) == (classes, [1, 0])

    def test_links_are_followed_and_hidden_folders_passed_over(self, tmp_path: Path) -> None:
        for place, first in (("real", 0), ("set/.old", 100)):
            (tmp_path / place).mkdir(parents=True)
            pictures = [encoded(noise(8, 8, 3, first + k)) for k in range(20)]
            write_parquet(tmp_path / place / "0.parquet", pictures, ["bee", "ant"] * 10)
        (tmp_path / "set" / "train").symlink_to("../real")
        data = load_data(tmp_path / "set")
        assert len(data.train) + len(data.val) + len(data.test) == 20
        assert [name for name, _ in ImageStream([tmp_path / "set"])] == [
            f"{tmp_path / 'set' / 'train' / '0.parquet'}:{row}" for row in range(20)
        ]


class TestHub:
    def test_through_datasets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        datasets = pytest.importorskip("datasets")
        features = {"picture": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}
        for split, k in (("train", 0), ("test", 20)):
            write_parquet(
                tmp_path / f"{split}.parquet",
                [encoded(noise(8, 8, 3, k + i)) for i in range(20)],
                [0, 1] * 10,
                features,
            )
        files = {split: str(tmp_path / f"{split}.parquet") for split in ("train", "test")}
        found = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "kept"))
        monkeypatch.setattr(datasets, "load_dataset", lambda name: found)
        data = load_data("hub:some-one/bugs", limit=10)
        assert (data.name, data.source, data.classes) == ("bugs", "Hub some-one/bugs, PNG", ("ant", "bee"))
        assert (len(data.train), len(data.val), len(data.test)) == (9, 1, 10)
        assert {data.train.pixels[i].sum().item() for i in range(20)} <= {
            int(noise(8, 8, 3, k).sum()) for k in range(40)
        }

    def test_held_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        datasets = pytest.importorskip("datasets")
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
        digests = set()
        for first in (0, 20):
            images = [{"bytes": encoded(noise(8, 8, 3, first + i)), "path": None} for i in range(20)]
            found = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 10}, features=features)
            monkeypatch.setattr(datasets, "load_dataset", lambda name, found=found: {"train": found})
            digests.add(load_data("hub:bugs").digest)
        assert len(digests) == 2


class TestSettings:
    def test_limit_is_stratified_and_seeded(self, tmp_path: Path) -> None:
        make_folder(tmp_path, 10, ("train", "test"))
        data = load_data(tmp_path, limit=6)
        assert len(data.train) + len(data.val) == len(data.test) == 6
        assert data.test.targets_of().bincount().tolist() == [3, 3]
        assert load_data(tmp_path, limit=6).digest == data.digest
        assert load_data(tmp_path, limit=6, seed=1).digest != data.digest

    def test_split_by_counts_pools_all(self, tmp_path: Path) -> None:
        data = load_data(make_folder(tmp_path, 10, ("train", "test")), split="20/10/10")
        assert (len(data.train), len(data.val), len(data.test)) == (20, 10, 10)
        assert data.test.targets_of().bincount().tolist() == [5, 5]

    def test_names(self) -> None:
        assert {"lines", "mnist", "cifar10", "fashion-mnist", "cats-dogs", "cifar10-grey28"} <= set(data_names())
        with pytest.raises(UnknownNameError, match="did you mean 'mnist'"):
            load_data("mnits")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"split": "70/50"}, "split: '70/50' adds up to 120; percent must add up to 100"),
            ({"split": "often"}, "split: a split is two or three positive numbers"),
            ({"split": "100/0"}, "split: a split is two or three positive numbers"),
            ({"limit": 1}, "limit: 1 leaves no image of class '(ant|bee)'; 2 are enough"),
            ({"limit": 0}, "limit: .*greater than or equal to 1; given 0"),
            ({"seed": -1}, "seed: "),
            ({"size": 3}, "size: there is no such setting; there is source, image_size"),
        ],
    )
    def test_impossible_ones(self, tmp_path: Path, settings: dict, message: str) -> None:
        make_folder(tmp_path)
        with pytest.raises(SettingError, match=message) as caught:
            load_data(tmp_path, **settings)
        assert "\n" not in str(caught.value)

    @pytest.mark.usefixtures("annotations_unchecked")
    @pytest.mark.parametrize("source", [np.zeros((2, 8, 8, 3)), [torch.zeros(3, 8, 8)], None, b"lines"])
    def test_arrays_are_to_be_written_first(self, source: Any) -> None:
        with pytest.raises(SettingError, match=r"^source: .* expected a name or a path: .* \.npz file") as caught:
            load_data(source)
        assert "\n" not in str(caught.value)

    def test_lines_keep_their_size(self) -> None:
        with pytest.raises(SettingError, match="image_size"):
            load_data("lines", image_size=32)

    def test_the_spec_is_filled_in(self) -> None:
        assert load_data("lines", limit=96 * 4).spec == DataSpec(
            source="lines", limit=96 * 4, split="60/40", normalize="own"
        )


class TestRealSets:
    @pytest.mark.parametrize(
        ("name", "sizes", "shape", "encoding"),
        [
            pytest.param("mnist", (54000, 6000, 10000), (1, 28, 28), "PNG", marks=pytest.mark.slow),
            pytest.param("cifar10", (45000, 5000, 10000), (3, 32, 32), "JPEG", marks=pytest.mark.slow),
        ],
    )
    def test_sizes_and_no_test_image_elsewhere(
        self, copies: Path, name: str, sizes: tuple[int, int, int], shape: tuple[int, int, int], encoding: str
    ) -> None:
        data = load_data(name)
        assert len(data.train) + len(data.val) + len(data.test) + data.duplicates == sum(sizes)
        assert (len(data.val), len(data.test), data.input_shape, len(data.classes)) == (*sizes[1:], shape, 10)
        assert data.source == f"copy in CONVSCOPE_DATA, {encoding}"
        assert_apart(data)
        tenth = (
            data.val.targets_of().bincount()
            - (data.train.targets_of().bincount() + data.val.targets_of().bincount()) / 10
        )
        assert tenth.abs().max() <= 1

    @pytest.mark.slow
    def test_cifar10_stays_under_its_memory(self, copies: Path) -> None:
        program = (
            "from pathlib import Path; from convscope.data import batches, load_data\n"
            "data = load_data('cifar10')\n"
            "for batch in batches(data.train, 128, seed=0): pass\n"
            "[peak] = [line for line in Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in line]\n"
            "print(peak.split()[1])"  # ru_maxrss would count what this process had when it began the other
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert int(done.stdout) < 1_000_000  # kB; 1.5 GB are allowed with the training

    @pytest.mark.slow
    def test_mnist_60_40(self, copies: Path) -> None:
        data = load_data("mnist", split="60/40")
        assert (len(data.train), len(data.val), len(data.test)) == (37800, 4200, 28000)
        assert_apart(data)

    def test_grey28_and_photographs(self, copies: Path) -> None:
        assert load_data("cifar10-grey28", limit=100).input_shape == (1, 28, 28)
        photographs = load_data("cats-dogs", limit=20)
        assert (photographs.input_shape, photographs.classes) == ((3, 128, 128), ("cat", "dog"))


def test_no_lines_test_image_elsewhere() -> None:
    assert_apart(load_data("lines", limit=9600))


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
