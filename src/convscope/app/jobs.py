"""Slow questions, answered one after another in a process beside the server, so that the lab never waits for them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkstemp
from threading import Lock
from typing import Any

from convscope.app.explored import ExploredRun
from convscope.app.questions import QUESTIONS, answer
from convscope.compute import LocalProcesses, only_cached
from convscope.errors import ConvscopeError, FailedError, first_line

_ANSWERS_HELD = 64
_MOST_WAITING = 32


@dataclass(eq=False)
class Job:
    """A question that is being answered.

    Attributes:
        id: made of the question, the same for the same question.
        words: what is asked, for people.
        result: the answer, when `done`.
        error: why there is none.
        progress: the file that the process which works at it writes.
    """

    id: str
    words: str
    since: float = field(default_factory=time.monotonic)
    done: bool = False
    result: Any = None
    error: str | None = None
    task: asyncio.Task[None] | None = None
    progress: Path | None = None

    @property
    def share(self) -> float | None:
        """Of the work that is under way, in [0, 1]; None where it is not known."""
        try:
            return float(self.progress.read_text()) if self.progress else None
        except (OSError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Its state: "waiting", "done" or "failed", how far it is, and for how many seconds it has been asked."""
        state = "failed" if self.error else "done" if self.done else "waiting"
        return {"id": self.id, "words": self.words, "state": state, "error": self.error, "share": self.share,
                "seconds": round(time.monotonic() - self.since, 1)}  # fmt: skip


class Jobs:
    """Answers questions by name, see `convscope.app.questions`; each once.

    Args:
        trust: whether runs may run the code that they name as their network.
    """

    def __init__(self, trust: bool = False) -> None:
        self._trust, self._executor, self._alone = trust, LocalProcesses(1), asyncio.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._changing = Lock()  # answers from the cache come in threads

    def known(self, explored: ExploredRun, question: str, **arguments: Any) -> Any:
        """The answer where it was given before, or the run's cache has it.

        Raises:
            NotCachedError: it has to be worked out; see `ask`.
        """
        key = _id(explored, question, arguments)
        job = self._jobs.get(key)
        if job is not None and job.done and job.error is None:
            return job.result
        with only_cached():
            result = QUESTIONS[question](explored, **arguments)
        self._hold(Job(key, question, done=True, result=result))
        return result

    def ask(self, explored: ExploredRun, question: str, words: str = "", **arguments: Any) -> Job:
        """The job of a question, which begins or goes on; from the event loop.

        Raises:
            FailedError: too many jobs wait already.
        """
        key = _id(explored, question, arguments)
        job = self._jobs.get(key)
        if job is None or job.error is not None:
            if sum(not each.done for each in self._jobs.values()) >= _MOST_WAITING:
                raise FailedError("too many questions wait to be answered; cancel some, or try again later")
            job = Job(key, words or question)
            job.task = asyncio.create_task(self._work(job, explored, question, arguments))
        self._hold(job)
        return job

    def _hold(self, job: Job) -> None:
        """Keeps a job at hand; of many that are done the oldest are let go."""
        with self._changing:
            self._jobs[job.id] = job
            self._jobs.move_to_end(job.id)
            finished = [each for each in self._jobs.values() if each.done]
            for old in finished[: max(0, len(finished) - _ANSWERS_HELD)]:
                del self._jobs[old.id]

    def find(self, key: str) -> Job | None:
        """A job by its id."""
        return self._jobs.get(key)

    def cancel(self, job: Job) -> None:
        """Ends a job that is not done; the process that works at it is ended, and the next job gets a new one."""
        if job.task is not None and not job.task.cancelling():  # twice would not wait for the end of the process
            job.task.cancel()

    async def close(self) -> None:
        """Ends all jobs, and the process."""
        for job in list(self._jobs.values()):
            self.cancel(job)
            if job.task is not None:
                with suppress(asyncio.CancelledError):
                    await job.task
        await asyncio.to_thread(self._executor.__exit__)

    async def _work(self, job: Job, explored: ExploredRun, question: str, arguments: dict[str, Any]) -> None:
        try:
            async with self._alone:
                path = str(explored.run.path.absolute())
                number, name = mkstemp(prefix="convscope-")
                os.close(number)
                job.progress = Path(name)
                future = self._executor.submit(answer, path, self._trust, question, arguments, job.progress)
                try:
                    job.result = await asyncio.wrap_future(future)
                except asyncio.CancelledError:
                    await asyncio.shield(asyncio.to_thread(self._executor.kill))
                    raise
        except asyncio.CancelledError:
            job.error = "cancelled"
        except ConvscopeError as error:
            job.error = str(error)
        except Exception as error:
            job.error = f"unexpected {type(error).__name__}: {first_line(error)}"
        finally:
            job.done = True
            if job.progress is not None:
                job.progress.unlink(missing_ok=True)


def _id(explored: ExploredRun, question: str, arguments: dict[str, Any]) -> str:
    """Of the run as it was opened, and the question."""
    text = json.dumps([str(explored.run.path), explored.made_at, question, arguments], sort_keys=True, default=_digest)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _digest(value: Any) -> str:
    """Of a tensor, which is no JSON."""
    return hashlib.blake2b(value.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
