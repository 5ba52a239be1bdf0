"""Executors: both engines give the same, and what befalls a process befalls its own work alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from convscope.compute import Executor, LocalProcesses, using
from convscope.compute.executor import reason_of
from convscope.errors import FailedError, RequestError, SettingError, UnknownNameError, WorkerError
from convscope.scans import Loss, scan
from convscope.scope import Scope
from convscope.study import sweep
from tests.compute import work

pytestmark = pytest.mark.own_processes


def _wait(until: Callable[[], object]) -> None:
    for _ in range(1200):
        if until():
            return
        time.sleep(0.05)
    pytest.fail("nothing happened for a minute")


@pytest.mark.parametrize("make", [Executor, lambda: LocalProcesses(2)], ids=["serial", "processes"])
def test_every_item_goes_to_one_call_and_the_results_come_in_order(make: Callable[[], Executor]) -> None:
    done: list[int] = []
    with make() as executor:
        parts = executor.map_partitions(work.total, iter(range(1, 41)), done.append)
        assert [executor.submit(pow, 2, n) for n in range(5)][4].result() == 16
        with pytest.raises(UnknownNameError, match="number 'three' is not here; there is one, two"):
            executor.map_partitions(work.fails_at_three, range(9), lambda item: None)
    assert len(parts) == executor.count
    assert (sum(n for n, _ in parts), sum(part for _, part in parts)) == (40, 820)
    assert sorted(done) == list(range(1, 41))


def test_items_are_drawn_when_they_are_asked_for() -> None:
    drawn: list[int] = []
    with LocalProcesses(2) as executor, pytest.raises(UnknownNameError):
        executor.map_partitions(work.fails_at_three, (drawn.append(n) or n for n in range(10**9)), lambda item: None)
    assert drawn[:4] == [0, 1, 2, 3]


def test_a_process_that_dies_takes_down_its_own_work_alone(tmp_path: Path) -> None:
    with LocalProcesses(2) as executor:
        other = executor.submit(work.wait_for_stop, tmp_path / "begun", tmp_path / "ended")
        with pytest.raises(WorkerError, match=r"^it was ended by SIGKILL, as the system does when memory runs out$"):
            executor.submit(work.die, signal.SIGKILL).result()
        with pytest.raises(WorkerError, match=r"^the last words$"):
            executor.submit(work.leave, 3).result()
        assert executor.submit(pow, 2, 3).result() == 8
        _wait((tmp_path / "begun").exists)
        assert not other.done()
        executor.stop()
        assert other.result() == "saved"
        assert executor.submit(pow, 2, 3).result() == 8  # those that were stopped are replaced


def test_what_goes_wrong_is_told_as_it_is_in_one_line() -> None:
    with LocalProcesses(1) as executor:
        with pytest.raises(UnknownNameError) as told:
            executor.submit(work.unknown).result()
        assert str(told.value) == "layer 'head' is not in this network; there is conv1, conv2"
        for error, expected in [(ValueError("a number"), "ValueError: a number"), (MemoryError(), "MemoryError")]:
            with pytest.raises(FailedError, match=f"^{expected}$"):
                executor.submit(work.fail, error).result()


def test_a_process_takes_one_piece_of_work_after_another_until_one_fails() -> None:
    with LocalProcesses(2) as executor:
        first = executor.submit(work.process).result()
        assert executor.submit(work.process).result() == first != os.getpid()
        with pytest.raises(FailedError):
            executor.submit(work.fail, ValueError()).result()
        assert executor.submit(work.process).result() != first
        assert executor.submit(work.setting, "OMP_NUM_THREADS").result() == "1"


def test_work_that_is_killed_has_ended_and_more_may_come(tmp_path: Path) -> None:
    with LocalProcesses(1) as executor:
        futures = [executor.submit(work.sleep, tmp_path / "begun") for _ in range(2)]  # the second waits
        _wait((tmp_path / "begun").exists)
        executor.kill()
        for future in futures:
            with pytest.raises(WorkerError, match="it was ended"):
                future.result(timeout=0)
        assert executor.submit(pow, 2, 3).result() == 8


def test_work_that_is_submitted_at_the_end_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = LocalProcesses(1)
    ending = threading.Thread(target=executor.__exit__)
    submit = executor._threads.submit

    def while_it_ends(*call: Any) -> Future[Any]:
        future = submit(*call)
        ending.start()
        ending.join(0.3)
        return future

    monkeypatch.setattr(executor._threads, "submit", while_it_ends)
    with pytest.raises(WorkerError, match="it was ended"):
        executor.submit(time.sleep, 60).result()
    ending.join()
    assert not executor._processes
    with pytest.raises(RequestError, match="its block was left, and its processes have ended; open a new one"):
        executor.submit(pow, 2, 3)


def test_a_wish_to_stop_is_heard_while_a_process_starts(tmp_path: Path) -> None:
    with LocalProcesses(1) as executor:
        future = executor.submit(work.wait_for_stop, tmp_path / "begun", tmp_path / "ended")
        _wait(lambda: psutil.Process().children() or future.done())
        executor.stop()
        error = future.exception(timeout=60)
        assert error is None or "SIGTERM" in str(error)


PARENT = """
import sys
import threading
from pathlib import Path
from typing import Any
from convscope.compute import LocalProcesses
from tests.compute import work
LocalProcesses(1).submit(work.wait_for_stop, *map(Path, sys.argv[1:]))
"""


def test_work_saves_and_ends_when_the_process_that_began_it_is_killed(tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(begun), str(ended)])
    _wait(lambda: begun.exists() and begun.read_text())
    worker = psutil.Process(int(begun.read_text()))
    parent.kill()
    parent.wait()
    _wait(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    assert ended.read_text() == "saved"


SCRIPT = """
from convscope.compute import LocalProcesses

