"""Workers as processes of this machine. Another engine may start the same worker elsewhere: it needs a Job and no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import torch

from convscope.study.claims import mark

NO_TRACKER = 3
"""Exit status of a worker that cannot begin a tracker."""


@dataclass(frozen=True)
class Job:
    """What a worker is told.

    Attributes:
        folder: of the study, whose study.yaml says what is asked.
        storage: of the store; None is SQLite in the folder.
        device: as given to --device.
        threads: its share of the cores.
        seconds: begin nothing new after so long; None is no limit.
        parent: process to stop after; None on another machine.
        track: see convscope.train.
    """

    folder: str
    storage: str | None
    device: str
    threads: int
    seconds: float | None = None
    parent: int | None = None
    track: tuple[str, ...] = ()

    def line(self) -> str:
        """As it is sent."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> Job:
        """As it was sent."""
        told = json.loads(line)
        return cls(**{**told, "track": tuple(told["track"])})


@dataclass(frozen=True)
class Ended:
    """A worker that has ended.

    Attributes:
        owner: its mark, as in the store.
        status: as subprocess gives it: 0, or minus the signal that ended it.
        lines: what it wrote.
    """

    owner: str
    status: int
    lines: tuple[str, ...]

    @property
    def reason(self) -> str:
        """Why it ended, in words."""
        if self.status >= 0:
            return self.lines[-1] if self.lines else f"it ended with status {self.status}"
        name = signal.Signals(-self.status).name
        memory = ", as the system does when memory runs out" if self.status == -signal.SIGKILL else ""
        return f"it was ended by {name}{memory}"


class LocalWorkers:
    """Up to `count` processes of this machine, which share its cores and GPUs.

    Args:
        job: what each is told; device and threads are shared out.
        count: at most so many at once.
    """

    def __init__(self, job: Job, count: int) -> None:
        self.job, self.count = job, count
        self._going: list[tuple[subprocess.Popen[str], str, IO[str], int]] = []

    @property
    def owners(self) -> list[str]:
        """The marks of those that are going."""
        return [owner for _, owner, _, _ in self._going]

    def start(self, seconds: float | None = None) -> None:
        """Starts one, which begins nothing new after so many seconds."""
        slot = min(set(range(self.count)) - {taken for *_, taken in self._going})
        job = replace(self.job, device=_device(self.job.device, slot), seconds=seconds, parent=os.getpid())
        words = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed when it has ended)
        process = subprocess.Popen(
            [sys.executable, "-m", "convscope.study.worker"],
            stdin=subprocess.PIPE, stdout=words, stderr=words, text=True, env=_environment(job.threads),
            process_group=0,  # Ctrl-C on the terminal is for the parent, which stops them
        )  # fmt: skip
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin as told:  # one that is gone already is found as ended
            told.write(job.line())
        self._going.append((process, mark(process.pid), words, slot))

    def ended(self) -> list[Ended]:
        """Those that have ended since the last call."""
        over = [each for each in self._going if each[0].poll() is not None]
        self._going = [each for each in self._going if each not in over]
        return [Ended(owner, process.returncode, _lines(words)) for process, owner, words, _ in over]

    def stop(self) -> None:
        """Asks all to save and stop."""
        for process, *_ in self._going:
            process.terminate()

    def kill(self) -> None:
        """Ends all at once."""
        for process, *_ in self._going:
            process.kill()
        for process, *_ in self._going:
            process.wait()


def share_of_cores(workers: int) -> int:
    """Threads for each of so many workers: together no more than this process would use."""
    return max(1, torch.get_num_threads() // workers)


def _device(device: str, slot: int) -> str:
    """Where there are several GPUs the workers take them in turn."""
    n_gpus = torch.cuda.device_count() if device == "auto" else 0
    return f"cuda:{slot % n_gpus}" if n_gpus > 1 else device


def _environment(threads: int) -> dict[str, str]:
    """Threads are counted when PyTorch is loaded, so they are set before; convscope is found where it was found here."""
    home = str(Path(__file__).parents[2])
    paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _lines(words: IO[str]) -> tuple[str, ...]:
    with words:
        words.seek(0)
        return tuple(line.strip() for line in words if line.strip())
