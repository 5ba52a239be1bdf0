"""Work on a Ray cluster: tasks on its nodes, large values once a node, and messages back to the process that gave the work."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import platform
import signal
import socket
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
import numpy as np
import torch

from convscope import __file__ as _own_file, __version__
from convscope.base.memory import tune_memory
from convscope.base.optional import import_optional
from convscope.compute.executor import Executor, answer_of, result_in
from convscope.compute.parallel import threads
from convscope.errors import FailedError, NodeLostError, SettingError, WorkerError, first_line

In = TypeVar("In")
Out = TypeVar("Out")

_CONNECT_S, _NODE_S = 5.0, 120.0  # until an address answers; until a node has loaded PyTorch
_SHARDS = 4  # for each task at a time, so that all end at about the same time
_KEPT = 4  # values that a process of a node keeps
_QUIET = {  # whatever the user sets wins
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # which Ray warns of where it is not set
}


class Ray(Executor):
    """Tasks on the nodes of a Ray cluster, a bounded number at a time.

    This process must run on a node of the cluster. Each task has `cpus` threads, so that it gives the same bits as a process
    of this machine with as many. Every node must have the same convscope, PyTorch and Python, and processors of one kind.

    Args:
        address: HOST:PORT of the cluster's head; "auto" for the one that runs on this machine; "local" starts one on this
            machine alone, which ends with this process.
        cpus: cores of a task, and its threads.
        gpus: of a task; 0.5 lets two tasks share one.
        tasks: at a time; by default as many as the nodes have room for, also when nodes come or go. With a cluster that
            grows on demand, how far it may.
        shared_disk: whether the nodes see this machine's files at the same paths; None finds it out. Where they do not, pixels
            go to each node once, and the files of a run come back.
        checkpoint_s: without a shared disk, an unfinished run's files come back at the end of an epoch when it is so long since
            the last time; what was trained since then is lost with a node.
        allow_different: also use nodes whose versions or processors differ; the last bits of results may then differ.
    Raises:
        SettingError: the cluster does not answer, a node has other versions, or no node has so many cores or GPUs.
        MissingPackageError: Ray is not installed.

    Example:
        >>> cs.sweep("widths.yaml", executor=cs.Ray("auto"))               # doctest: +SKIP
    """

    is_remote = True

    def __init__(
        self,
        address: str = "auto",
        *,
        cpus: int = 1,
        gpus: float = 0.0,
        tasks: int | None = None,
        shared_disk: bool | None = None,
        checkpoint_s: float = 30.0,
        allow_different: bool = False,
    ) -> None:
        for name, value, least in (("cpus", cpus, 1), ("gpus", gpus, 0), ("tasks", 1 if tasks is None else tasks, 1)):
            if value < least:
                raise SettingError(f"{name}: {value} is out of range; give {least} or more")
        self.cpus, self.gpus, self.tasks, self.shared_disk = cpus, gpus, tasks, shared_disk
        self.checkpoint_s, self.allow_different = checkpoint_s, allow_different
        self._going: dict[Future[Any], Any] = {}
        self._post: Any = None
        self._taken: Any = None
        self._nodes: tuple[float, list[dict[str, Any]]] = (0.0, [])
        for name, setting in _QUIET.items():  # which Ray reads when it is imported, and passes on
            os.environ.setdefault(name, setting)
        self._ray = import_optional("ray", "a cluster (--ray)", "ray")
        self._owns = not self._ray.is_initialized()
        if self._owns:
            self._connect(address)
        errors = self._ray.exceptions
        self._lost = (
            errors.NodeDiedError,
            errors.ObjectLostError,
            errors.TaskUnschedulableError,
        )  # the node is no more
        try:
            self._check_nodes()
        except BaseException:
            self._disconnect()
            raise
        self._task = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_call)

    @property
    def count(self) -> int:  # type: ignore[override]  # it changes with the cluster
        """Tasks at a time."""
        return self.tasks or max(1, sum(map(self._room, self.nodes())))

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive, as Ray describes them."""
        fetched_at, nodes = self._nodes
        if not nodes or time.monotonic() - fetched_at > 2:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._nodes = time.monotonic(), nodes
        return nodes

    def put(self, value: Any) -> Kept:
        return Kept(self._ray.put(_Shared(value)))

    def submit(self, work: Callable[..., Out], *arguments: Any) -> Future[Out]:
        expected = None if self.allow_different else versions()
        ref = self._task.remote(expected, self.cpus, self.gpus, work, *arguments)
        future: Future[Out] = Future()
        future.set_running_or_notify_cancel()
        self._going[future] = ref
        ref.future().add_done_callback(partial(self._done, future))
        return future

    def map_partitions(
        self, work: Callable[[Iterator[In]], Out], items: Iterable[In], advance: Callable[[In], None]
    ) -> list[Out]:
        """As of `Executor`, by shards: each call has some items that follow one another, and there are more calls than
        `count`. A shard whose node is lost is done again."""
        every = items if isinstance(items, Sequence) else list(items)
        size = max(1, len(every) // (_SHARDS * self.count))
        shards = [every[start : start + size] for start in range(0, len(every), size)]
        results: dict[int, Out] = {}
        for shard, result in self.map(_shard, list(enumerate(shards)), work):
            for item in shard[1]:
                advance(item)
            results[shard[0]] = result
        return [results[number] for number in range(len(shards))]

    def stop(self) -> None:
        """Pending tasks are cancelled; in the others it is as if the user had pressed Ctrl-C there."""
        for ref in list(self._going.values()):
            self._ray.cancel(ref, recursive=False)

    def kill(self) -> None:
        for ref in list(self._going.values()):
            self._ray.cancel(ref, force=True)
        wait(list(self._going), timeout=10)

    def __exit__(self, *error: object) -> None:
        self.kill()
        if self._post is not None:
            self._ray.kill(self._post)
            self._post = None
        self._disconnect()

    def line(self, key: str) -> Line:
        """What a task gets to send messages by, which `messages` gives under this key."""
        if self._post is None:
            node_id = self._ray.get_runtime_context().get_node_id()
            actor = self._ray.remote(num_cpus=0, max_concurrency=100_000, scheduling_strategy=self._on(node_id))(_Post)
            self._post = actor.remote()
        return Line(self._post, key)

    def messages(self) -> list[tuple[str, Any, bool]]:
        """What tasks have sent since the last call: key, message, and whether the task waits for `answer`."""
        messages: list[tuple[str, Any, bool]] = []
        if self._post is None:
            return messages
        self._taken = self._taken or self._post.take.remote()
        if self._ray.wait([self._taken], timeout=0)[0]:
            messages, self._taken = self._ray.get(self._taken), None
        return messages

    def answer(self, key: str, value: Any) -> None:
        """Lets the task go on that waits for it."""
        self._post.answer.remote(key, value)

    def on_each_node(self, work: Callable[..., Out], *arguments: Any) -> dict[str, Out]:
        """What a short piece of work gives on each node, by the node's name.

        Raises:
            SettingError: it cannot be done on a node, as where convscope is not installed.
        """
        task = self._ray.remote(num_cpus=0, max_retries=1)(_briefly)
        refs = {
            name_of(node): task.options(scheduling_strategy=self._on(node["NodeID"])).remote(work, *arguments)
            for node in self.nodes()
        }
        results: dict[str, Out] = {}
        for name, ref in refs.items():
            try:
                results[name] = self._ray.get(ref, timeout=_NODE_S)
            except self._ray.exceptions.GetTimeoutError:
                raise SettingError(f"node {name} of the cluster does not answer within {_NODE_S:.0f} s") from None
            except self._lost:  # it has just been switched off
                continue
            except self._ray.exceptions.RayError as error:
                lines = [line for line in str(error).splitlines() if "Error" in line] or [first_line(error)]
                raise SettingError(
                    f"node {name} of the cluster cannot be used: {lines[-1].strip()[:200]}; install the same convscope on "
                    "every node"
                ) from None
        return results

    def shares(self, folder: Path) -> bool:
        """Whether every node sees this folder's files at the same path."""
        if self.shared_disk is None:
            token = folder / f".{os.urandom(8).hex()}.shared"
            token.touch()
            try:
                return all(self.on_each_node(os.path.exists, str(token.resolve())).values())
            finally:
                token.unlink()
        return self.shared_disk

    def _on(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=False)

    def _done(self, future: Future[Any], inner: Future[Any]) -> None:
        self._going.pop(future, None)
        errors = self._ray.exceptions
        try:
            future.set_result(result_in(*inner.result()))
        except self._lost as error:
            future.set_exception(NodeLostError(f"its node was lost: {first_line(error)}"))
        except errors.TaskCancelledError:
            future.set_exception(WorkerError("it was ended before its end"))
        except errors.OutOfMemoryError:
            future.set_exception(WorkerError("its node had no memory left, and Ray ended it"))
        except errors.RayError as error:
            future.set_exception(WorkerError(first_line(error)))
        except BaseException as error:
            future.set_exception(error)

    def _connect(self, address: str) -> None:
        import ray._private.worker as internals

        # Ray prints of nodes that are lost, and whatever log_to_driver says, on stdout, where results are.
        internals.print_to_stdstream = lambda *arguments, **options: None
        own = address == "local"
        where = address if own else self._found(address)
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        try:
            with _handlers_kept(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._ray.init(address=where, **quiet, **({"include_dashboard": False} if own else {}))
        except Exception as error:  # versions of Ray or Python that differ, no node on this machine, another service
            raise SettingError(f"--ray {address}: {first_line(error)[:300]}") from None

    def _found(self, address: str) -> str:
        """Where the cluster's head is, which answers; Ray itself would try for minutes."""
        from ray._private.services import canonicalize_bootstrap_address

        head: str | None = address
        with suppress(ConnectionError):
            head = canonicalize_bootstrap_address(address) if address == "auto" else address
        if head in (None, "auto"):
            raise SettingError("--ray auto: no Ray cluster runs on this machine; give HOST:PORT, or: ray start --head")
        host, _, port = str(head).rpartition(":")
        if not host or not port.isdecimal() or "/" in host:
            raise SettingError(f"--ray {address}: expected auto, local or HOST:PORT, such as 10.0.0.1:6379")
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingError(
                f"--ray {address}: no cluster answers at {head} ({reason}); start one: ray start --head"
            ) from None
        return str(head)

    def _check_nodes(self) -> None:
        """Refuses a cluster in which no node has room for a task, or one has other versions than this machine."""
        for option, amount, kind in (("--cpus-per-run", self.cpus, "CPU"), ("--gpus-per-run", self.gpus, "GPU")):
            most = max(_has(node, kind) for node in self.nodes())
            if amount > most:
                raise SettingError(f"{option} {amount:g}: the largest node of the cluster has {most:g} {kind}s")
        for node, theirs in self.on_each_node(versions).items():
            if not self.allow_different:
                _check_same(versions(), theirs, node)

    def _room(self, node: Mapping[str, Any]) -> int:
        room = int(_has(node, "CPU") // self.cpus)
        return min(room, int(_has(node, "GPU") / self.gpus + 1e-9)) if self.gpus else room

    def _disconnect(self) -> None:
        if self._owns:
            self._ray.shutdown()


@dataclass(frozen=True)
class Kept:
    """A value in the cluster's memory, as an argument of work: a node gets it once."""

    ref: Any

    def value(self) -> Any:
        """The value itself, in a task; of the last few a process keeps what it has made of them."""
        key = self.ref.hex()
        if key not in _values:
            while len(_values) >= _KEPT:
                _values.popitem(last=False)
            import ray

            _values[key] = ray.get(self.ref)
        return _values[key]


_values: OrderedDict[str, Any] = OrderedDict()


def value_of(kept: Any) -> Any:
    """What `Executor.put` was given."""
    return kept.value() if isinstance(kept, Kept) else kept


@dataclass(frozen=True)
class Line:
    """Sends messages from a task to the process that submitted it."""

    post: Any
    key: str

    def tell(self, message: Any, wait: bool = False) -> Any:
        """Sends a message; the answer to it, where it waits for one."""
        import ray

        return ray.get(self.post.tell.remote(self.key, message, wait))


class _Post:
    """An actor beside the process that gave the work, in which messages wait for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any, bool]] = []
        self.waiting: dict[str, Any] = {}
        self.come = asyncio.Event()

    async def tell(self, key: str, message: Any, wait: bool) -> Any:
        self.messages.append((key, message, wait))
        if wait:
            self.waiting[key] = asyncio.get_running_loop().create_future()
        self.come.set()
        return await self.waiting[key] if wait else None

    async def take(self) -> list[tuple[str, Any, bool]]:
        await self.come.wait()
        self.come.clear()
        messages, self.messages = self.messages, []
        return messages

    async def answer(self, key: str, value: Any) -> None:
        if (future := self.waiting.pop(key, None)) and not future.done():
            future.set_result(value)


class _Shared:
    """A value whose pixels the processes of a node read where they lie in its memory, and never write to."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        buffers: list[pickle.PickleBuffer] = []
        with io.BytesIO() as file:
            _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(self.value)
            return _opened, (file.getvalue(), buffers)


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        # By PyTorch's own way each reader would have a copy. Other tensors may be written to: a network's, for example.
        if type(obj) is torch.Tensor and obj.dtype in (torch.uint8, torch.uint16) and obj.is_contiguous():
            return _pixels, (obj.numpy(),)
        return super().reducer_override(obj)


def _opened(content: bytes, buffers: list[Any]) -> Any:
    return pickle.loads(content, buffers=buffers)  # noqa: S301 (from our own process, not from a file)


def _pixels(values: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they cannot be written to
        return torch.from_numpy(values)


def _call(
    expected: Mapping[str, str] | None, cpus: int, gpus: float, work: Callable[..., Any], *arguments: Any
) -> tuple[str, Any]:
    """On a node: what a piece of work comes to."""
    import ray

    def done() -> Any:
        if expected is not None:
            _check_same(expected, versions(), node_name())
        tune_memory()
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        with threads(cpus):
            return work(*map(value_of, arguments))

    try:
        return answer_of(done)
    except ray.exceptions.RayError as error:
        return "error", (FailedError, first_line(error))


def _briefly(work: Callable[..., Out], *arguments: Any) -> Out:
    return work(*arguments)


def _shard(shard: tuple[int, list[Any]], work: Callable[[Iterator[Any]], Out]) -> Out:
    return work(iter(shard[1]))


@cache
def versions() -> dict[str, str]:
    """What must be the same on two machines for a run to come to the same bits."""
    content = blake2b(digest_size=4)
    for file in sorted(Path(_own_file).parent.rglob("*.py")):
        content.update(file.read_bytes())
    return {
        "convscope": f"{__version__} ({content.hexdigest()})",
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


@cache
def node_name() -> str:
    """In a task: of the node that it runs on, where its process stays."""
    import ray

    own: str = ray.get_runtime_context().get_node_id()
    return next((name_of(node) for node in ray.nodes() if node["NodeID"] == own), own[:8])


def name_of(node: Mapping[str, Any]) -> str:
    """A node's name, as given to `ray start --node-name`; its address where it was given none."""
    return str(node.get("NodeName") or node["NodeManagerAddress"])


def _check_same(own: Mapping[str, str], theirs: Mapping[str, str], node: str) -> None:
    different = [f"{name} {theirs.get(name)}, here {own[name]}" for name in own if theirs.get(name) != own[name]]
    if different:
        raise SettingError(
            f"node {node} of the cluster has {'; '.join(different)}: its results would differ in their last bits; install "
            "the same everywhere, or give --allow-different"
        )


def _has(node: Mapping[str, Any], kind: str) -> float:
    return float(node["Resources"].get(kind, 0))


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Signals are ours also after Ray has taken SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
