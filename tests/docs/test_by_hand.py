"""The page on convolution by hand: its commands, pictures, YAML and Python do what stands there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from convscope import courses
from tests.cli.conftest import Command, command  # noqa: F401 (a fixture)

PAGE = Path(__file__).parents[2] / "docs" / "convolution-by-hand.md"
TEXT = PAGE.read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def _blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


COMMANDS = [line for block in _blocks("sh") for line in block.strip().splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_runs_and_its_picture_is_shown(line: str, command: Command, tmp_path: Path) -> None:  # noqa: F811
    words = shlex.split(line)[1:]
    if "--out" in words:
        name = words[-1]
        assert f"(pictures/{name})" in TEXT
        assert (PAGE.parent / "pictures" / name).exists()
        words[-1] = str(tmp_path / name)
    assert command(*words).status == 0


def test_the_screens_of_the_page_are_those_of_the_program(command: Command) -> None:  # noqa: F811
    sizes, products = _blocks("")
    printed = command(*shlex.split(COMMANDS[0])[1:]).out
    assert printed == sizes
    printed += command("conv", "--example", "report-e", "--window", "1,0").out
    lines = [line.rstrip() for line in printed.splitlines()]
    assert set(products.splitlines()) <= set(lines)


def test_the_yaml_of_the_page_is_an_example(tmp_path: Path) -> None:
    [text] = _blocks("yaml")
    (tmp_path / "mine.yaml").write_text(text)
    # rows have a zero at both ends, columns one behind: 0 − 9 and 9 − 0, in two, three and two rows
    expected = [[[-18, 18], [-27, 27], [-18, 18]]]
    assert courses.worked_example(str(tmp_path / "mine.yaml")).output.tolist() == expected


def test_the_python_of_the_page_prints_what_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = _blocks("python")
    names: dict[str, object] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    beside = [line.split("  # ")[1] for line in code.splitlines() if line.startswith("print")]
    for printed, said in zip(capsys.readouterr().out.splitlines(), beside, strict=True):
        assert printed in said
    assert np.isfinite(names["worked"].output).all()
