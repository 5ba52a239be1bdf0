"""Executors: where work runs. Sweeps and scans know `Executor` alone; an engine for a cluster is one more class.

Work is a function with arguments that can be pickled, and so is its result; both may contain what the user's own script or
notebook defines. A process never runs that script again, so it needs no `if __name__ == "__main__":`.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from itertools import islice
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, Any, TypeVar

import cloudpickle

from convscope.errors import (
    ConvscopeError,
    FailedError,
    NodeLostError,
    RequestError,
    SettingError,
    WorkerError,
    first_line,
    shortened,
)

In = TypeVar("In")
Out = TypeVar("Out")
_TRIES = 3


class Executor(AbstractContextManager["Executor"]):
    """Runs work in this process, one piece after another: the serial engine, and the interface of all.

    As a context manager it ends what still runs when the block is left.

    Attributes:
        count: how many pieces of work run at the same time.
    """

    count = 1
    is_remote = False
    """Whether work is done where this machine's files and processes are not seen."""

    def put(self, value: Any) -> Any:
        """A value that goes to many pieces of work, as an argument for `submit` or `map`; a cluster sends it once a node."""
        return value

    def on_each_node(self, work: Callable[..., Out], *arguments: Any) -> dict[str, Out]:
        """What a short piece of work gives on each node of a cluster, by the node's name; here none is another machine."""
        return {}

    def map(
        self, work: Callable[..., Out], items: Iterable[In], *arguments: Any, window: int | None = None
    ) -> Iterator[tuple[In, Out]]:
        """Each item with what `work(item, *arguments)` gives, in the order in which they are done.

        Args:
            work: gives the same however often it is called: where its process or node is lost it is done again.
            items: drawn as they are begun.
            arguments: the same for all.
            window: so many are begun and not done at a time; by default a few more than run at the same time.
        Raises:
            WorkerError: an item's process ended three times.
            ConvscopeError: as in the first call that failed.
        """
        remaining, most = iter(items), window or 2 * self.count
        going: dict[Future[Out], tuple[In, int]] = {}  # the item, and how often its process has ended
        try:
            while True:
                for item in islice(remaining, most - len(going)):
                    going[self.submit(work, item, *arguments)] = item, 0
                if not going:
                    return
                for future in wait(going, return_when=FIRST_COMPLETED).done:
                    item, deaths = going.pop(future)
                    try:
                        result = future.result()
                    except WorkerError as error:
                        deaths += not isinstance(error, NodeLostError)
                        if deaths >= _TRIES:
                            raise
                        going[self.submit(work, item, *arguments)] = item, deaths
                    else:
                        yield item, result
        finally:
            if going:
                self.kill()

    def submit(self, work: Callable[..., Out], *arguments: Any) -> Future[Out]:
        """Begins a piece of work.

        Returns:
            Its future, whose result raises what went wrong: WorkerError where a process ended, else a ConvscopeError.
        """
        future: Future[Out] = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def map_partitions(
        self, work: Callable[[Iterator[In]], Out], items: Iterable[In], advance: Callable[[In], None]
    ) -> list[Out]:
        """Shares items out among `count` calls of the same work, each of which takes its next item when it is free.

        Args:
            work: gets the items that fall to it, one after another. Which these are is left to chance.
            items: drawn one at a time, when one is asked for.
            advance: is given each item that is done, from any thread.
        Returns:
            The results, in order of the calls.
        Raises:
            WorkerError, ConvscopeError: as in the first call that failed; the others are ended.
        """

        def drawn() -> Iterator[In]:
            for item in items:
                yield item
                advance(item)

        return [work(drawn())]

    def stop(self) -> None:
        """Asks all work to save and end, as SIGTERM does; work in this process receives the user's signal itself."""

    def kill(self) -> None:
        """Ends all work at once; new work may be submitted."""

    def __exit__(self, *error: object) -> None:
        self.kill()


def check_executor(executor: object) -> None:
    """Raises RequestError where a value that is given as an executor is none."""
    if executor is not None and not isinstance(executor, Executor):
        raise RequestError(f"executor: {shortened(executor)}; expected one, such as convscope.LocalProcesses(2)")


_in_use: ContextVar[Executor | None] = ContextVar("executor", default=None)


@contextmanager
def using(executor: Executor | None) -> Iterator[None]:
    """Inside, scans run by this executor where they are given none."""
    check_executor(executor)
    token = _in_use.set(executor)
    try:
        yield
    finally:
        _in_use.reset(token)


def executor_in_use() -> Executor | None:
    """That of the block in which this is called; see `using`."""
    return _in_use.get()


