"""Ctrl-C as a wish: the step in hand is finished, then the training saves and stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StopWish:
    """Whether the user has asked to stop."""

    asked: bool = False


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """Catches the first Ctrl-C or SIGTERM inside; a second Ctrl-C interrupts at once. Only the main thread can do that."""
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def ask(number: int, frame: object) -> None:
        wish.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
