"""convscope conv: what a student and an engineer type, and what they get."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_one_layer_by_its_settings_with_the_steps(command: Command) -> None:
    found = command("conv", "128x128x32", "--filters", "16", "--kernel", "3", "--stride", "2").out
    assert "32 channels of 128×128, read as height×width×channels; --order chw" in found
    assert "16×63×63, as height×width×channels 63×63×16" in found
    assert "floor((128 − 3 + 2·0)/2) + 1 = 63" in found
    assert "16·(32·3·3 + 1) = 4,624" in found


def test_the_order_of_a_shape_can_be_said(command: Command) -> None:
    for shape, order, expected in (
        ("32x128x128", (), [32, 128, 128]),
        ("128x128x32", ("--order", "chw"), [128, 128, 32]),
        ("3x4x5", ("--order", "hwc"), [5, 3, 4]),
        ("32@128x128", (), [32, 128, 128]),
        ("28x30", (), [1, 28, 30]),
    ):
        assert command("conv", shape, "c8", *order, "--json").json["input_shape"] == expected


def test_a_chain_of_words(command: Command) -> None:
    found = command("conv", "3x32x32", "c64k3p0", "M", "c128", "--json").json
    assert [layer["output_shape"] for layer in found["layers"]] == [[64, 30, 30], [64, 15, 15], [128, 15, 15]]
    assert found["read_as"] == "channels×height×width"
    quoted = command("conv", "3x32x32", "c64k3p0 M c128").out
    assert "75,648 parameters" in quoted  # 64·28 + 128·577
    assert quoted == command("conv", "3x32x32", "c64k3p0", "M", "c128").out


@pytest.mark.parametrize("columns", [80, 120])
def test_screens_fit_the_terminal(command: Command, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for arguments in (
        ("--example", "report-e"),
        ("--example", "edges"),
        ("3x224x224", "c64b c64b M c128k3x5s2x1 t64 G f1000"),
    ):
        lines = command("conv", *arguments).out.splitlines()
        assert max(map(len, lines)) <= columns or "--order" in max(lines, key=len) or "--padding" in max(lines, key=len)
        assert not any("…" in line for line in lines)


def test_report_e_by_hand(command: Command) -> None:
    found = command("conv", "--example", "report-e").out
    assert found.count("9 + 18 + 18 ") == found.count("9 + 18 + 27 ") == 2
    assert "2·1 + 2·1 + 2·1 + 3·1 + 3·1 + 3·1 + 4·1 + 4·1 + 4·1    27" in found
    padded = command("conv", "--example", "report-e", "--padding", "same", "--json").json
    assert padded["output"] == [[[18, 27, 27, 18], [30, 45, 45, 30], [36, 54, 54, 36], [26, 39, 39, 26]]]
    pooled = command("conv", "--example", "report-e", "--pool", "max", "--json").json
    assert pooled["output"] == [[[1, 1], [1, 1]], [[2, 2], [2, 2]], [[2, 2], [4, 4]]]


def test_numbers_of_the_users_own(command: Command, tmp_path: Path) -> None:
    (tmp_path / "image.csv").write_text("1,2,3\n4,5,6\n7,8,9\n")
    arguments = ("conv", "--image", tmp_path / "image.csv", "--filter", "1 0; 0 -1", "--bias", "1")
    assert command(*arguments, "--json").json["output"] == [[[-3, -3], [-3, -3]]]
    one = command(*arguments, "--window", "1,0").out
    assert "4·1 + 5·0 + 7·0 + 8·(−1)" in one
    assert "−4 + 1" in one


def test_one_window_and_one_unit(command: Command) -> None:
    arguments = ("conv", "--image", "1 2; 3 4", "--filter", "1 || 2 || 3", "--json")
    chosen = command(*arguments, "--window", "1,0", "--unit", "2").json["windows"]
    assert [(one["unit"], one["position"], one["value"]) for one in chosen] == [(2, [1, 0], 9)]
    assert len(command(*arguments, "--window", "1,0").json["windows"]) == 3
    assert len(command(*arguments, "--unit", "1").json["windows"]) == 4


def test_many_windows_are_cut_short_and_said(command: Command) -> None:
    found = command("conv", "--image", "; ".join(["1 2 3 4 5"] * 5), "--filter", "1 1").out
    assert "… 20 windows in all" in found


def test_a_picture_as_svg_and_png(command: Command, tmp_path: Path) -> None:
    for name, start in (("a.svg", b"<svg"), ("a.png", b"\x89PNG")):
        found = command("conv", "--example", "upsample", "--window", "1,1", "--out", tmp_path / name)
        assert found.status == 0
        assert (tmp_path / name).read_bytes().startswith(start)


def test_shapes_and_numbers_need_no_pytorch() -> None:
    code = (
        "import sys; from convscope.cli import run; run(['conv', '3x32x32', 'c8']); run(['conv', '--example', 'edges']);"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False"


COMPLAINTS = {
    (): "expected a shape",
    ("3x32",): "which layer?",
    ("3x32xa", "c8"): "'3x32xa' is no shape",
    ("3x32x32", "c8", "--kernel", "3"): "--kernel: not with layers as words",
    ("3x32x32", "--filters", "8", "--kernel", "3y"): "--kernel: '3y'; expected a whole number",
    ("3x32x32", "--filters", "8", "--padding", "full"): "--padding: 'full'; expected same, valid",
    ("3x32x32", "--filters", "8", "--stride", "0"): "stride: 0 is out of range",
    ("3x32x32", "--filters", "8", "--kernel", "40"): "a window of 40 does not fit into 32 positions",
    ("3x32x32", "--filters", "8", "--groups", "2"): "groups: 2 groups do not divide",
    ("3x32x32", "--filters", "8", "--output-padding", "1"): "it goes with a transposed convolution alone",
    ("--example", "edges", "--output-padding", "1"): "it goes with a transposed convolution alone",
    ("3x32x32", "--pool", "max", "--no-bias"): "--no-bias: it does not go with a pool",
    ("3x32x32", "--pool", "max", "--groups", "3"): "--groups: it does not go with a pool",
    ("3x32x32", "c8", "--window", "0,0"): "--window: not with a shape",
    ("--example", "report-e", "--filters", "3"): "--filters: not with numbers",
    ("--example", "report-e", "--window", "one"): "--window: 'one'; expected row and column",
    ("--example", "report-e", "--window", "2,0"): "is not in the output",
    ("--example", "report-e", "--unit", "4"): "is not in the output",
    ("--example", "report-e", "--out", "a.jpg"): "expected .svg or .png",
    ("--image", "1 2; 3", "--filter", "1"): "image: rows or channels of different length",
    ("--image", "nothing.csv", "--pool", "max"): "nothing.csv: cannot be read",
}


@pytest.mark.parametrize("arguments", COMPLAINTS, ids=" ".join)
def test_what_cannot_be_done_is_told_in_a_line(command: Command, arguments: tuple[str, ...]) -> None:
    found = command("conv", *arguments)
    assert found.status == 2
    assert COMPLAINTS[arguments] in found.complaint
