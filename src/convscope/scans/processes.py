"""The same pass in several processes: whichever is free takes the next batch."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

import torch

from convscope.data import Batch
from convscope.errors import ConvscopeError, FailedError, NetworkError, RequestError, SettingError
from convscope.scans.scan import Scan, Subject, feed, look_through


def feed_processes(
    scope: Subject, source: Iterator[Batch], scans: Sequence[Scan], workers: int, advance: Callable[[int], None]
) -> None:
    """Shows batches to copies of the scans in other processes, and merges what they have seen into the scans.

    Which process sees which batch is left to chance: merging does not depend on it.

    Raises:
        SettingError: the network is on a GPU.
        NetworkError: the network cannot be sent to other processes.
        FailedError: a process ended before its time.
    """
    if any(p.device.type != "cpu" for p in scope.net.parameters()):
        raise SettingError(f"workers: {workers} processes share the CPU, and the network is on a GPU; give workers=1")
    threads = max(1, torch.get_num_threads() // workers)
    try:
        job = pickle.dumps((scope, list(scans), threads))
    except Exception as error:  # a module may hold anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise NetworkError(f"the network cannot be sent to other processes; give workers=1; {reason}") from error
    with _started(workers, job) as ends:
        for copies in _served(ends, source, advance):
            for each, copy in zip(scans, copies, strict=True):
                each.merge(copy)


@contextmanager
def _started(workers: int, job: bytes) -> Iterator[list[Connection]]:
    """The parent's ends of pipes to as many processes; none of them is left running."""
    context = get_context("spawn")
    processes: list[BaseProcess] = []
    ends: list[Connection] = []
    try:
        for _ in range(workers):
            end, other = context.Pipe()
            ends.append(end)
            process: BaseProcess = context.Process(target=_work, args=(other, job), daemon=True)
            process.start()
            processes.append(process)
            other.close()
        yield ends
    finally:
        for end in ends:
            end.close()
        for process in processes:
            process.terminate()
            process.join()


def _served(
    ends: Sequence[Connection], source: Iterator[Batch], advance: Callable[[int], None]
) -> Iterator[list[Scan]]:
    """Hands batches to the processes that ask for one; yields the scans of each that has come to the end."""
    waiting = list(ends)
    while waiting:
        for end in cast(list[Connection], wait(waiting)):
            done, answer = _received(end)
            advance(done)
            if answer is not None:
                waiting.remove(end)
                yield answer
            else:
                _send(end, next(source, None))


def _received(end: Connection) -> tuple[int, list[Scan] | None]:
    """How many images the process has done since it last spoke; and its scans, once there is nothing left to do."""
    try:
        done, answer = pickle.loads(end.recv_bytes())  # noqa: S301 (from our own process, not from a file)
    except EOFError:
        raise FailedError(
            "a process that shared the scan ended before its time (out of memory, or the script lacks "
            'if __name__ == "__main__": around what it runs); give workers=1'
        ) from None
    if isinstance(answer, BaseException):
        raise answer
    return done, answer


def _work(end: Connection, job: bytes) -> None:
    """What such a process does: asks for batches until there are none, then gives its scans."""
    try:
        scope, scans, threads = pickle.loads(job)  # noqa: S301 (from our own process, not from a file)
        torch.set_num_threads(threads)
        feed(scope.net, look_through(scope, scans), _asked_for(end), scans, lambda n: None)
        _send(end, (0, scans))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):  # the parent has gone, or stops everything itself
        return
    except RequestError as error:
        _send(end, (0, RequestError(str(error))))
    except Exception as error:  # whatever it is, it is told where the user looks
        said = str(error) if isinstance(error, ConvscopeError) else f"{type(error).__name__}: {error}"
        _send(end, (0, FailedError(said)))


def _asked_for(end: Connection) -> Iterator[Batch]:
    done = 0
    while True:
        _send(end, (done, None))
        batch = pickle.loads(end.recv_bytes())  # noqa: S301 (from our own process, not from a file)
        if batch is None:
            return
        yield batch
        done = len(batch.index)


def _send(end: Connection, content: Any) -> None:
    # Plain bytes: torch's own way would leave the tensors in memory that ends with the process which sent them.
    end.send_bytes(pickle.dumps(content))
