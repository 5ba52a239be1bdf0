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


def test_a_signal_while_the_handlers_are_set_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    before, set_handler = signal.getsignal(signal.SIGINT), signal.signal

    def signalled(number: int, handler: object) -> object:
        earlier = set_handler(number, handler)
        monkeypatch.undo()
        signal.raise_signal(number)
        return earlier

    monkeypatch.setattr(signal, "signal", signalled)
    with stop_wish() as wish:
        assert wish.asked
    assert signals._open_wishes == []
    assert signal.getsignal(signal.SIGINT) is before


def test_an_exception_while_a_wish_opens_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(list[StopWish]):
        def append(self, wish: StopWish) -> None:
            super().append(wish)
            raise KeyboardInterrupt

    opened = Interrupted()
    monkeypatch.setattr(signals, "_open_wishes", opened)
    with pytest.raises(KeyboardInterrupt), stop_wish():
        pass
    assert opened == []
