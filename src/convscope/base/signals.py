"""Ctrl-C, SIGTERM and SIGHUP: which of them count, and what they do to a command."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

INTERRUPTED = "interrupted; the same command goes on from what is saved, or begins anew"
"""How an interrupted command ends, after its name."""


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those by which a user or a system asks to stop; not SIGHUP where it is ignored, as by nohup."""
    hang_up = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # Windows has none
    return (signal.SIGINT, signal.SIGTERM, *(one for one in hang_up if signal.getsignal(one) != signal.SIG_IGN))


class Stop:
    """At the first signal KeyboardInterrupt, as for Ctrl-C in any Python program; at the second the process ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self.signals = stop_signals() if threading.current_thread() is threading.main_thread() else ()
        for number in self.signals:
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            if os.isatty(2):
                os.write(2, b"\x1b[?25h")  # the cursor, which progress bars hide
            say(INTERRUPTED)
            os._exit(1)
        self.asked = True
        raise KeyboardInterrupt

    def end(self) -> None:
        """Nothing is left to be stopped: what comes while Python takes itself down is ignored."""
        for number in self.signals:
            signal.signal(number, signal.SIG_IGN)


def say(line: str) -> None:
    """A line of the command on stderr."""
    with suppress(OSError):  # the reader of stderr, or the terminal, has gone
        os.write(2, f"convscope: {line}\n".encode())


class StopWish:
    """Whether the user has asked to stop."""

    def __init__(self, asked: bool) -> None:
        self.asked = asked


_open_wishes: list[StopWish] = []


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """A wish in place of an exception: the step in hand is finished, then the work saves and stops.

    Catches the first Ctrl-C, SIGTERM or SIGHUP inside; a second acts as it did before. Of nested blocks, as of a training in a
    worker, the inner one receives the signal, and the wish is that of all. Only the main thread can do that.
    """
    wish = StopWish(False)
    if threading.current_thread() is not threading.main_thread():
        wish.asked = any(outer.asked for outer in _open_wishes)
        yield wish
        return

    def ask(number: int, frame: object) -> None:
        for each in _open_wishes:
            each.asked = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    before = {number: signal.getsignal(number) for number in stop_signals()}
    try:
        _open_wishes.append(wish)
        # After it is open: a signal between the two would be lost.
        wish.asked = any(each.asked for each in _open_wishes)
        for number in before:
            signal.signal(number, ask)
        yield wish
    finally:
        with suppress(ValueError):  # interrupted before it was open
            _open_wishes.remove(wish)
        restore()
