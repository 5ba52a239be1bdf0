"""`convscope serve` and `cs.explore`: where they listen, what they say, and how they end."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import torch

import convscope as cs
from convscope.app import guard
from convscope.cli import run
from convscope.errors import RunFolderError
from convscope.runs import Run
from tests.app.serving import get


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "convscope", "serve", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("ending", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_it_says_its_address_serves_and_ends_while_a_question_is_answered(
    reported: Run, ending: signal.Signals
) -> None:
    with started(str(reported.path), "--port", "0") as process:
        assert process.stdout is not None
        address = re.search(r"http://(127\.0\.0\.1:\d+)/ ", process.stdout.readline())[1]  # type: ignore[index]
        assert get(address, "/overview")[0] == 200
        with closing(HTTPConnection(address, timeout=60)) as connection:
            connection.request("GET", "/api/analyses/maximize?layer=conv1&unit=0")
            assert get(address, "/static/app.css")[0] == 200  # after the question, which the server has by now
            while not (children := _children(process.pid)):
                time.sleep(0.05)
            start = time.monotonic()
            process.send_signal(ending)
            _, errors = process.communicate(timeout=60)
            assert time.monotonic() - start < 5
            assert (errors, process.returncode in (0, 1)) == ("", True)
            assert connection.getresponse().status == 503
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def _children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for part in listed for child in part.read_text().split()]


def test_others_need_the_token_that_it_prints(reported: Run) -> None:
    with started(str(reported.path), "--host", "0.0.0.0", "--port", "0") as process:
        assert process.stdout is not None
        port, token = re.search(r":(\d+)/\?token=(\S+)", process.stdout.readline()).groups()  # type: ignore[union-attr]
        assert get(f"127.0.0.1:{port}", "/overview")[0] == 403
        assert get(f"127.0.0.1:{port}", f"/overview?token={token}")[0] == 303
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert (errors, process.returncode in (0, 1)) == ("", True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is no folder"),
        ([], "Missing argument"),
        (["--port", "70000", "RUN"], "65535"),
        (["--host", "no.such.host.invalid", "RUN"], "no.such.host.invalid"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    reported: Run, words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", *(str(reported.path) if word == "RUN" else word for word in words)]) == 2
    assert gc.isenabled()
    errors = capfd.readouterr().err
    assert said in errors
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize(("asked", "computes"), [(None, 1), ("3", 3)])
def test_it_computes_with_one_thread_unless_told(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, computes: int
) -> None:
    found, before = [], torch.get_num_threads()
    monkeypatch.setattr("convscope.app.serve", lambda *arguments, **settings: found.append(torch.get_num_threads()))
    monkeypatch.setattr(os, "_exit", lambda status: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    torch.set_num_threads(3)  # as PyTorch takes them from there
    try:
        assert run(["serve", "runs/x"]) == 0
    finally:
        torch.set_num_threads(before)
    assert found == [computes]


def test_a_port_that_is_taken_is_one_line(reported: Run, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["serve", str(reported.path), "--port", port]) == 2
    errors = capfd.readouterr().err
    assert re.fullmatch(rf"convscope: --host 127.0.0.1 --port {port}: Address already in use; .*\n", errors)


def test_in_a_notebook_it_is_a_frame(reported: Run) -> None:
    found = cs.explore(reported.path)
    assert get(found.address.removeprefix("http://").rstrip("/"), "/overview")[0] == 200
    assert f'src="{found.address}"' in found._repr_html_()


def test_what_is_no_run_is_not_explored(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        cs.explore(tmp_path)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.0.0.2", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False),
        ("::", False), ("", False), ("127.0.0.1.evil.example", False),
    ],
)  # fmt: skip
def test_what_is_this_machine_alone(host: str, local: bool) -> None:
    assert guard.is_local(host) == local
