"""Labels from tables and file names, groups that stay together, folds, and the names of the images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from convscope.data import DataBundle, load_data
from convscope.data.catalogue import find
from convscope.data.labels import _Finder, search_all
from convscope.data.layouts import read_tree
from convscope.data.spec import make_spec
from convscope.data.splits import by_groups
from convscope.errors import DataError, SettingError, UnknownNameError
from tests.data.samples import encoded, noise

N = 40


def make_photos(root: Path, n: int = N, folder: str = "images") -> Path:
    """`photos/images/000.png` …, their class in no name."""
    (root / folder).mkdir(parents=True)
    for k in range(n):
        (root / folder / f"{k:03}.png").write_bytes(encoded(noise(8, 8, 3, k)))
    return root


def frame(n: int = N, **columns: Any) -> pd.DataFrame:
    files = [f"images/{k:03}.png" for k in range(n)]
    return pd.DataFrame({"file": files, "label": ["cat" if k % 4 else "dog" for k in range(n)], **columns})


def names_of(data: DataBundle, split: str) -> set[str]:
    part = getattr(data, split)
    return {part.name(i) for i in range(len(part))}


def labels_by_name(data: DataBundle, target: str = "class") -> dict[str, str]:
    return {
        part.name(i): part.classes[target][part.targets_of(target)[i]]
        for part in (data.train, data.val, data.test)
        for i in range(len(part))
    }


WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "labels.csv": lambda table, file: table.to_csv(file, index=False),
    "semicolons.csv": lambda table, file: table.to_csv(file, index=False, sep=";"),
    "excel.csv": lambda table, file: table.to_csv(file, index=False, encoding="utf-8-sig"),
    "unicode text.csv": lambda table, file: table.to_csv(file, index=False, encoding="utf-16", sep="\t"),
    "separator named.csv": lambda table, file: file.write_text("sep=;\n" + table.to_csv(index=False, sep=";")),
    "labels.tsv": lambda table, file: table.to_csv(file, index=False, sep="\t"),
    "labels.jsonl": lambda table, file: table.to_json(file, orient="records", lines=True),
    "pipes.csv": lambda table, file: table.to_csv(file, index=False, sep="|"),
    "spaces.csv": lambda table, file: file.write_text(
        "file, label\n" + "".join(f'{row.file}, "{row.label}"\n' for row in table.itertuples())
    ),
    "labels.parquet": lambda table, file: table.to_parquet(file, index=False),
    "index.parquet": lambda table, file: table.set_index("file").to_parquet(file),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_table_says_the_same(tmp_path: Path, name: str) -> None:
    photos, table = make_photos(tmp_path / "photos"), frame()
    WRITERS[name](table, photos / name)

    data = load_data(photos, labels=name)

    assert labels_by_name(data) == dict(zip(table.file, table.label, strict=True))
    assert data.classes == ("cat", "dog")
    assert "file: file, class: label" in data.layout[0]


def test_a_table_elsewhere_is_found_by_its_path_and_beside_the_images_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "photos")
    frame().to_csv(tmp_path / "here.csv", index=False)
    monkeypatch.chdir(tmp_path)

    data = load_data("photos", labels="here.csv")

    assert data.spec.labels is not None
    assert data.spec.labels.table == str(tmp_path / "here.csv")  # means the same from any folder
    frame(label=["x"] * (N // 2) + ["y"] * (N // 2)).to_csv(photos / "here.csv", index=False)
    assert load_data("photos", labels="here.csv").classes == ("x", "y")


@pytest.mark.parametrize("written", ["images/007.png", "007.png", "007", "./images/007.png"])
def test_a_file_is_known_by_its_path_its_name_or_its_name_without_ending(tmp_path: Path, written: str) -> None:
    photos, table = make_photos(tmp_path / "photos"), frame()
    table.loc[7, ["file", "label"]] = [written, "eel"]
    table.loc[8, "label"] = "eel"
    table.to_csv(photos / "labels.csv", index=False)

    assert labels_by_name(load_data(photos, labels="labels.csv"))["images/007.png"] == "eel"


@pytest.mark.parametrize(
    "written", ["a/1.png", "a\\1.png", "/a/1.png", "C:\\set\\a\\1.png", "/home/me/set/a/1.png", "a/1"]
)
def test_a_path_of_another_machine_is_known_by_its_end(tmp_path: Path, written: str) -> None:
    for k, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(encoded(noise(8, 8, 3, k)))
    assert _Finder(read_tree(tmp_path)).find(tmp_path, written) == tmp_path / "a" / "1.png"


def test_a_file_that_is_not_in_its_folder_is_not_that_of_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for place in ("b/1.png", "2.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(encoded(noise(8, 8, 3, 0)))
    finder = _Finder(read_tree(tmp_path))
    assert {finder.find(tmp_path, name) for name in ("a/1.png", "a/1", "a/2.png")} == {"is not there"}
    assert finder.find(tmp_path, "gone/1.png") == tmp_path / "b" / "1.png"


@pytest.mark.parametrize("name", ["x" * 600, "a\0b"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    photos = make_photos(tmp_path / "photos")
    pd.concat([frame(), pd.DataFrame({"file": [name], "label": ["cat"]})]).to_json(
        photos / "t.jsonl", orient="records", lines=True
    )
    assert load_data(photos, labels="t.jsonl", skip_bad=True).left_out == ((name, "is not there"),)


def test_empty_rows_of_a_spreadsheet_are_none(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    (photos / "t.csv").write_text(frame().to_csv(index=False) + ",\n,\n\n")
    assert len(labels_by_name(load_data(photos, labels="t.csv"))) == N
    (photos / "t.csv").write_text(frame().to_csv(index=False) + ",cat\n")
    with pytest.raises(DataError, match=r"row 41 of t\.csv: names no file"):
        load_data(photos, labels="t.csv")


def test_columns_of_other_names_are_named(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    table = frame(age=range(N)).rename(columns={"file": "picture", "label": "diagnosis"})
    table.to_csv(photos / "t.csv", index=False)

    with pytest.raises(DataError, match=r"has the columns picture, diagnosis, age; expected one of files"):
        load_data(photos, labels="t.csv")
    with pytest.raises(UnknownNameError, match=r"'diagnose'.*did you mean 'diagnosis'"):
        load_data(photos, labels={"table": "t.csv", "file": "picture", "label": "diagnose"})
    data = load_data(photos, labels={"table": "t.csv", "file": "picture", "label": "diagnosis"})
    assert data.classes == ("cat", "dog")
    assert "columns that are not used: age" in data.layout


def test_numbers_are_classes_in_the_order_of_numbers(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    for kind in (int, float):
        frame(label=[kind(k % 11) for k in range(N)]).to_csv(photos / "t.csv", index=False)
        assert load_data(photos, labels="t.csv").classes == tuple(str(kind(k)) for k in range(11))


def test_text_labels_of_whole_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 8, 8), np.uint8)
    np.savez(tmp_path / "set.npz", x=pixels, y=np.array([str(k % 12) for k in range(24)]))
    data = load_data(tmp_path / "set.npz")
    assert data.classes == tuple(map(str, range(12)))
    assert {name: int(label) for name, label in labels_by_name(data).items()} == {
        f"set.npz image {k}": k % 12 for k in range(24)
    }


def test_usual_names_of_columns_are_known_in_capitals(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    table = frame(split=["train"] * (N - 8) + ["val"] * 4 + ["test"] * 4, group=[f"g{k}" for k in range(N)])
    table.rename(columns=str.title).to_csv(photos / "t.csv", index=False)

    data = load_data(photos, labels="t.csv")

    assert labels_by_name(data) == dict(zip(table.file, table.label, strict=True))
    assert (len(data.val), len(data.test)) == (4, 4)
    assert "file: File, class: Label, group: Group" in data.layout[0]


def test_of_two_columns_the_one_with_the_usual_name_is_taken(tmp_path: Path) -> None:
    photos, table = make_photos(tmp_path / "photos"), frame()
    table.insert(0, "Label", ["other"] * N)
    table.to_csv(photos / "t.csv", index=False)
    assert load_data(photos, labels="t.csv").classes == ("cat", "dog")


def test_several_columns_of_labels_are_several_targets(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    table = frame(site=["left" if k % 2 else "right" for k in range(N)])
    table.to_csv(photos / "t.csv", index=False)

    data = load_data(photos, labels={"table": "t.csv", "label": ["label", "site"]})

    assert data.train.classes == {"class": ("cat", "dog"), "label": ("cat", "dog"), "site": ("left", "right")}
    assert labels_by_name(data, "site") == dict(zip(table.file, table.site, strict=True))


def test_a_column_called_class_is_the_first_of_several(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    table = frame(colour=["red" if k % 2 else "blue" for k in range(N)]).rename(columns={"label": "class"})
    table.to_csv(photos / "t.csv", index=False)

    data = load_data(photos, labels={"table": "t.csv", "label": ["class", "colour"]})

    assert data.train.classes == {"class": ("cat", "dog"), "colour": ("blue", "red")}
    assert data.layout[0].endswith("file: file, target: class, target: colour")
    for columns, message in [
        (["colour", "class"], "the first column becomes the target 'class'; give the column 'class' first"),
        (["colour", "colour"], "the column 'colour' is named twice; name each once"),
    ]:
        with pytest.raises(SettingError, match=message):
            load_data(photos, labels={"table": "t.csv", "label": columns})


def test_a_column_of_labels_called_group_makes_no_groups(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    frame().rename(columns={"label": "group"}).to_csv(photos / "t.csv", index=False)
    data = load_data(photos, labels={"table": "t.csv", "label": "group"})
    assert (data.classes, len(data.test)) == (("cat", "dog"), 4)


def test_the_split_column_divides(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    splits = ["Training"] * 24 + ["validation"] * 8 + ["test"] * 8
    frame(split=splits).to_csv(photos / "t.csv", index=False)

    data = load_data(photos, labels="t.csv")

    assert (len(data.train), len(data.val), len(data.test)) == (24, 8, 8)
    assert names_of(data, "test") == {f"images/{k:03}.png" for k in range(32, 40)}
    frame(split=["holdout"] * N).to_csv(photos / "t.csv", index=False)
    with pytest.raises(DataError, match="'holdout' is no split; expected train, val or test"):
        load_data(photos, labels="t.csv")


def test_folders_called_like_splits_divide_where_no_column_does(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 30, "train")
    make_photos(tmp_path / "photos", 10, "test")
    for k in range(10):
        (photos / "test" / f"{k:03}.png").write_bytes(encoded(noise(8, 8, 3, 100 + k)))
    files = [f"train/{k:03}.png" for k in range(30)] + [f"test/{k:03}.png" for k in range(10)]
    pd.DataFrame({"file": files, "label": ["a", "b"] * 20}).to_csv(photos / "t.csv", index=False)

    data = load_data(photos, labels="t.csv")

    assert names_of(data, "test") == set(files[30:])
    assert "splits by folder: test, train" in data.layout


def test_names_of_files_that_are_called_like_splits_divide_nothing(tmp_path: Path) -> None:
    files = [f"{'test' if k < 20 else 'train'}_{k}.png" for k in range(N)]
    for k, file in enumerate(files):
        (tmp_path / file).write_bytes(encoded(noise(8, 8, 3, k)))
    frame().assign(file=files).to_csv(tmp_path / "t.csv", index=False)

    data = load_data(tmp_path, labels="t.csv")

    assert len(data.test) == 4
    assert not [line for line in data.layout if "splits by folder" in line]


def test_a_file_that_is_not_there_leaves_the_splits_of_the_folders(tmp_path: Path) -> None:
    photos = make_photos(make_photos(tmp_path / "photos", 30, "train"), 10, "test")
    for k in range(10):
        (photos / "test" / f"{k:03}.png").write_bytes(encoded(noise(8, 8, 3, 100 + k)))
    files = [f"train/{k:03}.png" for k in range(30)] + [f"test/{k:03}.png" for k in range(10)] + ["lost.png"]
    pd.DataFrame({"file": files, "label": ["a", "b"] * 20 + ["a"]}).to_csv(photos / "t.csv", index=False)

    data = load_data(photos, labels="t.csv", skip_bad=True)

    assert names_of(data, "test") == set(files[30:40])
    assert data.left_out == (("lost.png", "is not there"),)


def faulty(photos: Path) -> pd.DataFrame:
    table = frame()
    table.loc[3, "label"] = ""
    table.loc[5, "file"] = "images/lost.png"
    table = pd.concat([table, table.iloc[[9]].assign(label="eel"), table.iloc[[10]]])
    table.to_csv(photos / "t.csv", index=False)
    return table


def test_what_is_wrong_is_named_and_counted(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    faulty(photos)

    message = r"003.png: has no label in t.csv \(and 2 more such rows: images/lost.png, images/009.png\)"
    with pytest.raises(DataError, match=message):
        load_data(photos, labels="t.csv")
    data = load_data(photos, labels="t.csv", skip_bad=True)

    assert [(Path(name).name, reason) for name, reason in data.left_out] == [
        ("003.png", "has no label in t.csv"),
        ("lost.png", "is not there"),
        ("009.png", "has two rows in t.csv that differ: cat and eel"),
    ]
    assert "2 rows name a file again" in data.layout
    assert "passed over: 1 image files without a row: images/005.png" in data.layout
    assert sum(len(part) for part in (data.train, data.val, data.test)) == N - 3


def test_a_file_in_two_splits_is_named(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    table = frame(split=["train"] * 30 + ["test"] * 10)
    pd.concat([table, table.iloc[[5]].assign(split="test")]).to_csv(photos / "t.csv", index=False)
    with pytest.raises(DataError, match=r"005.png: has two rows in t.csv that differ: cat/train and cat/test;"):
        load_data(photos, labels="t.csv")


def test_a_whole_number_that_is_missing_in_a_parquet_table_is_no_label(tmp_path: Path) -> None:
    photos, table = make_photos(tmp_path / "photos"), frame()
    table["label"] = pd.array([None, *[k % 2 for k in range(1, N)]], dtype="Int64")
    table.to_parquet(photos / "t.parquet")
    data = load_data(photos, labels="t.parquet", skip_bad=True)
    assert data.classes == ("0", "1")
    assert data.left_out == ((str(photos / "images/000.png"), "has no label in t.parquet"),)


def test_a_name_that_two_files_have_is_not_guessed(tmp_path: Path) -> None:
    photos = make_photos(make_photos(tmp_path / "photos"), 3, "more")
    table = frame()
    table.loc[1, "file"] = "001"
    table.to_csv(photos / "t.csv", index=False)
    with pytest.raises(DataError, match="001: is the name of 2 files"):
        load_data(photos, labels="t.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read as a table"),
        ("t.csv", b"file,label\n", "has no rows"),
        ("t.csv", b"file,label\n\xff\xfe,cat\n", "is not written in UTF-8"),
        ("t.csv", b"picture,kind\na,b\n", "has the columns picture, kind"),
        ("t.csv", b"file,label\na,b,c,d\n", "cannot be read as a table"),
        ("t.csv", b"file,label\nimages/000.png,\n", "holds no label"),
        ("t.jsonl", b"{", "cannot be read as a table"),
        ("t.jsonl", b'{"file": "images/000.png", "label": [1]}\n', "is no word and no whole number"),
        ("t.parquet", b"PAR1", "cannot be read as a table"),
        ("t.xlsx", b"", "is no table of labels; give a .csv"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    (photos / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_data(photos, labels=name)
    assert "\n" not in str(caught.value)


def test_settings_of_labels_that_do_not_go_together(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    for labels, message in [
        ({"table": "a.csv", "pattern": "(?P<label>a)"}, "exclude each other"),
        ({"pattern": "(a"}, "is no regular expression"),
        ({"pattern": "(" * 5000}, "is no regular expression"),
        ({"pattern": "(a)(b)"}, "names no label"),
        ({"tabel": "a.csv"}, "tabel"),
    ]:
        with pytest.raises(SettingError, match=message):
            load_data(photos, labels=labels)
    with pytest.raises(DataError, match="there is no such table of labels"):
        load_data(photos, labels="none.csv")
    with pytest.raises(DataError, match="needs a table or a pattern"):
        load_data(photos, labels={"label": "x"})
    with pytest.raises(SettingError, match="lines have their own"):
        load_data("lines", labels="a.csv")


def test_a_folder_with_a_table_says_how_to_use_it(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    frame().to_csv(photos / "labels.csv", index=False)
    with pytest.raises(DataError, match=r"images would be the only class; .* set data\.labels=labels.csv"):
        load_data(photos)
    with pytest.raises(DataError, match=r"no class folders in it; .* set data\.labels=labels.csv"):
        load_data(make_flat(photos))
    frame().to_csv(photos / "examples.csv", index=False)
    with pytest.raises(DataError, match=r"labels in examples.csv or labels.csv\? Then set data.labels=NAME"):
        load_data(photos)


def make_flat(photos: Path) -> Path:
    for file in sorted((photos / "images").iterdir()):
        file.rename(photos / file.name)
    (photos / "images").rmdir()
    return photos


def test_labels_are_cut_from_the_names_of_files(tmp_path: Path) -> None:
    photos = tmp_path / "pets"
    photos.mkdir()
    for k in range(N):
        kind = ("great_dane", "beagle")[k % 2]
        (photos / f"{kind}_{k:03}.png").write_bytes(encoded(noise(8, 8, 3, k)))
    (photos / "README.txt").write_text("of the pictures")

    for pattern in (r"^(?P<label>.+)_\d+\.png$", {"pattern": r"^(.+)_\d+"}):
        data = load_data(photos, labels=pattern)
        assert data.classes == ("beagle", "great_dane")
        assert labels_by_name(data)["beagle_001.png"] == "beagle"
    (photos / "unknown.png").write_bytes(encoded(noise(8, 8, 3, 99)))
    with pytest.raises(DataError, match=r"unknown.png: has no label in the pattern"):
        load_data(photos, labels=r"^(?P<label>.+)_\d+\.png$")
    with pytest.raises(DataError, match=r"none of 41 image files .* fits the pattern"):
        load_data(photos, labels=r"(?P<label>\d+)_x")


def test_a_pattern_that_takes_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this name it would try 2 to the power of 60 ways."""
    monkeypatch.setattr("convscope.data.labels._LIMIT_S", 1)
    (tmp_path / f"{'a' * 60}!.png").write_bytes(encoded(noise(8, 8, 3, 0)))
    with pytest.raises(DataError, match=r"takes more than 1 s on 1 names of files; write it without a repetition"):
        load_data(tmp_path, labels=r"(?P<label>(a+)+)$")