class LocalProcesses(Executor):
    """Up to `count` processes of this machine, among which its cores are shared out.

    A process is started when there is work for it, and takes the next piece when it is done; one that dies takes down its own
    piece alone. All end with this process.
    """

    def __init__(self, count: int) -> None:
        if not (isinstance(count, int) and count >= 1):
            raise SettingError(f"count: {shortened(count)}; expected a whole number of processes, 1 or more")
        self.count = count
        self._threads = ThreadPoolExecutor(count, "convscope-executor")  # each waits for the answers of one process
        self._futures: set[Future[Any]] = set()
        self._processes: set[_Process] = set()
        self._idle: list[_Process] = []
        self._killing = False
        self._starting = Lock()  # so that a wish to stop or end finds what is being started

    def submit(self, work: Callable[..., Out], *arguments: Any) -> Future[Out]:
        return self._submit(_packed(work, arguments, False))

    def map_partitions(
        self, work: Callable[[Iterator[In]], Out], items: Iterable[In], advance: Callable[[In], None]
    ) -> list[Out]:
        remaining, drawing = iter(items), Lock()

        def draw() -> tuple[In, ...]:
            with drawing:
                return tuple(islice(remaining, 1))

        call = _packed(work, (), True)
        futures = [self._submit(call, draw, advance) for _ in range(self.count)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            self.kill()
            raise
        return [future.result() for future in futures]

    def stop(self) -> None:
        self._end_idle()
        with self._starting:
            processes = list(self._processes)
        for process in processes:
            process.terminate()

    def kill(self) -> None:
        self._killing = True
        while wait(self._futures, timeout=0).not_done:
            for process in list(self._processes):
                process.kill()
            wait(self._futures, timeout=0.1)  # and again, for one may be starting
        self._end_idle()
        self._killing = False

    def __exit__(self, *error: object) -> None:
        with self._starting:
            self._threads.shutdown(wait=False)  # no work is taken from here on, so that none is missed
        self.kill()
        self._threads.shutdown()

    def _submit(self, *call: Any) -> Future[Any]:
        with self._starting:
            try:
                future = self._threads.submit(self._run, *call)
            except RuntimeError as error:
                raise RequestError(
                    "executor: its block was left, and its processes have ended; open a new one"
                ) from error
            self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def _run(self, *call: Any) -> Any:
        if self._killing:
            raise WorkerError("it was ended before it began")
        process, goes_on = self._take(), False
        try:
            result, goes_on = process.run(*call)
            return result
        finally:
            if goes_on:
                self._idle.append(process)
            else:
                self._end(process)

    def _take(self) -> _Process:
        """A process without work, which none else takes."""
        with suppress(IndexError):
            while (process := self._idle.pop()).poll() is not None:
                self._end(process)
            return process
        with self._starting:
            self._processes.add(process := _Process(share_of_cores(self.count)))
        return process

    def _end_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._end(self._idle.pop())

    def _end(self, process: _Process) -> None:
        self._processes.discard(process)
        with process.words, suppress(BrokenPipeError), process:
            process.kill()


def _packed(*call: Any) -> bytes:
    try:
        packed: bytes = cloudpickle.dumps(call)
    except Exception as error:  # an object may hold anything
        raise RequestError(f"this work cannot be sent to another process: {first_line(error)}") from error
    return packed


class _Process(subprocess.Popen[bytes]):
    """A process that runs `convscope.compute.worker`.

    Attributes:
        words: what it writes to stderr.
    """

    stdin: IO[bytes]
    stdout: IO[bytes]

    def __init__(self, threads: int) -> None:
        self.words = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed when it has ended)
        # What can be imported here can be there. Threads are counted when PyTorch is loaded, so they are set before.
        settings = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": str(threads)}
        super().__init__(
            [sys.executable, "-m", "convscope.compute.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.words, env=os.environ | settings,
            process_group=0,  # Ctrl-C on the terminal is for this process, which stops them
        )  # fmt: skip

    def run(
        self, call: bytes, draw: Callable[[], tuple[Any, ...]] = tuple, advance: Callable[[Any], object] = id
    ) -> tuple[Any, bool]:
        """The result of a piece of work, and whether the process can take another."""
        drawn: tuple[Any, ...] = ()
        kind, content, goes_on = self._answer(call)
        while kind == "draw":
            for item in drawn:
                advance(item)
            drawn = draw()
            kind, content, goes_on = self._answer(drawn)
        result = result_in(kind, content)
        return pickle.loads(result), goes_on  # noqa: S301 (from our own process, not from a file)

    def _answer(self, message: object) -> Any:
        # Plain bytes: torch's own way would leave the tensors in memory that ends with the process which sent them.
        try:
            pickle.dump(message, self.stdin)
            self.stdin.flush()
            return pickle.load(self.stdout)  # noqa: S301
        except (EOFError, OSError, pickle.UnpicklingError):
            status = self.wait()
            self.words.seek(0)
            raise WorkerError(reason_of(status, self.words.read().split("\n"))) from None


def answer_of(work: Callable[[], Any]) -> tuple[str, Any]:
    """What a piece of work comes to, as it can be sent to another process; see `result_in`."""
    try:
        return "result", work()
    except ConvscopeError as error:
        return "error", (type(error), str(error))
    except Exception as error:  # whatever it is, the user sees it
        return "error", (FailedError, f"{type(error).__name__}: {error}".removesuffix(": "))


def result_in(kind: str, content: Any) -> Any:
    """The result of a piece of work, or its error raised."""
    if kind == "error":
        error, message = content
        raise error.__new__(error, message)  # its own __init__ may want what the message was made of
    return content


def reason_of(status: int, lines: Sequence[str]) -> str:
    """Why a process ended, in words.

    Args:
        status: as subprocess gives it: 0 or more, or minus the signal that ended it.
        lines: what it wrote to stderr.
    """
    if status >= 0:
        return next((line.strip() for line in reversed(lines) if line.strip()), f"it ended with status {status}")
    memory = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
    name = next((each.name for each in signal.Signals if each == -status), f"signal {-status}")
    return f"it was ended by {name}{memory}"


def share_of_cores(count: int) -> int:
    """Threads for each of so many processes: together no more than this process would use."""
    import torch

    return max(1, torch.get_num_threads() // count)
