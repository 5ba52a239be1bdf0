"""The page on clusters: its commands are understood, its YAML and Python are read; tests/test_cluster.py runs such commands."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Command, command  # noqa: F401 (a fixture)

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text("utf-8")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = sorted(set(re.findall(r"\bconvscope ((?:sweep|report|predict) .*)$", PAGE, re.MULTILINE)))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str, command: Command) -> None:  # noqa: F811
    found = command(*shlex.split(re.sub(r"--ray \S+", "--ray 127.0.0.1:1", line), comments=True))
    assert found.status == 2
    assert re.search("widths.yaml|runs/mine|no cluster answers|no folder", found.complaint)


def test_yaml_and_python_can_be_read() -> None:
    kinds = [(kind, text) for kind, text in _BLOCK.findall(PAGE) if kind in ("yaml", "python")]
    assert {kind for kind, _ in kinds} == {"yaml", "python"}
    for kind, text in kinds:
        assert yaml.safe_load(text) if kind == "yaml" else ast.parse(text)
