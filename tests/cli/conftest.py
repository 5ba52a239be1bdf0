from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from convscope.cli import run
from tests.conftest import write_spots


@dataclass
class Answer:
    """What a command line came to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line on stderr; fails where there are more."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("convscope: ")
        assert "Traceback" not in self.err
        return lines[0].removeprefix("convscope: ")


Command = Callable[..., Answer]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in this process."""

    def call(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Answer(status, printed.out, printed.err)

    return call


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study of seconds: small images of three classes."""
    write_spots(tmp_path / "spots.npz", 240)
    path = tmp_path / "spots.yaml"
    path.write_text(f"""
about: Which third of the image has the bright spot?
data: {tmp_path / "spots.npz"}
net: c8b M c8b f16b
recipe: {{epochs: 3, batch: 24, rate: 0.01}}
""")
    return path
