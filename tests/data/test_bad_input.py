"""Everything that can be wrong with a source: one line that names it, and nothing half-written."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from convscope.data import image_files, load_data
from convscope.errors import DataError

from .samples import encoded, make_folder, noise, write_parquet


def fails(cache: Path, source: str | Path, *parts: str, **settings: object) -> None:
    with pytest.raises(DataError) as caught:
        load_data(source, **settings)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not list(cache.rglob("*.npy"))


def test_truncated_image(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path)
    bad = tmp_path / "bee" / "004.png"
    bad.write_bytes(bad.read_bytes()[:120])
    fails(cache, tmp_path, f"{bad}: is damaged or cut short", "skip_bad")
    data = load_data(tmp_path, skip_bad=True)
    assert len(data.train) + len(data.val) + len(data.test) == 19
    (name, reason), *others = data.left_out
    assert (name, others) == (str(bad), [])
    assert reason.startswith("is damaged")
    with pytest.raises(DataError, match="cut short"):  # also when the pixels come from the cache
        load_data(tmp_path)


def test_no_image(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "ant" / "notes.txt").write_text("five legs?")
    fails(cache, tmp_path, "notes.txt: is no image; repair or remove it")
    assert load_data(tmp_path, skip_bad=True).left_out == ((str(tmp_path / "ant" / "notes.txt"), "is no image"),)


def test_a_picture_that_is_too_large_is_not_called_damaged(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path)
    (tmp_path / "ant" / "000.png").write_bytes(encoded(noise(20, 30, 3, 0)))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 200)  # Pillow refuses more than twice as many
    fails(cache, tmp_path, "ant/000.png: has 600 pixels, more than the 400 that are read", "scale it down")
    ((_, reason),) = load_data(tmp_path, skip_bad=True).left_out
    assert reason.startswith("has 600 pixels, more than the 400")


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "ant" / ".DS_Store").write_text("")
    (tmp_path / "ant" / "Thumbs.db").write_text("")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "ant" / "@eaDir").mkdir()
    (tmp_path / "ant" / "@eaDir" / "thumbnail.png").write_bytes(encoded(noise(8, 8, 3, 100)))
    data = load_data(tmp_path)
    assert (len(data.train) + len(data.val) + len(data.test), data.left_out) == (20, ())
    assert len(list(image_files([tmp_path]))) == 20


def test_empty_class_folder(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    fails(cache, tmp_path, f"{tmp_path / 'cat'}: this class folder is empty; put images into it or remove it")


def test_no_class_folders(tmp_path: Path, cache: Path) -> None:
    fails(cache, tmp_path, "no class folders", "<class>/…")


def test_class_without_training_images(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path, 4, ("train", "test"))
    (tmp_path / "test" / "ant").rename(tmp_path / "test" / "cat")
    fails(cache, tmp_path, "class 'cat' has images, but none in train")


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_class_without_training_images_in_a_file(tmp_path: Path, cache: Path, ending: str) -> None:
    """As in a folder: one rule for all sources."""
    images = np.stack([noise(8, 8, 3, k) for k in range(40)])
    labels = {"train": np.arange(24) % 2, "test": np.arange(16) % 3}
    if ending == "npz":
        arrays = {f"y_{name}": values for name, values in labels.items()}
        np.savez(tmp_path / "set.npz", x_train=images[:24], x_test=images[24:], **arrays)
    else:
        pictures, split = [encoded(one) for one in images], {"train": slice(24), "test": slice(24, 40)}
        for name, rows in split.items():
            write_parquet(tmp_path / f"{name}.parquet", pictures[rows], labels[name].tolist())
    source = tmp_path / "set.npz" if ending == "npz" else tmp_path
    fails(cache, source, "class '2' has images, but none in train (and some in test)")
    assert len(load_data(source, split="50/50").classes) == 3  # pooled and divided anew, each class has some


def test_class_whose_training_images_are_all_test_images_too(tmp_path: Path) -> None:
    make_folder(tmp_path, 40, ("train", "test"))
    for file in (tmp_path / "train" / "bee").iterdir():
        file.write_bytes((tmp_path / "test" / "bee" / file.name).read_bytes())
    with pytest.raises(DataError, match=r"'bee' has images, but none in train \(and some in test\); add some"):
        load_data(tmp_path)


class TestLinks:
    def test_linked_folders_are_followed(self, tmp_path: Path) -> None:
        root, elsewhere = make_folder(tmp_path / "bugs"), make_folder(tmp_path / "more", 30)
        (root / "ant" / "more").symlink_to(elsewhere / "bee")
        (root / "cat").symlink_to(elsewhere / "ant")
        data = load_data(root)
        assert data.classes == ("ant", "bee", "cat")
        assert len(data.train) + len(data.val) + len(data.test) + data.duplicates == 20 + 60
        assert "ant: files of 1 sub-folder among them" in data.layout

    @pytest.mark.parametrize("place", ["ant/loop", "ant/deep/loop"])
    def test_a_loop_is_refused(self, tmp_path: Path, cache: Path, place: str) -> None:
        root = make_folder(tmp_path / "bugs")
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).symlink_to(root / "ant")
        fails(cache, root, f"{root / place}: this link leads back to a folder that it lies in; remove it")

    @pytest.mark.parametrize("target", ["nowhere.png", "lost.png"])
    def test_a_dangling_link_is_an_unreadable_file(self, tmp_path: Path, cache: Path, target: str) -> None:
        """Also one that leads to itself."""
        root = make_folder(tmp_path / "bugs")
        (root / "bee" / "lost.png").symlink_to(target)
        fails(cache, root, f"{root / 'bee' / 'lost.png'}: is a link to a file that is not there", "skip_bad")
        left_out = ((str(root / "bee" / "lost.png"), "is a link to a file that is not there"),)
        assert load_data(root, skip_bad=True).left_out == left_out
        (root / "bee" / "lost.png").unlink()
        assert load_data(root).left_out == ()

    def test_a_dangling_link_beside_the_classes_is_refused(self, tmp_path: Path, cache: Path) -> None:
        root = make_folder(tmp_path / "bugs")
        (root / "cat").symlink_to("nowhere")
        fails(cache, root, f"{root / 'cat'}: is a link to something that is not there")

    def test_a_pipe_is_an_unreadable_file(self, tmp_path: Path, cache: Path) -> None:
        """Opening it would wait for ever."""
        root = make_folder(tmp_path / "bugs")
        os.mkfifo(root / "bee" / "pipe.png")
        fails(cache, root, f"{root / 'bee' / 'pipe.png'}: is no file")


def test_tables_beside_folders_of_images(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "all.parquet").write_bytes(b"")
    fails(cache, tmp_path, "holds parquet tables", "and folders of images")


def test_two_keys_for_one_array(tmp_path: Path, cache: Path) -> None:
    x, y = np.zeros((3, 4, 4), np.uint8), np.arange(3)
    np.savez(tmp_path / "set.npz", x_train=x, train_images=x, y_train=y)
    fails(cache, tmp_path / "set.npz", "train_images stands for the same array as another key")


def test_different_sizes(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "bee" / "000.png").write_bytes(encoded(noise(9, 12, 3, 5)))
    fails(cache, tmp_path, "bee/000.png is 12×9", "ant/000.png 8×8", "image_size=8")


def test_unreadable_files(tmp_path: Path, cache: Path) -> None:
    for name in ("set.npz", "set.parquet"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
        fails(cache, tmp_path / name, name)
    (tmp_path / "set.txt").write_text("")
    fails(cache, tmp_path / "set.txt", "none of the kinds that can be read")
    fails(cache, tmp_path / "missing", "no such file or folder")


def test_cut_short_parquet(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [encoded(noise(8, 8, 3, k)) for k in range(20)], [0, 1] * 10)
    whole = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(whole[:500])
    fails(cache, tmp_path / "train.parquet", "train.parquet: is no parquet file, or damaged")


def test_npz_never_unpickles(tmp_path: Path, cache: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.array([{}, {}], dtype=object), y=np.arange(2))
    fails(cache, tmp_path / "set.npz", "cannot be read as .npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "has the keys a; expected x_train"),
        ({"x": np.zeros((3, 4), np.uint8), "y": np.arange(3)}, "images have the shape (3, 4)"),
        ({"x": np.zeros((3, 4, 4), np.int64), "y": np.arange(3)}, "expected uint8, uint16, or floats from 0 to 1"),
        (
            {"x": np.full((3, 4, 4), 7.0), "y": np.arange(3)},
            "images are float64 and run from 7 to 7; floats are expected from 0 to 1",
        ),
        ({"x": np.zeros((3, 4, 4), np.uint8), "y": np.arange(2)}, "3 images and labels of shape (2,); give one each"),
        ({"x": np.zeros((3, 4, 4), np.uint8), "y": np.int64(1)}, "3 images and labels of shape (); give one each"),
        ({"x": np.zeros((3, 4, 4), np.uint8), "y": np.zeros((3, 2), int)}, "labels of shape (3, 2); give one each"),
        (
            {"x": np.zeros((3, 4, 4), np.uint8), "y": np.arange(3), "classes": np.array("ant")},
            "classes have the shape (); expected a row of names, one for each class",
        ),
        ({"x": np.zeros((3, 4, 4), np.uint8), "y": np.zeros(3)}, "expected one integer or one string"),
    ],
)
def test_wrong_arrays(tmp_path: Path, cache: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    fails(cache, tmp_path / "set.npz", message)


@pytest.mark.parametrize(("label", "words"), [(-1, "-1 (none, as -1 or null)"), (2, "2")])
def test_labels_out_of_range(tmp_path: Path, cache: Path, label: int, words: str) -> None:
    features = {"picture": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}
    pictures = [encoded(noise(8, 8, 3, k)) for k in range(20)]
    write_parquet(tmp_path / "all.parquet", pictures, [0, 1] * 9 + [0, label], features)
    fails(cache, tmp_path / "all.parquet", f"all.parquet row 19: has the label {words}, outside 0 … 1")
    assert load_data(tmp_path / "all.parquet", skip_bad=True).left_out[0][0].endswith("row 19")


def test_a_test_split_without_labels_is_drawn_from_train(tmp_path: Path) -> None:
    pictures = [encoded(noise(8, 8, 3, k)) for k in range(40)]
    write_parquet(tmp_path / "train.parquet", pictures[:20], [0, 1] * 10)
    write_parquet(tmp_path / "test.parquet", pictures[20:], [-1] * 20)
    data = load_data(tmp_path, skip_bad=True)
    assert (len(data.train), len(data.val), len(data.test), len(data.left_out)) == (16, 2, 2, 20)


def test_rows_without_image_or_label(tmp_path: Path, cache: Path) -> None:
    pictures: list[bytes | None] = [encoded(noise(8, 8, 3, k)) for k in range(20)]
    pictures[7] = None
    write_parquet(tmp_path / "all.parquet", pictures, [0, 1] * 9 + [0, None])
    fails(cache, tmp_path / "all.parquet", "row 19: has the label -1")
    assert len(load_data(tmp_path / "all.parquet", skip_bad=True).left_out) == 2


def test_words_without_a_label_in_a_parquet_file(tmp_path: Path, cache: Path) -> None:
    pictures = [encoded(noise(8, 8, 3, k)) for k in range(20)]
    write_parquet(tmp_path / "all.parquet", pictures, ["bee", "ant"] * 9 + ["", None])
    fails(cache, tmp_path / "all.parquet", "row 18: has the label -1", "(and 1 more such rows: all.parquet row 19)")
    data = load_data(tmp_path / "all.parquet", skip_bad=True)
    assert (data.classes, len(data.left_out)) == (("ant", "bee"), 2)


@pytest.mark.parametrize("labels", [[[1], [1, 2]] * 10, [[1, 2]] * 20, [0.5, 1.5] * 10, [{"kind": 1}] * 20])
def test_labels_that_are_no_words_and_no_whole_numbers(tmp_path: Path, cache: Path, labels: list) -> None:
    write_parquet(tmp_path / "all.parquet", [encoded(noise(8, 8, 3, k)) for k in range(20)], labels)
    said = f"all.parquet, column label: {str(labels[0])!r} is no word and no whole number; convert the column"
    fails(cache, tmp_path / "all.parquet", said)


def test_a_number_that_stands_for_two_classes(tmp_path: Path, cache: Path) -> None:
    for name, first in (("train", 0), ("test", 20)):
        features = {"label": {"_type": "ClassLabel", "names": ["ant", "bee"] if first else ["bee", "ant"]}}
        pictures = [encoded(noise(8, 8, 3, first + k)) for k in range(20)]
        write_parquet(tmp_path / f"{name}.parquet", pictures, [0, 1] * 10, features)
    fails(
        cache,
        tmp_path,
        "train.parquet: names the classes of 'label' ['bee', 'ant'], and",
        "test.parquet ['ant', 'bee']; write both with the same names in the same order",
    )


def test_columns_with_other_names(tmp_path: Path, cache: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"], "mood": [1]}), tmp_path / "all.parquet")
    fails(cache, tmp_path / "all.parquet", "has the columns text, mood; expected one of images")


@pytest.mark.parametrize(
    ("notes", "classes"),
    [
        (b"{cut", ("0", "1")),
        (b"[]", ("0", "1")),
        (b'{"info": null}', ("0", "1")),
        (b'{"info": {"features": null}}', ("0", "1")),
        (b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}', ("0", "1")),
        (b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": [7, 8]}}}}', ("7", "8")),
    ],
)
def test_damaged_notes_of_a_parquet_file(tmp_path: Path, notes: bytes, classes: tuple[str, ...]) -> None:
    import pyarrow.parquet as pq

    file = tmp_path / "all.parquet"
    write_parquet(file, [encoded(noise(8, 8, 3, k)) for k in range(20)], [0, 1] * 10)
    pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": notes}), file)
    assert load_data(file).classes == classes


def test_what_datasets_saved_says_how_to_write_it(tmp_path: Path, cache: Path) -> None:
    for file in ("train/data-00000-of-00001.arrow", "train/state.json", "dataset_dict.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    fails(
        cache, tmp_path, "holds data-00000-of-00001.arrow", "write each split as parquet: dataset['train'].to_parquet"
    )


def test_nothing_can_be_read(tmp_path: Path, cache: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_text("")
    fails(cache, tmp_path, "holds no image that can be read", skip_bad=True)


def test_missing_set_without_network(cache: Path) -> None:
    program = (
        "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "import convscope\n"
        "try: convscope.load_data('fashion-mnist')\n"
        "except convscope.errors.DataError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith("hub:zalando-datasets/fashion_mnist: cannot be loaded")
    assert "CONVSCOPE_DATA" in line


LABELS = np.arange(30) % 3


def packed(path: Path, shape: tuple[int, ...], held: bytes = b"") -> Path:
    """An archive whose images are said to have that shape."""
    header, labels = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    np.save(labels, LABELS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", header.getvalue() + held)
        file.writestr("y.npy", labels.getvalue())
    return path


@pytest.mark.parametrize("shape", [(10**12, 8, 8, 3), (2**62, 8, 8, 3), (-5, 8, 8, 3), (30, 8, 8, 3)])
def test_arrays_that_are_not_as_large_as_they_say(tmp_path: Path, cache: Path, shape: tuple[int, ...]) -> None:
    fails(cache, packed(tmp_path / "x.npz", shape, bytes(100)), "x.npz", "save it again")


def test_arrays_that_are_too_large_are_refused_before_they_are_made(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = packed(tmp_path / "x.npz", (30, 1000, 1000, 1), bytes(30_000_000))
    assert bomb.stat().st_size < 50_000
    monkeypatch.setattr("convscope.data.arrays.available_memory", lambda: 20_000_000)
    monkeypatch.setattr(np, "load", None)
    fails(cache, bomb, "x.npz: its arrays take 0.0 GB", "of memory; give an image folder or parquet files")


@pytest.mark.parametrize("shape", [(30, 0, 8, 3), (30, 8, 0, 3), (30, 0, 0), (30, 8, 8, 0)])
def test_images_without_a_pixel(tmp_path: Path, cache: Path, shape: tuple[int, ...]) -> None:
    fails(cache, packed(tmp_path / "x.npz", shape), "without a pixel")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "a"], "two classes have the name 'a'; give each its own"),
        (["a", "b\nc", "d"], r"the class 'b\nc' has no name of one line without control characters; rename it"),
        (["a", "b\x1b[31mc", "d"], "has no name of one line"),
        (["a", "b\u2028c", "d"], "has no name of one line"),
        (["a", "", "d"], "the class '' has no name of one line"),
    ],
)
def test_names_of_classes(tmp_path: Path, cache: Path, names: list[str], said: str) -> None:
    pixels = np.zeros((30, 8, 8), np.uint8) + np.arange(30, dtype=np.uint8)[:, None, None]
    np.savez(tmp_path / "x.npz", x=pixels, y=LABELS, classes=names)
    fails(cache, tmp_path / "x.npz", said)


def test_a_folder_whose_name_has_two_lines(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "bee").rename(tmp_path / "bee\nhive")
    fails(cache, tmp_path, r"the class 'bee\nhive' has no name of one line")


def test_names_that_are_no_text(tmp_path: Path, cache: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "ant" / "000.png").rename(tmp_path / "ant" / "caf\udce9.png")
    (tmp_path / "ant" / "zo\udcff.png").write_bytes(b"no image")
    data = load_data(tmp_path, skip_bad=True)
    assert data.left_out == ((str(tmp_path / "ant" / r"zo\udcff.png"), "is no image"),)
    assert len(data.train) + len(data.val) + len(data.test) == 20
    (tmp_path / "bee").rename(tmp_path / "b\udce9e")
    shutil.rmtree(cache)
    fails(cache, tmp_path, r"the name of the class 'b\udce9e' is no UTF-8; rename it")


@pytest.mark.parametrize("source", ["hub:", "hub:/", "hub: "])
def test_the_hub_alone_names_no_set(cache: Path, source: str) -> None:
    fails(cache, source, "names no set; write hub:owner/name")
