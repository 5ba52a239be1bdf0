"""Who is at work: marks of processes, and locks that end with the process that holds them."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX: the store's own claims must do
    fcntl = None  # type: ignore[assignment]

LOCKS = "study.lock"


class Locks:
    """Locks on single bytes of one file in a study folder, byte n for trial n. The system frees those of a process that ends.

    One object a process and folder: to close a file frees all its locks (POSIX).
    """

    def __init__(self, folder: Path) -> None:
        self.file = open(folder / LOCKS, "a+b")  # noqa: SIM115 (open as long as the process)

    @contextmanager
    def one(self, place: int) -> Iterator[bool]:
        """Whether the lock is ours inside; False where another process has it."""
        try:
            self._ask(place + 1, wait=False)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            self._free(place + 1)

    @contextmanager
    def all(self) -> Iterator[None]:
        """Waits for the lock of those who change what others may be about to change."""
        self._ask(0, wait=True)
        try:
            yield
        finally:
            self._free(0)

    def close(self) -> None:
        """Frees all."""
        self.file.close()

    def _ask(self, byte: int, wait: bool) -> None:
        if fcntl:
            fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)

    def _free(self, byte: int) -> None:
        if fcntl:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, byte)


def mark(pid: int | None = None) -> str:
    """A process in words that no other process has: machine, number, time of its start. This one by default."""
    pid = pid or os.getpid()
    return f"{_machine()} {pid} {_started(pid)}"


def is_dead(owner: str) -> bool:
    """Whether the process of that mark was on this machine and is no more; False where that cannot be known."""
    machine, pid, started = owner.rsplit(" ", 2)
    return machine == _machine() and not _is_the_same(pid, started)


def is_here(owner: str) -> bool:
    """Whether the process of that mark is alive on this machine."""
    machine, pid, started = owner.rsplit(" ", 2)
    return machine == _machine() and _is_the_same(pid, started)


def _is_the_same(pid: str, started: str) -> bool:
    return started != "" and _started(int(pid)) == started


@cache
def _machine() -> str:
    """This machine since its last start, and in it the space of process numbers: containers have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _started(pid: int) -> str:
    """When a process began, as the system writes it; '' where it is no more."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else rest[18]  # field 22 of proc(5); a zombie is no more
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    asked = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return asked.stdout.strip().replace(" ", "-")
