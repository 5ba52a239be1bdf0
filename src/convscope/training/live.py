"""A training as one sees it: a live table and bar on a terminal, a line an epoch elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, runtime_checkable

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from convscope.base.console import open_console

_SHOWN = 12
_COLUMNS = (
    ("epoch", "epoch", "{:d}"),
    ("train loss", "train_loss", "{:.4f}"),
    ("train acc.", "train_accuracy", "{:.2%}"),
    ("val loss", "val_loss", "{:.4f}"),
    ("val acc.", "val_accuracy", "{:.2%}"),
    ("rate", "rate", "{:.2e}"),
    ("seconds", "seconds", "{:.1f}"),
    ("images/s", "images_per_s", "{:,.0f}"),
)


@runtime_checkable
class Watcher(Protocol):
    """Someone who looks on while a network trains; it must not touch anything. As a base class it does nothing."""

    def begin(self, epochs: int, steps: int, history: list[dict[str, Any]]) -> None:
        return

    def stage(self, name: str, about: str) -> None:
        return

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        return

    def epoch(self, row: dict[str, Any]) -> None:
        return

    def end(self) -> None:
        return


class Silent(Watcher):
    """Nothing at all."""


class Lines(Silent):
    """One line an epoch, for logs."""

    def begin(self, epochs: int, steps: int, history: list[dict[str, Any]]) -> None:
        self.epochs = epochs

    def stage(self, name: str, about: str) -> None:
        print(f"stage {name}: {about}", file=sys.stderr, flush=True)  # noqa: T201

    def epoch(self, row: dict[str, Any]) -> None:
        cells = (f"{title} {form.format(row[key])}" for title, key, form in _COLUMNS[1:])
        stage = [row["stage"]] if "stage" in row else []
        print(f"epoch {row['epoch']}/{self.epochs}", *stage, *cells, sep="  ", file=sys.stderr, flush=True)  # noqa: T201


class LiveTable:
    """The last epochs as a table, and a bar over the steps of the whole training."""

    def begin(self, epochs: int, steps: int, history: list[dict[str, Any]]) -> None:
        self.epochs, self.steps, self.rows = epochs, steps, list(history)
        self.loss, self.drawn = float("nan"), 0.0
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"), BarColumn(None),
            TextColumn("{task.percentage:.0f} %"), TextColumn("loss {task.fields[loss]:.4f}"), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        done = len(history) * steps
        self.task = self.bar.add_task(
            "", total=epochs * steps, completed=done, epoch=len(history) + 1, epochs=epochs, loss=self.loss
        )
        self.live = Live(self._screen(), console=open_console(stderr=True), refresh_per_second=4)
        self.live.start()

    def stage(self, name: str, about: str) -> None:
        self.live.console.print(f"stage {name}: {about}", highlight=False, markup=False)

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        if loss is not None:  # a smoothed loss: single steps jump
            self.loss = loss if self.loss != self.loss else 0.95 * self.loss + 0.05 * loss
        if time.monotonic() - self.drawn > 0.2:
            self.drawn = time.monotonic()
            self.bar.update(self.task, completed=epoch * self.steps + step, epoch=epoch + 1, loss=self.loss)

    def epoch(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.bar.update(self.task, completed=row["epoch"] * self.steps, epoch=row["epoch"])
        self.live.update(self._screen())

    def end(self) -> None:
        self.live.stop()

    def _screen(self) -> Group:
        table = Table(box=None, padding=(0, 2), header_style="bold")
        if staged := any("stage" in row for row in self.rows):
            table.add_column("stage")
        for title, _, _ in _COLUMNS:
            table.add_column(title, justify="right")
        best = max((row["val_accuracy"] for row in self.rows), default=None)
        for row in self.rows[-_SHOWN:]:
            style = "green" if row["val_accuracy"] == best else ""
            cells = [form.format(row[key]) for _, key, form in _COLUMNS]
            table.add_row(*([Text(row["stage"]), *cells] if staged else cells), style=style)
        return Group(table, self.bar)
