"""Work for executors, which other processes must be able to import."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from convscope.base.signals import stop_wish
from convscope.errors import UnknownNameError


def total(numbers: Iterator[int]) -> tuple[int, int]:
    """How many there were, and their sum."""
    seen = list(numbers)
    return len(seen), sum(seen)


def fails_at_three(numbers: Iterator[int]) -> int:
    for number in numbers:
        if number == 3:
            raise UnknownNameError("number", "three", ["one", "two"])
    return 0


def process() -> int:
    print("what work prints goes nowhere")  # noqa: T201
    return os.getpid()


def setting(name: str) -> str:
    return os.environ[name]


def die(number: int) -> None:
    sys.stderr.write("the last words\n")
    os.kill(os.getpid(), number)


def leave(status: int) -> None:
    sys.stderr.write("a warning\nthe last words\n\n")
    sys.stderr.flush()
    os._exit(status)


def fail(error: Exception) -> None:
    raise error


def unknown() -> None:
    raise UnknownNameError("layer", "head", ["conv1", "conv2"], "in this network")


def wait_for_stop(begun: Path, ended: Path) -> str:
    """Goes on until it is asked to stop, and then saves."""
    with stop_wish() as wish:
        begun.write_text(str(os.getpid()))
        while not wish.asked:
            time.sleep(0.02)
    ended.write_text("saved")
    return "saved"


def sleep(begun: Path) -> None:
    begun.write_text(str(os.getpid()))
    signal.pause()
