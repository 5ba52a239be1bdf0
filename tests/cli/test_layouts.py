"""`convscope data` on folders laid out in many ways: what it understood, or why it refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.data.samples import encoded, noise

UNDERSTOOD: dict[str, tuple[list[str], list[str], list[str]]] = {
    "classes alone": (["ant", "bee"], ["ant", "bee"], ["all: 2 classes, 12 files in the folder itself"]),
    "all three splits": (
        ["train/ant", "train/bee", "val/ant", "val/bee", "test/ant", "test/bee"],
        ["ant", "bee"],
        ["train: 2 classes, 12 files in train", "val: 2 classes, 12 files in val", "test: 2 classes, 12 files in test"],
    ),
    "splits in capitals": (
        ["Training/ant", "Training/bee", "Validation/ant", "Validation/bee"],
        ["ant", "bee"],
        ["train: 2 classes, 12 files in Training", "val: 2 classes, 12 files in Validation"],
    ),
    "_set": (
        ["train_set/ant", "train_set/bee", "test_set/ant", "test_set/bee"],
        ["ant", "bee"],
        ["train: 2 classes, 12 files in train_set", "test: 2 classes, 12 files in test_set"],
    ),
    "seg_ twice": (
        ["seg_train/seg_train/ant", "seg_train/seg_train/bee", "seg_test/seg_test/ant", "seg_test/seg_test/bee"],
        ["ant", "bee"],
        ["train: 2 classes, 12 files in seg_train/seg_train", "test: 2 classes, 12 files in seg_test/seg_test"],
    ),
    "one word": (
        ["trainset/ant", "trainset/bee", "TestImages/ant", "TestImages/bee"],
        ["ant", "bee"],
        ["train: 2 classes, 12 files in trainset", "test: 2 classes, 12 files in TestImages"],
    ),
    "wrapped twice": (
        ["data/data/train/ant", "data/data/train/bee", "data/data/test/ant", "data/data/test/bee"],
        ["ant", "bee"],
        ["train: 2 classes, 12 files in data/data/train", "test: 2 classes, 12 files in data/data/test"],
    ),
    "wrapped classes": (["archive/ant", "archive/bee"], ["ant", "bee"], ["all: 2 classes, 12 files in archive"]),
    "images inside the splits": (
        ["train/images/ant", "train/images/bee", "test/images/ant", "test/images/bee"],
        ["ant", "bee"],
        ["train: 2 classes, 12 files in train/images", "test: 2 classes, 12 files in test/images"],
    ),
    "train alone": (["train/ant", "train/bee"], ["ant", "bee"], ["all: 2 classes, 12 files in train"]),
    "test alone": (["test/ant", "test/bee"], ["ant", "bee"], ["all: 2 classes, 12 files in test"]),
    "a vehicle called train": (
        ["bus", "car", "train"],
        ["bus", "car", "train"],
        [
            "all: 3 classes, 18 files in the folder itself",
            "train is taken for a class, though it is called like a split",
        ],
    ),
    "a vehicle in splits": (
        ["train/bus", "train/train", "test/bus", "test/train"],
        ["bus", "train"],
        [
            *("train: 2 classes, 12 files in train", "test: 2 classes, 12 files in test"),
            "train is taken for a class, though it is called like a split",
        ],
    ),
    "valid and invalid": (
        ["valid/first", "valid/second", "invalid/first", "invalid/second"],
        ["invalid", "valid"],
        [
            "all: 2 classes, 24 files in the folder itself",
            "invalid: files of 2 sub-folders among them",
            "valid is taken for a class, though it is called like a split",
            "valid: files of 2 sub-folders among them",
        ],
    ),
    "classes that are divided further": (
        ["ant/left", "ant/right", "bee"],
        ["ant", "bee"],
        ["all: 2 classes, 18 files in the folder itself", "ant: files of 2 sub-folders among them"],
    ),
    "one test class, divided further": (
        ["train/ant", "train/bee", "test/ant/left", "test/ant/right"],
        ["ant", "bee"],
        [
            *("train: 2 classes, 12 files in train", "test: 1 class, 12 files in test"),
            "ant: files of 2 sub-folders among them",
        ],
    ),
    "system files and notes": (
        ["train/ant", "train/bee", "__MACOSX/train/ant", ".cache/ant", "README.md:", "train/labels.csv:", "logs/"],
        ["ant", "bee"],
        ["train: 2 classes, 12 files in train"],
    ),
}

REFUSED: dict[str, tuple[list[str], str]] = {
    "empty": ([], "no class folders in it"),
    "images without folders": ([":6"], "no class folders in it"),
    "images beside classes": (["ant", "bee", ":1"], "1 image (0.png …) beside the class folders has no class"),
    "an empty class": (["ant", "bee", "cat/"], "cat: this class folder is empty"),
    "an empty split": (["train/ant", "train/bee", "test/"], "test is called like the split test and is empty"),
    "test images without classes": (
        ["train/ant", "train/bee", "test"],
        "test is called like the split test and holds images, but no class folders",
    ),
    "splits without classes": (["train", "test"], "test and train are called like splits, and none is a train/"),
    "no train": (["val/ant", "val/bee", "test/ant", "test/bee"], "test and val are called like splits"),
    "two trains": (["train/ant", "train/bee", "training/ant", "test/ant"], "train and training are both called like train"),
    "a folder beside the splits": (["train/ant", "train/bee", "test/ant", "pred"], "pred is none"),
    "train among classes": (["bus", "car", "train/steam", "train/diesel"], "train is a split, and bus is none"),
    "test beside its classes": (["ant", "bee", "test/ant", "test/bee"], "test holds class folders and lies beside them"),
    "a copy of itself": (["train/ant", "train/bee", "data/train/ant", "data/train/bee"], "data is none"),
    "splits below the classes": (
        ["ant/train", "ant/test", "bee/train", "bee/test"],
        "ant holds splits of its own; put the splits above the classes",
    ),
    "images and masks": (["images", "masks"], "images and masks are no classes"),
    "images and their notes": (["pictures/ant", "pictures/bee", "notes/a.xml:"], "notes holds no image files"),
    "a class of the test alone": (["train/ant", "test/ant", "test/cat"], "class 'cat' has images, but none in train"),
}  # fmt: skip


def make(root: Path, places: list[str], n: int = 6) -> Path:
    """Folders of `n` images, or as many as stand behind a colon; a text file where nothing does; empty folders with a `/`."""
    root.mkdir()
    for k, place in enumerate(places):
        name, colon, count = place.partition(":")
        if colon and not count:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("six legs")
            continue
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(0 if name.endswith("/") else int(count or n)):
            (root / name / f"{i}.png").write_bytes(encoded(noise(8, 8, 3, 100 * k + i)))
    return root


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_a_layout_is_understood_and_shown(name: str, command: Command, tmp_path: Path) -> None:
    places, classes, lines = UNDERSTOOD[name]
    found = command("data", make(tmp_path / "pictures", places), "--json").json
    assert found["classes"]["class"] == classes
    passed_over = [line for line in found["layout"] if line.startswith("passed over: ")]
    assert [line for line in found["layout"] if line not in passed_over] == lines
    used = [place for place in places if place[0] not in "._" and place[-1] not in ":/"]
    assert sum(found["images"].values()) == 6 * len(used)
    shown = command("data", tmp_path / "pictures").out
    assert all(f"  {line}\n" in shown for line in found["layout"])


@pytest.mark.parametrize("name", REFUSED)
def test_an_unclear_layout_is_refused_with_its_folders_named(name: str, command: Command, tmp_path: Path) -> None:
    places, message = REFUSED[name]
    answer = command("data", make(tmp_path / "pictures", places))
    assert answer.status == 2
    assert message in answer.complaint
    assert "expected train/<class>/…" in answer.complaint or "empty" in message or "in train" in message


def test_what_is_used_for_nothing_is_said(command: Command, tmp_path: Path) -> None:
    places = ["train/ant", "train/bee", "test/ant", "test/bee", "README.md:", "train/labels.csv:", "logs/"]
    found = command("data", make(tmp_path / "pictures", places), "--json").json["layout"]
    assert found[2:] == [f"passed over: {name}" for name in ("README.md", "logs", "train/labels.csv")]
