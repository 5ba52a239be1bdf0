"""Trackers: the figures of a training also go to TensorBoard, MLflow or Weights & Biases, by their own clients.

A tracker is told of epochs, never of steps. It is asked which epochs it has before it is given more; so a resumed training goes
on in the same tracker's run, and what it missed is added. Its number there is kept in the run folder (trackers.json).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from convscope.base.optional import import_optional
from convscope.errors import DivergedError, SettingError, StoppedError, TrackerError, UnknownNameError, first_line
from convscope.runs import HISTORY, Run
from convscope.training.live import Watcher
from convscope.training.tracker_clients import CLIENTS, Status, Tracker

Rows = Sequence[Mapping[Any, Any]]

LEFT = "no more tracking with"
"""How the line on stderr begins which says that a tracker has failed."""


def check_trackers(names: Sequence[str]) -> None:
    """Makes sure that trackers can be used, before anything else is begun.

    Args:
        names: of "tensorboard", "mlflow", "wandb".
    Raises:
        UnknownNameError: there is no such tracker.
        MissingPackageError, BrokenPackageError: its package is not installed, or its import fails.
    """
    if isinstance(names, str):
        raise SettingError(f"track: {names!r} is one name; give a list of names, such as [{names!r}]")
    for name in names:
        if name not in CLIENTS:
            raise UnknownNameError("tracker", name, CLIENTS, "known")
        import_optional(name, f"tracking with {name}", "wandb" if name == "wandb" else "track")


@contextmanager
def tracked(watcher: Watcher, names: Sequence[str], run: Run, rows: Rows) -> Iterator[Watcher]:
    """The watcher with trackers beside it. They are given the settings and the epochs so far, and ended when the block is left.

    Args:
        watcher: alone is told of steps.
        names: see check_trackers.
        run: its spec and folder.
        rows: of the epochs before a resumed training.
    Raises:
        TrackerError: a tracker cannot be begun. One that fails later says so, once, and the training goes on.
    """
    trackers: list[_Told] = []
    status: Status = "failed"
    try:
        for name in dict.fromkeys(names):
            one = _Told(name, run)
            try:
                _catch_up(one.tracker, run, rows)
            except Exception as error:  # the packages have errors of many kinds
                raise TrackerError(
                    f"tracking with {name} cannot begin: {first_line(error).rstrip('.')}; so nothing was trained: "
                    "put that right, or leave this tracker out"
                ) from error
            trackers.append(one)
        yield _Beside(watcher, trackers) if trackers else watcher
        status = "finished"
    except (StoppedError, KeyboardInterrupt, DivergedError) as error:
        status = "diverged" if isinstance(error, DivergedError) else "stopped"
        raise
    finally:
        for one in trackers:
            one.tell(lambda tracker: tracker.close(status))


def track_results(run: Run, metrics: Mapping[str, Any], names: Sequence[str]) -> None:
    """Adds the figures of the test images to trackers; epochs that one has missed, or a whole run, are added too.

    Args:
        run: a trained run.
        metrics: what `evaluate` gives.
        names: see check_trackers.
    """
    rows = run.history.to_dict("records")

    def add(tracker: Tracker) -> None:
        _catch_up(tracker, run, rows)
        tracker.results(len(rows), flat_metrics(metrics))
        tracker.close("finished")

    for name in dict.fromkeys(names):
        _Told(name, run).tell(add)


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What `evaluate` gives, under flat names: test_accuracy, test_accuracy_low and _high (its interval) …"""
    heads = metrics["heads"] if len(metrics["heads"]) > 1 else {}
    head_figures = {f"{key}.{name}": head[key] for name, head in heads.items() for key in ("loss", "accuracy")}
    figures: dict[str, float] = {}
    for key, figure in {**metrics, **head_figures}.items():
        if not isinstance(figure, Mapping) or "value" not in figure or key == "train_accuracy":
            continue
        name = key if key == "overfit_percent" else f"test_{key}"
        ends = {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}
        figures |= {end: float(value) for end, value in ends.items() if value is not None and math.isfinite(value)}
    return figures


class _Beside:
    """A watcher, and trackers that are told of epochs alone: a step costs what it costs without them."""

    def __init__(self, watcher: Watcher, trackers: list[_Told]) -> None:
        self.watcher, self.told = watcher, trackers
        self.begin, self.stage, self.step, self.end = watcher.begin, watcher.stage, watcher.step, watcher.end

    def epoch(self, row: dict[str, Any]) -> None:
        self.watcher.epoch(row)
        for one in self.told:
            one.tell(lambda tracker: _add(tracker, row))


class _Told:
    """A tracker that is told until it fails; then it says so, once."""

    def __init__(self, name: str, run: Run) -> None:
        self.name, self.run, self.failed = name, run, False
        self.tracker: Tracker = CLIENTS[name]()

    def tell(self, act: Callable[[Tracker], None]) -> None:
        if self.failed:
            return
        try:
            act(self.tracker)
        except Exception as error:  # of any kind, as in `tracked`
            self.failed = True
            print(  # noqa: T201
                f"{LEFT} {self.name}, which failed: {first_line(error).rstrip('.')}; nothing of the run is lost: "
                f"all epochs are in {self.run.path / HISTORY}",
                file=sys.stderr, flush=True,
            )  # fmt: skip


def _catch_up(tracker: Tracker, run: Run, rows: Rows) -> None:
    last = tracker.open(run)
    for row in rows:
        if row["epoch"] > last:
            _add(tracker, row)


def _add(tracker: Tracker, row: Mapping[str, Any]) -> None:
    tracker.row(int(row["epoch"]), {key: float(value) for key, value in row.items() if key not in ("epoch", "stage")})
