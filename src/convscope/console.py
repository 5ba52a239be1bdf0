"""Progress on the user's terminal; silent where there is none. Everything goes to stderr, so that stdout stays data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(label: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """A bar for `total` units of work; yields the function that advances it by n.

    Example:
        with progress_bar("decoding", len(files)) as advance:
            for chunk in chunks:
                work(chunk)
                advance(len(chunk))
    """
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}/{task.total:,.0f}"))
    with Progress(*columns, TextColumn(unit), TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)
