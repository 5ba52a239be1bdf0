"""Processes of `LocalProcesses` that a test leaves are kept for the next one: in each PyTorch takes two seconds to load."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import cloudpickle
import pytest

from convscope.compute import LocalProcesses
from convscope.compute.executor import _Process, share_of_cores

_MOST = 2
_kept: list[tuple[int, _Process]] = []
"""Idle processes, each with its number of threads."""


@pytest.fixture(scope="session")
def _ended_at_last() -> Iterator[None]:
    yield
    with LocalProcesses(1) as executor:
        while _kept:
            executor._end(_kept.pop()[1])


@pytest.fixture(autouse=True)
def processes_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _ended_at_last: None) -> None:
    """What wants work gets a process of an earlier test, in the environment and the folder of this one, where one is left.

    Tests of processes themselves are marked `own_processes`.
    """
    if request.node.get_closest_marker("own_processes"):
        return
    started, ended = LocalProcesses._take, LocalProcesses._end

    def be_here(environment: dict[str, str], folder: str, path: list[str]) -> None:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[:] = path

    def take(self: LocalProcesses) -> _Process:
        n_threads = share_of_cores(self.count)
        found = next((one for one in _kept if one[0] == n_threads), None)
        if self._idle or found is None:
            return started(self)
        _kept.remove(found)
        process = found[1]
        process.words.seek(0)
        process.words.truncate()
        process.run(cloudpickle.dumps((be_here, (dict(os.environ), os.getcwd(), list(sys.path)), False)))
        self._processes.add(process)
        return process

    def end_idle(self: LocalProcesses) -> None:
        with suppress(IndexError):
            while True:
                process = self._idle.pop()
                if process.poll() is None and len(_kept) < _MOST:
                    self._processes.discard(process)
                    _kept.append((share_of_cores(self.count), process))
                else:
                    ended(self, process)

    monkeypatch.setattr(LocalProcesses, "_take", take)
    monkeypatch.setattr(LocalProcesses, "_end_idle", end_idle)
