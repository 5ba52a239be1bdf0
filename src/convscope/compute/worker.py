"""A process of `LocalProcesses`: does one piece of work after another, until the process that started it has gone.

python -m convscope.compute.worker      (what to do on stdin, answers on stdout; see `_Process`)
"""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import cloudpickle

from convscope.base.memory import tune_memory
from convscope.base.signals import stop_wish
from convscope.compute.executor import answer_of

_received: SimpleQueue[Any] = SimpleQueue()
"""What the process sends that started this one; None when it has gone."""


def main() -> None:
    """Works for the process at the other ends of stdin and stdout. What the work itself prints goes to stderr."""
    tune_memory()
    requests, answers = os.dup(0), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    def send(*answer: Any) -> None:
        pickle.dump(answer, answers)
        answers.flush()

    def drawn() -> Iterator[Any]:
        while True:
            send("draw", None, True)
            if (item := _received.get()) is None:
                os._exit(1)  # what was drawn so far must not pass for all
            if not item:
                return
            yield item[0]

    with stop_wish() as wish:
        Thread(target=_receive, args=(requests,), daemon=True).start()
        while not wish.asked and (call := _received.get()):
            send(*answer_of(partial(_result, call, drawn())), not wish.asked)
    os._exit(0)  # all is written; to take PyTorch down in order would take a second


def _result(call: bytes, drawn: Iterator[Any]) -> bytes:
    work, arguments, draws = pickle.loads(call)  # noqa: S301 (from our own process, not from a file)
    done: bytes = cloudpickle.dumps(work(*arguments, drawn) if draws else work(*arguments))
    return done


def _receive(requests: int) -> None:
    """Passes on what comes. At its end the other process has gone: work is asked to save and stop, as by the user."""
    try:
        with os.fdopen(requests, "rb") as file, suppress(EOFError):
            while True:
                _received.put(pickle.load(file))  # noqa: S301
    finally:
        _received.put(None)
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
