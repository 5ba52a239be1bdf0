"""`predict`: rows in every format, files named in every way, and what is said of those that cannot be read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import expect

from convscope.runs import Run
from tests.cli.conftest import Command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder, random = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for n in range(3):
        Image.fromarray(random.integers(0, 256, (10, 12, 3), np.uint8)).save(folder / f"{n}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def test_rows_in_every_format_are_those_of_python(
    command: Command, reported: Run, photos: Path, tmp_path: Path
) -> None:
    expected = reported.predict(photos, top=2)
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        "csv": lambda path: pd.read_csv(path, dtype={"class": str, "class 2": str}).fillna({"problem": ""}),
        "tsv": lambda path: pd.read_csv(path, sep="\t", dtype={"class": str, "class 2": str}).fillna({"problem": ""}),
        "jsonl": lambda path: pd.read_json(path, lines=True, dtype=False),
        "parquet": pd.read_parquet,
    }
    for ending, read in readers.items():
        out = tmp_path / f"answers.{ending}"
        done = command("predict", reported.path, photos, "--top", "2", "--out", out)
        found = read(out)
        assert list(found) == list(expected)
        assert list(found["file"]) == list(expected["file"])
        assert list(found["problem"]) == list(expected["problem"])
        for column in ("class", "class 2"):
            assert found[column].dropna().tolist() == expected[column].dropna().tolist()
            assert found[column].isna().tolist() == expected[column].isna().tolist()
        values = pd.to_numeric(found["probability"]).to_numpy(float)
        assert values == pytest.approx(expected["probability"].to_numpy(float), nan_ok=True)
        assert done.out == ""


def test_without_a_file_the_rows_are_on_stdout_and_all_else_is_not(
    command: Command, reported: Run, photos: Path
) -> None:
    done = command("predict", reported.path, photos)
    lines = done.out.splitlines()
    assert lines[0] == "file,class,probability,problem"
    assert len(lines) == 5
    counts = reported.predict(photos)["class"].value_counts()
    said = ", ".join(f"{n} {name}" for name, n in counts.items())
    assert done.err.splitlines() == [
        f"3 images: {said}",
        f"1 file could not be read: {photos / 'bad.png'} is no image",
    ]
    rows = [json.loads(line) for line in command("predict", reported.path, photos, "--json").out.splitlines()]
    assert [row["problem"] for row in rows] == ["", "", "", "is no image"]
    assert rows[3]["class"] is None


def test_names_come_from_stdin(command: Command, reported: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos / '1.png'}\n{photos / '0.png'}\n"))
    lines = command("predict", reported.path, "-").out.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [str(photos / "1.png"), str(photos / "0.png")]


def test_strict_is_status_one_and_nothing_readable_status_two(command: Command, reported: Run, photos: Path) -> None:
    assert command("predict", reported.path, photos).status == 0
    assert command("predict", reported.path, photos, "--strict").status == 1
    assert command("predict", reported.path, photos / "0.png", "--strict").status == 0
    none = command("predict", reported.path, photos / "bad.png", "--out", photos / "answers.csv")
    assert not (photos / "answers.csv").exists()
    assert (none.status, none.complaint) == (2, f"{photos / 'bad.png'}: is no image; none of 1 files could be read")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("none.png",), "none.png: there is no such file or folder"),
        (("PHOTOS", "--out", "a.xlsx"), "--out a.xlsx: expected a name that ends in .csv"),
        (("PHOTOS", "--tta", "rotate"), "view 'rotate' is not one of"),
        (("PHOTOS", "--explain", "grad_cm"), "did you mean 'grad_cam'?"),
        (("PHOTOS", "--page", "a.html"), "--page: it is the page of --explain"),
        (("PHOTOS", "--explain", "saliency", "--page", "a.png"), "--page a.png: expected a page"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    command: Command, reported: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], expected: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = command("predict", reported.path, *(str(photos) if word == "PHOTOS" else word for word in words))
    assert done.status == 2
    assert expected in done.complaint
    assert done.out == ""
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_shows_each_image_with_its_answers(
    command: Command,
    reported: Run,
    photos: Path,
    tmp_path: Path,
    open_page: Callable[..., Any],
    width: int,
    scheme: str,
) -> None:
    page_file = tmp_path / "answers.html"
    command("predict", reported.path, photos, "--explain", "grad_cam", "--page", page_file)
    expected = reported.predict(photos).dropna()
    with open_page(page_file, width=width, scheme=scheme) as page:
        expect(page.locator("figure")).to_have_count(3)
        assert page.locator("figure li:first-child b").all_inner_texts() == list(expected["class"])
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