print("begun")

class Number:
    def __init__(self, value):
        self.value = value

def double(number):
    return Number(2 * number.value)

with LocalProcesses(1) as executor:
    found = executor.submit(double, Number(4)).result()
print(type(found) is Number, found.value)
"""


def test_a_script_is_not_run_again_and_what_it_defines_is_understood(tmp_path: Path) -> None:
    """Though it lacks `if __name__ == "__main__":`."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert subprocess.run([sys.executable, script], capture_output=True, text=True).stdout == "begun\nTrue 8\n"


def test_why_a_process_ended() -> None:
    assert reason_of(1, ["a warning", "MemoryError", ""]) == "MemoryError"
    assert reason_of(3, []) == "it ended with status 3"
    assert "SIGKILL, as the system does when memory runs out" in reason_of(-9, [])
    assert reason_of(-15, ["a warning"]) == "it was ended by SIGTERM"
    assert reason_of(-40, []) == "it was ended by signal 40"  # one of those for real time, most of which have no name


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("given", ["ray", 2, LocalProcesses])
def test_what_is_no_executor_is_one_line(given: object, tmp_path: Path) -> None:
    scope, images = (
        Scope(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 2, 2)),
        torch.zeros(1, 3, 2, 2),
    )
    study = {"data": "lines", "net": "net1", "sweep": {"net.width": [4, 8]}}
    for act in (
        lambda: scan(scope, images, [Loss(scope.task.heads)], executor=given),
        lambda: sweep(study, tmp_path / "study", executor=given),
        lambda: using(given).__enter__(),
    ):
        with pytest.raises(RequestError, match=r"executor: .*; expected one, such as convscope.LocalProcesses"):
            act()
    assert not (tmp_path / "study").exists()


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None])
def test_no_number_of_processes_is_one_line(count: object) -> None:
    with pytest.raises(SettingError, match="expected a whole number of processes, 1 or more"):
        LocalProcesses(count)


def test_work_that_cannot_be_sent_is_one_line() -> None:
    with (
        LocalProcesses(1) as executor,
        pytest.raises(RequestError, match="cannot be sent to another process: cannot pickle"),
    ):
        executor.submit(work.total, threading.Lock())
