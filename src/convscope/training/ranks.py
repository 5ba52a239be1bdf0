"""Several processes that train one network together, as torchrun starts them: which of them this is, and what they share.

A step's images are the same whatever the number of processes: each takes its share of them, and PyTorch's
DistributedDataParallel adds up the gradients. So a spec means the same training on one GPU and on eight, apart from dropout,
from batch norm (each process normalises its own share; `recipe.sync_batch_norm` measures all) and from the last bits of sums.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from convscope.compute import choose_device
from convscope.errors import FailedError, SettingError
from convscope.runs import Run

Out = TypeVar("Out")

_DECODING = timedelta(hours=4)
"""The longest that processes wait for each other: the first decodes the images meanwhile."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train a network together; by default it is alone.

    Attributes:
        rank: of this process, from 0. The first one writes the run folder.
        count: of processes.
        local: of this process among those of its machine, of which the first one decodes the images.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def rows(self, start: int, stop: int) -> slice:
        """This process' share of some images of a step."""
        places = [start + (stop - start) * rank // self.count for rank in (self.rank, self.rank + 1)]
        return slice(*places)

    def joined(self, net: nn.Module) -> nn.Module:
        """The network, whose gradients are the mean of those of all processes."""
        # a layer that no output depends on has no gradient, as in a single process
        return net if self.count == 1 else DistributedDataParallel(net, find_unused_parameters=True)

    def summing(self, net: nn.Module, now: bool) -> AbstractContextManager[Any]:
        """A forward and backward pass inside adds up gradients over the processes, or leaves that to a later one."""
        return net.no_sync() if isinstance(net, DistributedDataParallel) and not now else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """The gradient of the sum of all processes' losses."""
        with _others():
            (loss if self.count == 1 else self.count * loss).backward()  # for `joined` takes the mean

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.count > 1:
            with _others():
                dist.all_reduce(values)
        return values

    def any(self, asked: bool, device: torch.device | str = "cpu") -> bool:
        """Whether it is so in any process."""
        return asked if self.count == 1 else bool(self.total(torch.tensor(float(asked), device=device)))

    def share(self, tensors: Iterable[Tensor]) -> None:
        """All processes take the first one's values."""
        for tensor in tensors if self.count > 1 else ():
            with _others():
                dist.broadcast(tensor, 0)

    def after_the_first(self, work: Callable[[], Out], device: torch.device) -> Out:
        """The work's result. The first process of a machine does the work and caches it, only then the others do it."""
        if self.local == 0:
            result = work()
            self.any(False, device)
            return result
        self.any(False, device)
        return work()


@contextmanager
def together(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """This process among those that torchrun, or the user's own script, started; with the device that is its own.

    Raises:
        SettingError: there is no such device, or there are more processes on this machine than it has GPUs.
    """
    launched = dist.is_torchelastic_launched()
    own = launched and not dist.is_initialized()
    local = int(os.environ["LOCAL_RANK"]) if launched else 0
    n_gpus = torch.cuda.device_count()
    if launched and n_gpus and device in ("auto", "cuda"):
        if (n_here := int(os.environ["LOCAL_WORLD_SIZE"])) > n_gpus:
            raise SettingError(
                f"torchrun: {n_here} processes on a machine of {n_gpus} GPUs; give --nproc-per-node={n_gpus}"
            )
        device = f"cuda:{local}"
    where = choose_device(device)
    if own:
        if where.type == "cuda":
            torch.cuda.set_device(where)
        _meet("nccl" if where.type == "cuda" else "gloo")
    try:
        yield (Ranks(dist.get_rank(), dist.get_world_size(), local) if dist.is_initialized() else Ranks()), where
    finally:
        if own:
            dist.destroy_process_group()


def _meet(backend: str) -> None:
    """The processes of this start find each other.

    torchrun keeps one store over all its starts, so that after a restart a process reads the addresses that its dead
    predecessors left there (pytorch/pytorch#135712). On one machine the number of the start keeps them apart; on several
    each torchrun has a count of its own, and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 gives every start a new store.
    """
    store, rank, count = next(rendezvous("env://", timeout=_DECODING))
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        store = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_DECODING)


class FollowedRun(Run):
    """A run folder that another process writes."""

    def check_there(self) -> None:
        pass

    def write_json(self, *given: Any) -> None:
        pass

    def write_tensors(self, *given: Any) -> None:
        pass

    def write_table(self, *given: Any) -> None:
        pass


@contextmanager
def _others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not any(library in str(error).lower() for library in ("gloo", "nccl")):
            raise
        raise FailedError("another process of this training has ended, or cannot be reached") from error
