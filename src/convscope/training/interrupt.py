"""Ctrl-C as a wish: the step in hand is finished, then the training saves and stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from convscope.signals import stop_signals


@dataclass
class StopWish:
    """Whether the user has asked to stop."""

    asked: bool = False


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """Catches the first Ctrl-C, SIGTERM or SIGHUP inside; a second acts as it did before. Only the main thread can do that."""
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def ask(number: int, frame: object) -> None:
        wish.asked = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in stop_signals()}
    try:
        yield wish
    finally:
        restore()