def test_a_pattern_on_names_that_are_no_text() -> None:
    found = search_all(r"(?P<label>[a-z]+)(_(?P<group>\d))?", ["caf\udce9_1", "\udce9", "x_2"])
    assert found == {"label": ["caf", "", "x"], "group": ["", "", "2"]}
    assert search_all("^(.)", ["\udce9"]) == {"label": ["\udce9"]}
    assert search_all("(a)", []) == {"label": []}


@pytest.mark.parametrize("by_split", [False, True])
def test_metadata_of_the_hub(tmp_path: Path, by_split: bool) -> None:
    photos = tmp_path / "photos"
    splits = ("train", "test") if by_split else ("images",)
    for split in splits:
        make_photos(photos, N, split)
        for k in range(N):
            (photos / split / f"{k:03}.png").write_bytes(encoded(noise(8, 8, 3, k + 100 * splits.index(split))))
        table = frame().rename(columns={"file": "file_name"})
        table["file_name"] = table.file_name.str.replace("images/", "")
        table.to_csv(photos / split / "metadata.csv", index=False)

    data = load_data(photos)

    assert data.classes == ("cat", "dog")
    assert len(data.test) == (N if by_split else N // 10)
    assert data.test.name(0).startswith("test/" if by_split else "images/")


def test_metadata_without_labels_leaves_the_folders_their_meaning(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("ant", "bee"):
        make_photos(photos, N, name)
        for k in range(N):
            (photos / name / f"{k:03}.png").write_bytes(encoded(noise(8, 8, 3, k + 100 * (name == "bee"))))
    (photos / "metadata.jsonl").write_text(json.dumps({"file_name": "ant/000.png", "text": "an ant"}) + "\n")
    assert load_data(photos).classes == ("ant", "bee")


def assert_groups_apart(data: DataBundle, group_of: dict[str, Any]) -> None:
    groups = [{group_of[name] for name in names_of(data, split)} for split in ("train", "val", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups))


@pytest.mark.parametrize("split", [None, "60/40", "70/10/20", {"folds": 4, "fold": 1}])
def test_images_of_a_group_stay_together(tmp_path: Path, split: Any) -> None:
    photos, n = make_photos(tmp_path / "photos", 240), 240
    patients = np.random.default_rng(0).integers(0, 40, n)
    table = frame(n, patient=patients)
    table.to_csv(photos / "t.csv", index=False)
    labels = {"table": "t.csv", "group": "patient"}

    data = load_data(photos, labels=labels, split=split)

    assert_groups_apart(data, dict(zip(table.file, table.patient, strict=True)))
    wanted = {None: 0.1, "60/40": 0.4, "70/10/20": 0.2}.get(split if isinstance(split, str | None) else "", 0.25)
    assert abs(len(data.test) / n - wanted) < 0.04
    dogs = float((data.test.targets_of() == data.classes.index("dog")).double().mean())
    assert abs(dogs - 0.25) < 0.1
    again = load_data(photos, labels=labels, split=split)
    assert again.digest == data.digest
    assert load_data(photos, labels=labels, split=split, seed=1).digest != data.digest
    loose = load_data(photos, labels="t.csv", split=split)
    with pytest.raises(AssertionError):  # without the groups they are torn apart
        assert_groups_apart(loose, dict(zip(table.file, table.patient, strict=True)))


def test_splits_of_the_source_that_tear_a_group_are_refused(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    frame(split=["train"] * 30 + ["test"] * 10, group=[k // 4 for k in range(N)]).to_csv(photos / "t.csv", index=False)
    with pytest.raises(DataError, match=r"images/030.png \(test\) and images/028.png \(train\) are of one group"):
        load_data(photos, labels="t.csv")


def test_too_few_groups_are_one_line(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    frame(group=["a"] * N).to_csv(photos / "t.csv", index=False)
    with pytest.raises(SettingError, match=r"no image for test \(images: \d+, groups: 1\)"):
        load_data(photos, labels="t.csv")


def test_groups_are_spread_as_evenly_as_scikit_learn_spreads_them() -> None:
    rng = np.random.default_rng(5)
    labels, groups = rng.integers(0, 3, 600), rng.integers(0, 60, 600)
    overall = np.bincount(labels) / len(labels)

    def unevenness(folds: list[np.ndarray]) -> float:
        return max(float(np.abs(np.bincount(labels[fold], minlength=3) / len(fold) - overall).max()) for fold in folds)

    places = by_groups(labels, groups, [0.2] * 5, np.random.default_rng(0))
    ours = [np.flatnonzero(places == k) for k in range(5)]
    sizes = [len(fold) for fold in ours]
    theirs = [test for _, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)]
    assert max(sizes) - min(sizes) <= 15
    assert unevenness(ours) <= 1.5 * unevenness(theirs) + 0.01


def test_folds_are_disjoint_and_cover_all(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    frame().to_csv(photos / "t.csv", index=False)
    folds = [load_data(photos, labels="t.csv", split={"folds": 5, "fold": fold}) for fold in range(5)]

    tested = [names_of(data, "test") for data in folds]
    assert set.union(*tested) == {f"images/{k:03}.png" for k in range(N)}
    assert sum(map(len, tested)) == N
    assert {int((data.test.targets_of() == 1).sum()) for data in folds} == {2}  # 10 dogs in 5 folds
    assert all(not names_of(data, "test") & (names_of(data, "train") | names_of(data, "val")) for data in folds)
    assert all(len(data.val) == round(len(data.train) / 9) or len(data.val) == 3 for data in folds)
    with pytest.raises(SettingError, match="none of the 5 folds is chosen"):
        load_data(photos, labels="t.csv", split={"folds": 5})
    with pytest.raises(SettingError, match="fold 5 is none of the 5"):
        load_data(photos, labels="t.csv", split={"folds": 5, "fold": 5})


def test_parquet_files_have_other_targets_and_groups(tmp_path: Path) -> None:
    n = 120
    images = [{"bytes": encoded(noise(8, 8, 3, k))} for k in range(n)]
    table = pd.DataFrame({"image": images, "grade": [k % 3 for k in range(n)], "site": ["a", "b"] * (n // 2)})
    table["patient"] = [f"p{k // 5}" for k in range(n)]
    table.to_parquet(tmp_path / "set.parquet")

    data = load_data(tmp_path / "set.parquet", labels={"label": ["grade", "site"], "group": "patient"})

    assert data.train.classes == {"class": ("0", "1", "2"), "grade": ("0", "1", "2"), "site": ("a", "b")}
    assert_groups_apart(data, {f"set.parquet row {k}": k // 5 for k in range(n)})
    with pytest.raises(UnknownNameError, match="'patients'"):
        load_data(tmp_path / "set.parquet", labels={"label": "grade", "group": "patients"})
    with pytest.raises(DataError, match="holds its labels itself"):
        load_data(tmp_path / "set.parquet", labels="t.csv")


def write_table(file: Path, n: int = N, first: int = 0, **columns: list[Any]) -> Path:
    """A parquet file of images and these columns, whose label is a ClassLabel called `kind`."""
    images = [{"bytes": encoded(noise(8, 8, 3, first + k))} for k in range(n)]
    table = pa.table({"image": images, "kind": [k % 2 for k in range(n)], **columns})
    features = {"kind": {"_type": "ClassLabel", "names": ["ant", "bee"]}}
    note = json.dumps({"info": {"features": features}})
    pq.write_table(table.replace_schema_metadata({"huggingface": note}), file)
    return file


def test_a_parquet_file_needs_no_name_of_its_column_of_labels_beside_that_of_groups(tmp_path: Path) -> None:
    file = write_table(tmp_path / "set.parquet", patient=[f"p{k // 4}" for k in range(N)])
    data = load_data(file, labels={"group": "patient"})
    assert data.classes == ("ant", "bee")
    assert_groups_apart(data, {f"set.parquet row {k}": k // 4 for k in range(N)})


def test_a_null_in_a_group_column_is_a_group_of_its_own(tmp_path: Path) -> None:
    """20 rows of 5 patients, and 20 without one, as in a table of text."""
    patients = [k // 4 if k < 20 else None for k in range(N)]
    write_table(tmp_path / "set.parquet", patient=patients)
    photos = make_photos(tmp_path / "photos")
    frame(patient=["" if patient is None else str(patient) for patient in patients]).to_csv(photos / "t.csv")

    for source, labels in [(tmp_path / "set.parquet", {}), (photos, {"table": str(photos / "t.csv")})]:
        _, found = find(make_spec(source, {"labels": labels | {"group": "patient"}}))
        assert found.groups is not None
        assert found.groups.tolist() == [k // 4 for k in range(20)] + list(range(5, 25))


def test_a_null_in_a_split_column_is_named_or_left_out(tmp_path: Path) -> None:
    splits: list[Any] = ["train"] * 30 + ["test"] * 9 + [None]
    file = write_table(tmp_path / "set.parquet", part=splits)
    with pytest.raises(DataError, match=r"set.parquet row 39: has no split in parquet .*set.parquet"):
        load_data(file, labels={"split": "part"})
    data = load_data(file, labels={"split": "part"}, skip_bad=True)
    assert (len(data.train) + len(data.val), len(data.test)) == (30, 9)
    assert data.left_out == ((f"{file} row 39", f"has no split in parquet {file}"),)


def test_an_empty_split_column_leaves_the_splits_of_the_files(tmp_path: Path) -> None:
    for k, name in enumerate(("train", "test")):
        write_table(tmp_path / f"{name}.parquet", first=k * N, part=[None] * N)
    assert len(load_data(tmp_path, labels={"split": "part"}).test) == N


def test_images_know_their_names_in_every_source(tmp_path: Path) -> None:
    pixels = np.stack([noise(8, 8, 3, k) for k in range(N)])
    np.savez(tmp_path / "set.npz", x=pixels, y=np.arange(N) % 2)
    data = load_data(tmp_path / "set.npz")
    for part in (data.train, data.val, data.test):
        for i in range(len(part)):
            row = int(part.name(i).removeprefix("set.npz image "))
            assert (part.pixels[part.index[i]].permute(1, 2, 0).numpy() == pixels[row]).all()
    assert load_data("lines", limit=960).test.name(3) == "image 3"
