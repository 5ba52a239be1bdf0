"""What the routes of the explorer share: runs, labs, threads, uploads and jobs."""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from typing import Any, TypeVar

from torch import Tensor

from convscope.app.explored import ExploredRun, ExploredRuns
from convscope.app.jobs import Jobs
from convscope.app.lab import Lab
from convscope.data import read_image
from convscope.errors import ConvscopeError, RequestError

T = TypeVar("T")

_UPLOADS_HELD, _UPLOADED_BYTES = 64, 2**27


class Explorer:
    """What the routes share: the runs, their labs, the threads in which networks run, uploads and jobs.

    Args:
        runs: that are explored.
    """

    def __init__(self, runs: ExploredRuns) -> None:
        self.runs, self._labs = runs, dict[int, Lab]()
        self.uploads: OrderedDict[str, bytes] = OrderedDict()
        self._network = ThreadPoolExecutor(1, "convscope-network")  # a network answers one request at a time
        self._pages = ThreadPoolExecutor(2, "convscope-pages")

    async def start(self) -> None:
        """Begins to load the first run's data and network, so that the first page finds them."""
        self.jobs = Jobs(self.runs.trust)
        self._starting = asyncio.create_task(self._warm(self.runs[0]))

    async def _warm(self, run: ExploredRun) -> None:
        loaded = await self.by_network(_load, run, "data") and await self.by_network(_load, run, "layers")
        if not gc.isenabled():  # as `convscope serve` starts
            gc.freeze()
            gc.enable()
        if loaded:
            self.jobs.ask(run, "ready")

    async def close(self) -> None:
        """Ends what still runs."""
        self._starting.cancel()
        await self.jobs.close()
        for pool in (self._network, self._pages):
            pool.shutdown(wait=False, cancel_futures=True)

    async def by_network(self, work: Callable[..., T], *arguments: Any) -> T:
        """Work in the thread that owns the networks, first come first served."""
        return await asyncio.get_running_loop().run_in_executor(self._network, work, *arguments)

    async def by_page(self, work: Callable[..., T], *arguments: Any) -> T:
        """Work that does not run a network."""
        return await asyncio.get_running_loop().run_in_executor(self._pages, work, *arguments)

    def lab(self, number: int) -> Lab:
        """The lab of a run, by its number."""
        explored = self.runs[number]
        if number not in self._labs or self._labs[number].explored is not explored:
            self._labs[number] = Lab(explored)
        return self._labs[number]

    async def answer(self, run: ExploredRun, question: str, words: str, **arguments: Any) -> Any:
        """The answer to a slow question, when it is there.

        Raises:
            RequestError: there is none, in the words of what went wrong.
        """
        job = self.jobs.ask(run, question, words, **arguments)
        if job.task is not None:
            await asyncio.shield(job.task)
        if job.error is not None:
            raise RequestError(job.error)
        return job.result

    def keep(self, content: bytes) -> str:
        """Holds an uploaded image under the name that is given back; of many the oldest are let go."""
        name = f"u{blake2b(content, digest_size=8).hexdigest()}"
        self.uploads[name] = content
        self.uploads.move_to_end(name)
        while len(self.uploads) > _UPLOADS_HELD or sum(map(len, self.uploads.values())) > _UPLOADED_BYTES:
            self.uploads.popitem(last=False)
        return name

    def uploaded(self, number: int) -> Callable[[str], Tensor]:
        """Gives an uploaded image, as a run's network takes it, by its name."""
        run = self.runs[number].run

        def image(name: str) -> Tensor:
            content = self.uploads.get(name)
            if content is None:
                raise RequestError(f"image {name}: it is not here any more; upload it again")
            return read_image(content, run.input_shape, run.bits)

        return image


def _load(explored: ExploredRun, part: str) -> bool:
    """Whether a part that the lab needs of a run could be loaded; if not, it says why when it is asked for."""
    with suppress(ConvscopeError, OSError):
        return explored.is_evaluated and bool(getattr(explored, part))
    return False
