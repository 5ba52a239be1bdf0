"""A study as one sees it while it goes on: one screen on a terminal, a line a finished run elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from convscope.base.console import open_console
from convscope.study.words import settings_in_words

_SHOWN = 16


@dataclass(frozen=True)
class Going:
    """A run that goes on: its folder's name, settings, finished epochs of all, the metric after the last of them, and where in
    a cluster it is."""

    name: str
    settings: Mapping[str, Any]
    epoch: int
    epochs: int
    value: float | None
    node: str = ""


@dataclass(frozen=True)
class Best:
    """The best setting so far: its mean metric, over how many seeds."""

    settings: Mapping[str, Any]
    value: float
    n: int


@dataclass(frozen=True)
class Standing:
    """Where a study stands.

    Attributes:
        total: units of work in all; None where only time limits them.
        done, pruned, failed: those that have ended; diverged ones count as failed.
        going: runs that go on.
        waiting: units of work that nobody has; None where only time limits them.
        best: None before the first is done.
        left_s: estimated time to the end; None as long as nothing is known.
    """

    total: int | None
    done: int
    pruned: int
    failed: int
    going: list[Going] = field(default_factory=list)
    waiting: int | None = None
    best: Best | None = None
    left_s: float | None = None


@dataclass(frozen=True)
class Finished:
    """A unit of work that has just ended, the n-th of all: its words are its value, or why it has none."""

    nth: int
    name: str
    settings: Mapping[str, Any]
    state: str
    words: str
    seconds: float | None


@runtime_checkable
class View(Protocol):
    """Someone who shows how a study goes."""

    def begin(self, name: str, metric: str) -> None: ...
    def show(self, standing: Standing) -> None: ...
    def finished(self, each: Finished) -> None: ...
    def say(self, line: str) -> None: ...
    def end(self) -> None: ...


def default_view() -> View:
    """A screen where stderr is a terminal, else lines."""
    return Screen() if sys.stderr.isatty() else Lines()


class Lines:
    """A line for each unit of work that ends."""

    def begin(self, name: str, metric: str) -> None:
        self.metric, self.standing = metric, Standing(None, 0, 0, 0)

    def show(self, standing: Standing) -> None:
        self.standing = standing

    def finished(self, each: Finished) -> None:
        progress = f"{each.nth}/{self.standing.total}" if self.standing.total else f"{each.nth}"
        time_taken = "" if each.seconds is None else f"  {each.seconds:.1f} s"
        words = f"{self.metric} {each.words}" if each.state == "done" else f"{each.state}: {each.words}"
        self.say(f"{progress}  {each.name}  {settings_in_words(each.settings)}  {words}{time_taken}")

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    def end(self) -> None:
        pass


class Silent(Lines):
    """Nothing at all."""

    def say(self, line: str) -> None:
        pass


class Screen:
    """One screen: how many are done, what goes on, the best so far, the estimated end."""

    def begin(self, name: str, metric: str) -> None:
        self.name, self.metric = name, metric
        self.console = open_console(stderr=True)
        self.live = Live(console=self.console, refresh_per_second=2)
        self.live.start()

    def show(self, standing: Standing) -> None:
        self.live.update(screen(self.name, self.metric, standing))

    def finished(self, each: Finished) -> None:
        if each.state in ("failed", "diverged"):  # stays above the screen
            self.say(f"{each.name} {each.state}: {each.words}")

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, style="yellow")

    def end(self) -> None:
        self.live.stop()


def screen(name: str, metric: str, standing: Standing) -> Group:
    """The screen as Rich draws it."""
    ended = standing.done + standing.pruned + standing.failed
    counts = Text.assemble((name, "bold"), "  ", (f"{standing.done} done", "green"), f" · {len(standing.going)} going")
    if standing.waiting is not None:
        counts.append(f" · {standing.waiting} waiting")
    for number, word, style in ((standing.pruned, "pruned", "yellow"), (standing.failed, "failed", "red")):
        if number:
            counts.append(f" · {number} {word}", style)
    parts: list[Any] = [counts]
    if standing.total:
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        bar.add_row(ProgressBar(total=standing.total, completed=ended), f"{ended}/{standing.total}")
        parts.append(bar)
    if standing.left_s is not None and (standing.going or standing.waiting):
        end_time = time.strftime("%a %H:%M", time.localtime(time.time() + standing.left_s))
        parts.append(Text(f"about {duration(standing.left_s)} left, until {end_time}"))
    if standing.best:
        best = standing.best
        seeds = f" (mean of {best.n} seeds)" if best.n > 1 else ""
        words = settings_in_words(best.settings)
        parts.append(Text(f"best so far: {metric} {best.value:.4f}{seeds}  {words}", "green"))
    return Group(*parts, _going(metric, standing.going)) if standing.going else Group(*parts)


def _going(metric: str, going: list[Going]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", "epoch", metric):
        table.add_column(title, justify="left" if title == "run" else "right", no_wrap=True, min_width=len(title))
    on_nodes = any(each.node for each in going)
    if on_nodes:
        table.add_column("node", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for each in going[:_SHOWN]:
        value = "" if each.value is None else f"{each.value:.4f}"
        node = [each.node] if on_nodes else []
        table.add_row(each.name, f"{each.epoch}/{each.epochs}", value, *node, settings_in_words(each.settings))
    if len(going) > _SHOWN:
        table.add_row(f"… {len(going) - _SHOWN} more")
    return table


def duration(seconds: float) -> str:
    """'0.4 s', '50 s', '12 min', '3 h 20 min', '2 d 4 h'."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.{int(seconds < 0.95)}f} s"
    if minutes < 120:
        return f"{minutes} min"
    return (
        f"{minutes // 60} h {minutes % 60} min" if minutes < 2880 else f"{minutes // 1440} d {minutes % 1440 // 60} h"
    )
