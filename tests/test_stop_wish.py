"""A wish to stop, and signals at inconvenient moments."""

import signal

import pytest

from convscope.base import signals
from convscope.base.signals import StopWish, stop_wish


class SignalledAsItGrows(list[StopWish]):
    def append(self, wish: StopWish) -> None:
        signal.raise_signal(signal.SIGTERM)
        super().append(wish)


def test_a_signal_while_an_inner_wish_opens_is_heard_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    with stop_wish() as outer:
        monkeypatch.setattr(signals, "_open_wishes", SignalledAsItGrows([outer]))
        with stop_wish() as inner:
            assert (outer.asked, inner.asked) == (True, True)
        monkeypatch.undo()
