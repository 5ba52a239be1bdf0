"""convscope compare, as a user calls it."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.study import compare
from tests.cli.conftest import Command
from tests.planted import Plant


@pytest.fixture
def pair(plant: Plant, tmp_path: Path) -> tuple[Path, Path]:
    plant("a", wrong=range(5))
    plant("b", wrong=range(3, 22), width=4)
    return tmp_path / "a", tmp_path / "b"


def test_verdict_settings_figures_and_looks(command: Command, pair: tuple[Path, Path]) -> None:
    found = command("compare", *pair)
    assert found.status == 0
    assert "a is better than b by 11.7 points (" in found.out
    lines = [line.split() for line in found.out.splitlines()]
    assert ["net.width", "6", "4"] in lines
    assert ["test", "accuracy", "a", "95.83", "%"] in [line[:5] for line in lines]
    assert "only one of them gets right: 17 by a; 3 by b" in found.out
    assert "looked at for 2 runs" in found.out
    assert "Choose between runs by their validation figures" in found.out


def test_json_is_that_of_python(command: Command, pair: tuple[Path, Path]) -> None:
    found = command("compare", *pair, "--json").json
    assert found == json.loads(json.dumps({**compare(pair).to_json(), "out": None}))


def test_recipes_come_first_where_there_are_seeds(command: Command, plant: Plant, tmp_path: Path) -> None:
    for seed in range(2):
        for width, wrong in ((4, 20), (8, 3)):
            plant(f"w{width}-s{seed}", wrong=range(wrong + seed * width), width=width, seed=seed)
    found = command("compare", *sorted(path for path in tmp_path.iterdir() if path.is_dir()))
    lines = [line.split() for line in found.out.splitlines()]
    assert "Over seeds, which tells recipes apart" in found.out
    assert "paired t test over 2 seeds" in found.out
    assert ["setting", "w4-s0", "w4-s1", "w8-s0", "w8-s1"] in lines
    assert ["net.width", "4", "4", "8", "8"] in lines
    assert ["net.width", "4", "2"] in [line[:3] for line in lines]
    assert found.out.count("exact McNemar") == 6


def test_more_than_six_pairs_are_one_table(command: Command, plant: Plant, tmp_path: Path) -> None:
    paths = [plant(f"r{seed}", wrong=range(seed * 6), seed=seed).path for seed in range(5)]
    found = command("compare", *paths)
    rows = [line.split() for line in found.out.splitlines() if line.startswith("r") and line.endswith((" yes", " no"))]
    assert [tuple(row[:2]) for row in rows] == [(f"r{i}", f"r{j}") for i in range(5) for j in range(i + 1, 5)]
    assert rows[0][2] == "+5.00"
    assert ["settings", "of", "recipe.seed"] in [line.split() for line in found.out.splitlines()]
    assert "They differ in the seed alone" in found.out


def test_each_pair_of_many_names_its_own_test_where_they_differ(command: Command, plant: Plant, tmp_path: Path) -> None:
    """Five widths, the last of which was run with other seeds."""
    paths = [
        plant(f"w{width}-s{seed}", wrong=range(width + seed * width), width=width, seed=seed + 5 * (width == 5)).path
        for width in range(1, 6)
        for seed in range(2)
    ]
    lines = command("compare", *paths).out.splitlines()
    assert lines[0] == "Over seeds, which tells recipes apart"
    rows = [line for line in lines[1:13] if line.startswith("net.width")]
    assert [("Welch" in row, "paired" in row) for row in rows] == [
        ("width 5" in row, "width 5" not in row) for row in rows
    ]
    assert len(rows) == 10


def test_a_picture_shows_a_sheet_for_each_side(command: Command, pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = command("compare", *pair, "--out", tmp_path / "both.png")
    assert found.out.splitlines()[-1] == f"written: {tmp_path / 'both.png'}"
    shown = np.asarray(Image.open(tmp_path / "both.png").convert("RGB")).astype(int)
    dark = (shown.sum(2) < 300).mean(1) > 0.2  # lines of pixels that run through the images, which are dark
    blocks = int((np.diff(dark.astype(int)) == 1).sum())
    assert blocks >= 3 + 1  # seventeen images in rows of six, and three in one
    assert command("compare", *pair, "--out", tmp_path / "both.html", "--json").json["out"].endswith("both.html")


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a"], "compare: expected two or more runs, such as runs/a runs/b; given 1"),
        (["a", "b", "a"], "compare: a is given twice; give each run once"),
        (["a", "nowhere"], "nowhere is no folder; expected a run, such as runs/lines"),
        (["a", "b", "--out", "both.pdf"], "--out both.pdf: expected a page, such as compared.html, or a picture"),
        (["a", "b", "--seeds-by", "recipe.sed"], "setting 'recipe.sed' is not one of a's; did you mean 'recipe.seed'?"),
        (["a", "b", "--seeds-by", "net.name"], "--seeds-by net.name: a has 'lines-net'; expected whole numbers"),
    ],
)
def test_bad_requests_are_one_line(
    command: Command,
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = command("compare", *arguments)
    assert found.status == 2
    assert expected in found.complaint
    assert found.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_picture_needs_the_data_that_the_runs_had(
    command: Command, pair: tuple[Path, Path], spotted: tuple, tmp_path: Path
) -> None:
    source = Path(spotted[1].spec.source)
    kept = source.read_bytes()
    try:
        with np.load(io.BytesIO(kept)) as arrays:
            np.savez(source, x=arrays["x"][::-1], y=arrays["y"][::-1])
        found = command("compare", *pair, "--out", tmp_path / "both.html")
        assert (found.status, "has changed since the training" in found.complaint) == (2, True)
        assert command("compare", *pair).status == 0
    finally:
        source.write_bytes(kept)
