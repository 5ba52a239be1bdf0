"""`predict`: rows in every format, files named in every way, and what is said of those that cannot be read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import expect

from convscope.runs import MODEL, Run, read_tensors, write_tensors
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
    said = ", ".join(f"{name} ({n})" for name, n in counts.items())
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


def test_names_that_a_spreadsheet_would_work_out_are_shown(
    command: Command, reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=cmd()|'a'!A0.png", "@sum.png", "+1+1.png", "-x.png", 'a,"b\nc.png', "-5"]
    for name in names:
        Image.new("RGB", (9, 8)).save(name, format="png")
    done = command("predict", reported.path, "--out", "a.csv", "--", *names)
    assert list(pd.read_csv("a.csv")["file"]) == [f"'{name}" for name in names[:4]] + names[4:]
    written = pd.read_csv("a.csv", dtype=str)["probability"]
    assert list(written) == [
        str(np.float32(one)) for one in reported.predict(names)["probability"]
    ]  # with no digit more
    done = command("predict", reported.path, "--json", "--", *names)
    assert [json.loads(line)["file"] for line in done.out.splitlines()] == names


def test_what_is_said_is_one_line_each_whatever_a_file_is_called(
    command: Command, reported: Run, tmp_path: Path
) -> None:
    (tmp_path / "a\nb.png").write_bytes(b"")
    Image.new("RGB", (9, 8)).save(tmp_path / "c.png")
    done = command("predict", reported.path, tmp_path / "a\nb.png", tmp_path / "c.png")
    assert done.err.splitlines()[1] == rf"1 file could not be read: {tmp_path}/a\nb.png is no image"
    assert "1 image: " in done.err
    assert r"d\ne.png: there is no such file" in command("predict", reported.path, "d\ne.png").complaint


def test_a_large_image_is_read_without_a_warning(
    command: Command, reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "large.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 400)  # Pillow warns, and refuses from twice as many on
    done = command("predict", reported.path, tmp_path / "large.png")
    assert (done.status, len(done.err.splitlines())) == (0, 1)
    assert reported.predict(tmp_path / "large.png")["problem"][0] == ""


def test_occlusion_explains_too_and_no_lens_does_not(command: Command, reported: Run, photos: Path) -> None:
    done = command("predict", reported.path, photos, "--explain", "occlusion", "--page", photos / "a.html")
    assert (done.status, (photos / "a.html").exists()) == (0, True)
    assert "attribution lens '' is not one of" in command("predict", reported.path, photos, "--explain", "").complaint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input_shape": [3, 8]}, "lacks the card that convscope writes"),
        ({"input_shape": "abc"}, "lacks the card that convscope writes"),
        ({"input_shape": [3, -8, -8]}, "lacks the card that convscope writes"),
        ({"std": [0, 0, 0]}, "lacks the card that convscope writes"),
        ({"std": [1e999, 1, 1]}, "lacks the card that convscope writes"),
        ({"mean": ["a", "b", "c"]}, "lacks the card that convscope writes"),
        ({"mean": [0.5]}, "lacks the card that convscope writes"),
        ({"classes": {"class": [1, 2, 3]}}, "lacks the card that convscope writes"),
    ],
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_a_run_whose_card_cannot_be_is_refused_in_one_line(
    command: Command, reported: Run, photos: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    shutil.copytree(reported.path, tmp_path / "run")
    tensors, card = read_tensors(reported.path / MODEL)
    write_tensors(tmp_path / "run" / MODEL, tensors, card | change)
    for words in (
        ("predict", photos),
        ("export", "--out", tmp_path / "a.safetensors"),
        ("card", "--out", tmp_path / "card"),
    ):
        done = command(words[0], tmp_path / "run", *words[1:])
        assert done.status == 2
        assert said in done.complaint
    assert not (tmp_path / "card").exists()
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("closed", ["0", *(pytest.param(one, marks=pytest.mark.slow) for one in "12")])
def test_a_closed_stream_is_like_none(reported: Run, photos: Path, closed: str) -> None:
    words = "-" if closed == "0" else str(photos / "0.png")
    line = f'"$0" -m convscope predict "$1" {words} {closed}>&-'
    found = subprocess.run(
        ["sh", "-c", line, sys.executable, str(reported.path)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in found.stderr
    assert "unexpected" not in found.stderr
    assert found.returncode == (2 if closed == "0" else 0)
    assert ("no images are given" in found.stderr) == (closed == "0")


def test_names_on_stdin_need_not_be_text(reported: Run, photos: Path) -> None:
    name = photos / "caf\udce9.png"
    (photos / "0.png").rename(name)
    found = subprocess.run(
        [sys.executable, "-m", "convscope", "predict", str(reported.path), "-"],
        input=os.fsencode(name) + b"\r\n", capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert rb"caf\udce9.png," in found.stdout


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
