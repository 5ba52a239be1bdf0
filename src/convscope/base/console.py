"""The user's terminal: text that is safe to print, and progress bars.

Names come from files that others made, and a terminal obeys control characters: they set its title, move the cursor, hide text.
Whatever is printed passes through here, and shows them as text: ESC as `\\x1b`.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_LONG_S = 5

# Control characters but tab, line feed, and the carriage return at either end that draws a progress bar anew; DEL and C1; those
# that turn the direction of text around; halves of pairs, which stand for bytes of a file's name that are no text.
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|(?<=.)\r(?=.)")


def printable(text: str) -> str:
    """The text with each character that a terminal would obey in place of showing it written out, such as `\\x1b`."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def printable_json(text: str) -> str:
    """JSON text with the same characters as JSON escapes, which mean the same."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Printable:
    """A stream that writes `printable` text; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:  # a TextIO, or what stands for one
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def printing_safely() -> Iterator[None]:
    """Everything that is printed within is `printable`, whoever prints it."""
    stdout: Any = Printable(sys.stdout)
    stderr: Any = Printable(sys.stderr)
    with redirect_stdout(stdout), redirect_stderr(stderr):
        yield


def open_console(stderr: bool = False, **settings: Any) -> Console:
    """A Rich console whose text is `printable`; its own colours and cursor movements pass."""
    stream: Any = sys.stderr if stderr else sys.stdout
    return _console()(file=stream.stream if isinstance(stream, Printable) else stream, **settings)


@cache
def _console() -> type[Console]:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    return PrintableConsole


@contextmanager
def silenced() -> Iterator[None]:
    """Hides from the user what other people's code says within: warnings, log lines, what it prints."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def progress_bar(label: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """A bar on stderr for `total` units of work, silent where that is no terminal; yields the function that advances it by n.

    Within another bar, or within `progress_of_parts`, it stands below that one.

    Example:
        with progress_bar("decoding", len(files)) as advance:
            for chunk in chunks:
                work(chunk)
                advance(len(chunk))
    """
    if _followers:
        follow, done = _followers[-1], 0

        def tell(n: int) -> None:
            nonlocal done
            done += n
            follow(label, min(1.0, done / max(1, total)))

        yield tell
        return
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    with _progress() as bars:
        task = bars.add_task(label, total=total, unit=unit, even=True)
        try:
            yield lambda n: bars.advance(task, n)
        finally:
            bars.remove_task(task)


_followers: list[Callable[[str, float], object]] = []


@contextmanager
def following_progress(follow: Callable[[str, float], object]) -> Iterator[None]:
    """Gives what the progress bars within would show to a function instead: a bar's label, and the share done in [0, 1]."""
    _followers.append(follow)
    try:
        yield
    finally:
        _followers.remove(follow)


@contextmanager
def progress_of_parts(label: str, total: int) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """Says on stderr which of `total` parts of a work is being made; yields the function that begins one, by its name.

    On a terminal it is a bar. Elsewhere it is a line for each part that took more than 5 s.

    Example:
        with progress_of_parts("report", 2) as part:
            with part("Feature maps"):
                work()
    """
    if not sys.stderr.isatty():
        yield lambda name: _said_if_long(label, name)
        return
    with _progress() as bars:
        task = bars.add_task(label, total=total, unit="parts", even=False)

        @contextmanager
        def part(name: str) -> Iterator[None]:
            bars.update(task, description=f"{label}: {name}")
            yield
            bars.advance(task)

        try:
            yield part
        finally:
            bars.remove_task(task)


@contextmanager
def _said_if_long(label: str, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    took_s = time.monotonic() - start
    if took_s > _LONG_S:
        print(f"{label}: {name} took {took_s:.0f} s", file=sys.stderr, flush=True)  # noqa: T201


_open_bars: list[Progress] = []
"""The one that is on the terminal, if any: it has room for one at a time."""


@contextmanager
def _progress() -> Iterator[Progress]:
    """The bars on the terminal; new ones where there are none."""
    if _open_bars:
        yield _open_bars[-1]
        return
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class OfEvenWork(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            return super().render(task) if task.fields["even"] else Text()

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[unit]}"),
    )
    with Progress(*columns, OfEvenWork(), console=open_console(stderr=True), transient=True) as bars:
        _open_bars.append(bars)
        try:
            yield bars
        finally:
            _open_bars.pop()
