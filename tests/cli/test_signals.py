"""Ctrl-C, SIGTERM and SIGHUP at any moment: one line on how to go on and exit status 1. A reader that has gone: not a word."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convscope.base.signals import INTERRUPTED

_BEGINNING = """
import importlib, os, signal, sys, time

def stop(*arguments, **options):
    os.kill(os.getpid(), number)
    time.sleep(20)  # the signal is here before

class Loading:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            stop()

number, module = int(sys.argv[1]), sys.argv[2]
if module in ("typer", "torch"):
    sys.meta_path.insert(0, Loading())
"""
_END = "\nfrom convscope.__main__ import main\nmain(sys.argv[3:])\n"
_MOMENTS = {
    "loading the command line": ("typer", ""),
    "loading PyTorch": ("torch", ""),
    "evaluating": ("", "importlib.import_module('convscope.scans.evaluate').feed = stop"),
    "reporting": ("", "importlib.import_module('convscope.report.build').render = stop"),
    "reporting the filters": (
        "",
        "b = importlib.import_module('convscope.report.build'); b.render = lambda *_: 'page'; b.filters_page = stop",
    ),
}
_REPORTING = ("reporting", "reporting the filters")


def _ended(moment: str, number: int, *arguments: object, more: str = "") -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which gets a signal at that moment."""
    module, there = _MOMENTS[moment]
    code = _BEGINNING + there + more + _END
    return subprocess.run(
        [sys.executable, "-c", code, str(int(number)), module, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *((moment, signal.SIGINT) for moment in list(_MOMENTS)[:-1]),
        pytest.param("reporting the filters", signal.SIGINT, marks=pytest.mark.slow),
        ("loading PyTorch", signal.SIGTERM),
        pytest.param("evaluating", signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_command_with_one_line(moment: str, number: int, study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = _ended(moment, number, "study", study_file, "--out", out, "--set", "recipe.epochs=1", "--device", "cpu")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"convscope: {INTERRUPTED}"
    assert "Traceback" not in ended.stderr
    assert (out / "model.safetensors").exists() == (moment == "evaluating" or moment in _REPORTING)
    assert (out / "metrics.json").exists() == (moment in _REPORTING)
    assert ("accuracy" in ended.stdout) == (moment in _REPORTING)  # the figures, before the pictures are begun
    assert {file.name for file in out.glob("*.html*")} == ({"report.html"} if moment == _REPORTING[1] else set())
    assert not list(out.glob(".*"))


def test_a_second_signal_ends_it_at_once(study_file: Path, tmp_path: Path) -> None:
    """Also where something that is tidied up takes long."""
    more = """
def slow(number, module=module):
    try:
        os.kill(os.getpid(), number)
        time.sleep(20)
    finally:
        os.kill(os.getpid(), number)
        time.sleep(20)
stop = lambda *arguments, **options: slow(number)
"""
    ended = _ended("loading PyTorch", signal.SIGINT, "study", study_file, "--out", tmp_path / "run", more=more)
    assert (ended.returncode, ended.stderr) == (1, f"convscope: {INTERRUPTED}\n")


def test_a_hang_up_that_is_ignored_stays_so(study_file: Path) -> None:
    """As nohup asks."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from convscope.base.signals import Stop;"
        "Stop(); os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "goes on\n"
    )


@pytest.mark.parametrize(
    ("arguments", "together"),
    [
        (["--help"], False),
        (["--help"], True),
        (["anatomy", "net4"], True),
        (["anatomy", "net99"], False),
        pytest.param(["anatomy", "net4"], False, marks=pytest.mark.slow),
        pytest.param(["anatomy", "net99"], True, marks=pytest.mark.slow),
    ],
)
def test_a_reader_that_has_gone_is_no_matter(arguments: list[str], together: bool) -> None:
    """As in `convscope anatomy net4 | head -1`, with stderr in the same pipe or not."""
    code = "import sys; from convscope.__main__ import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT if together else subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    process.stdout.close()
    said = process.stderr.read() if process.stderr else ""
    if process.stderr:
        process.stderr.close()
    wrong = arguments[-1] == "net99"
    assert process.wait(120) == (2 if wrong else 1)
    assert len(said.splitlines()) == (1 if wrong and not together else 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_finds_no_room_is_one_line() -> None:
    code = "import sys; from convscope.__main__ import main; main(['anatomy', 'net4'])"
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "No space left on device" in line
