"""A process that dies at a file operation of our choice: after the n-th write, rename, removal or new folder.

In this process death is an exception that nothing in convscope catches, and after which no operation does anything, so that no
`finally` can tidy up; in a process of its own (bench/faults.py) it is SIGKILL.
"""

from __future__ import annotations

import builtins
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, event

_OF_PATHS = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir")


class Killed(BaseException):
    """The process is no more."""


def _raise() -> None:
    raise Killed


class Life:
    """Counts the file operations below some folders, and ends after the n-th.

    Attributes:
        done: operations so far, in words.
    """

    def __init__(self, *folders: Path, last: int | None = None, end: Callable[[], None] = _raise) -> None:
        self.folders, self.last, self.end = [str(folder) for folder in folders], last, end
        self.done: list[str] = []

    def before(self) -> None:
        """Nothing is done by the dead."""
        if self.last is not None and len(self.done) >= self.last:
            self.end()

    def after(self, words: str) -> None:
        self.done.append(words)
        self.before()

    @property
    def is_last(self) -> bool:
        """Whether the operation in hand is the last."""
        return self.last is not None and len(self.done) + 1 == self.last

    def is_ours(self, path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        return os.path.abspath(os.fspath(path)).startswith(tuple(self.folders))  # type: ignore[arg-type]


class _File:
    """A file opened to be written, whose last write is a half one."""

    def __init__(self, file: Any, life: Life, name: str) -> None:
        self._file, self._life, self._name = file, life, name

    def write(self, data: Any) -> Any:
        self._life.before()
        if self._life.is_last:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            self._life.after(f"half of {self._name}")
        found = self._file.write(data)
        if self._life.last is not None:
            self._file.flush()  # as large ones are
        self._life.after(f"write {self._name}")
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __del__(self) -> None:
        self._file.close()


@contextmanager
def lived(life: Life) -> Iterator[None]:
    """Inside, the file operations of this process are that life's; the number of the process is that of a dead one."""
    with ExitStack() as patched:
        for name in _OF_PATHS:
            patched.enter_context(patch.object(os, name, _counted(life, name, getattr(os, name))))
        opened = _opened(life, io.open)
        for module in (builtins, io):
            patched.enter_context(patch.object(module, "open", opened))
        patched.enter_context(patch.object(os, "getpid", lambda number=dead_process(): number))

        def commit(connection: Any) -> None:
            if life.is_last:  # as the system does with what a process had open
                connection.connection.driver_connection.close()
            life.before()
            life.after("commit")

        event.listen(Engine, "commit", commit)
        patched.callback(event.remove, Engine, "commit", commit)
        yield


def dead_process() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def _counted(life: Life, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if not (life.is_ours(arguments[0]) or options.get("dir_fd") is not None):
            return function(*arguments, **options)
        life.before()
        found = function(*arguments, **options)
        life.after(f"{name} {os.path.basename(os.fspath(arguments[-1 if name in ('rename', 'replace') else 0]))}")
        return found

    return call


def _opened(life: Life, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not (set(mode) & set("wxa+") and life.is_ours(file)):
            return function(file, mode, *arguments, **options)
        life.before()
        name = os.path.basename(os.fspath(file))
        written = _File(function(file, mode, *arguments, **options), life, name)
        life.after(f"open {name}")
        return written

    return call
