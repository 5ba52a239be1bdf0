"""The page on repeating the reports: its studies, words, commands and YAML are the program's."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from convscope.courses import find_reproduction, read_reproducing, reproduces, reproductions
from convscope.courses.outcomes import CLOSE, Verdict
from tests.cli.conftest import Command, command  # noqa: F401 (a fixture)

TEXT = (Path(__file__).parents[2] / "docs" / "reproducing.md").read_text("utf-8")


def test_every_study_stands_beside_its_report() -> None:
    rows = re.findall(r"^\| ([A-E]) \|.*\| (.*) \|$", TEXT, re.MULTILINE)
    told = {letter: re.findall(r"`([a-z0-9-]+)`", studies) for letter, studies in rows}
    shipped = {letter: [name for name in reproductions() if _report(name) == letter] for letter in "ABCDE"}
    assert told == shipped


def _report(name: str) -> str:
    return reproduces(find_reproduction(name), name).report


def test_every_verdict_is_explained() -> None:
    explained = re.findall(r"\*\*([a-z ]+)\*\*", TEXT)
    assert set(get_args(Verdict)) <= set(explained)
    assert f"reaches no further than {100 * CLOSE:.0f} points" in TEXT


def test_the_yaml_is_a_study_with_reported_figures() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    spec = read_reproducing(text, "mine.yaml")
    assert spec.n_runs == 6
    assert [each["value"] for each in spec.reproduces["reported"]] == [0.6704, 173026]


@pytest.mark.parametrize("line", re.findall(r"^(convscope .*?)(?: +#.*)?$", TEXT, re.MULTILINE))
def test_every_command_is_understood(line: str, command: Command, tmp_path: Path) -> None:  # noqa: F811
    """Those that would train, only as far as a study that there is not."""
    words = shlex.split(line)[1:]
    words = [str(tmp_path / "page.md") if word.endswith(".md") else word for word in words]
    trains = "--budget" in words
    found = command(*words, *(["no-such-study"] if trains else []), "--out", tmp_path / "runs")
    assert found.status == (2 if trains else 0)
    assert not trains or "study 'no-such-study' is not one that repeats a report" in found.complaint
