"""load_data from every kind of source: what comes back, and how it is divided."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convscope.data import DataSpec, ImageStream, data_names, load_data
from convscope.errors import SettingError, UnknownNameError

from .samples import assert_apart, encoded, make_folder, noise, write_parquet


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
