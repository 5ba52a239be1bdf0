"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from convscope.cli.show import json_rows, print_frame

WIDE = pd.DataFrame({"layer": ["conv1"] * 50, **{f"figure {n}": [0.25] * 50 for n in range(20)}})


def test_a_terminal_shows_whole_columns_and_says_how_many_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_frame(WIDE)
    lines = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert lines[-1] == "… 50 rows and 21 columns in all; --json prints them"
    [header] = [line for line in lines if "layer" in line]
    assert "figure 4" in header
    assert "figure 5" not in header
    assert "…" not in "".join(lines[:-1])
    assert max(map(len, lines)) <= 60


def test_a_pipe_gets_every_column(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_frame(WIDE)
    out = capsys.readouterr().out
    assert "figure 19" in out
    assert out.splitlines()[-1] == "… 50 rows in all; --json prints them"


def test_rows_as_json_have_null_for_what_is_undefined_and_whole_numbers_stay_whole() -> None:
    frame = pd.DataFrame({"class": ["a", "b"], "images": [0, 2], "change": [float("nan"), 0.5]})
    rows = json_rows(frame)
    assert rows == [{"class": "a", "images": 0, "change": None}, {"class": "b", "images": 2, "change": 0.5}]
    assert json.dumps(rows, allow_nan=False) == (
        '[{"class": "a", "images": 0, "change": null}, {"class": "b", "images": 2, "change": 0.5}]'
    )
