"""What reaches the terminal: names from others' files are text, and a terminal obeys none of it."""

from __future__ import annotations

import io
import json
import sys

import pytest
from rich.text import Text

from convscope.base import console
from convscope.base.console import (
    Printable,
    open_console,
    printable,
    printing_safely,
    progress_bar,
    progress_of_parts,
)
from convscope.cli import run
from convscope.cli.show import print_json, print_line, print_table

TITLE = "\x1b]0;owned\x07"
HOSTILE = {
    "title of the window": (TITLE, r"\x1b]0;owned\x07"),
    "screen cleared": ("\x1b[2Jcat", r"\x1b[2Jcat"),
    "C1, one character for ESC [": ("\x9b31mcat", r"\x9b31mcat"),
    "DEL and backspace": ("dog\x08\x08\x7fcat", r"dog\x08\x08\x7fcat"),
    "line begun again": ("bad\rgood", r"bad\rgood"),
    "text turned around": ("a\u202egnp.exe\u2066", r"a\u202egnp.exe\u2066"),
    "bytes that are no text": ("caf\udce9", r"caf\udce9"),
}


@pytest.mark.parametrize(("name", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_shown_as_text_by_every_way_to_print(name: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(name) == shown
    with printing_safely():
        sys.stderr.write(f"{name}\n")
        print_line(name)
        print_table(name, [name], [[name]])
        print_json({name: name})
    out, err = capsys.readouterr()
    assert err == f"{shown}\n"
    lines, _, written = out.partition("{")
    assert lines
    assert printable(out) == out
    assert json.loads("{" + written) == {name: name}


@pytest.mark.parametrize("text", ["çà et là", "猫\t犬\n", "عربي\u200f", "\r10 %", "done\r\n", "👩‍👩‍👧"])
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


def test_colours_of_our_own_pass_and_others_do_not() -> None:
    stream = io.StringIO()
    before, sys.stdout = sys.stdout, stream
    try:
        with printing_safely():
            open_console(force_terminal=True, color_system="standard").print(Text(f"a{TITLE}", "red"))
    finally:
        sys.stdout = before
    assert stream.getvalue() == "\x1b[31ma\\x1b]0;owned\x1b[0m\n"  # Rich leaves the bell out


def test_a_complaint_about_a_hostile_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", f"runs/{TITLE}"]) == 2
    err = capsys.readouterr().err
    assert r"runs/\x1b]0;owned\x07" in err
    assert "\x1b" not in err


def test_the_streams_come_back() -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError):
        _fail()
    assert (sys.stdout, sys.stderr) == before


def _fail() -> None:
    with printing_safely():
        assert isinstance(sys.stdout, Printable)
        raise ZeroDivisionError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_part_that_took_long_is_a_line_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for long_s, said in ((5, ""), (-1, "report: Maps took 0 s\n")):
        monkeypatch.setattr(console, "_LONG_S", long_s)
        with progress_of_parts("report", 2) as part, part("Maps"), progress_bar("scanning", 3) as advance:
            advance(3)
        assert capsys.readouterr() == ("", said)


def test_bars_of_a_part_stand_below_it_and_all_are_gone_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_of_parts("report", 8) as part:
        with part("Maps"), progress_bar("scanning", 30) as advance:
            advance(3)
            [bars] = console._open_bars
            bars.refresh()
            shown = [(task.description, task.completed, task.total) for task in bars.tasks]
            assert shown == [("report: Maps", 0, 8), ("scanning", 3, 30)]
        with pytest.raises(KeyboardInterrupt), part("Data"), progress_bar("reading", 5):
            raise KeyboardInterrupt
        assert [(task.description, task.completed) for task in bars.tasks] == [("report: Data", 1)]
    assert console._open_bars == []
    assert "report: Maps" in screen.getvalue()
    assert "3/30" in screen.getvalue()
    assert "took" not in screen.getvalue()
    assert capsys.readouterr().out == ""
