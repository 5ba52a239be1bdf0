"""A scan looks at a data set: a reducer that is fed batches, merged with others of its kind, and asked for its result.

Merging is exact and does not depend on order or on how the data was cut: counts are integers, sums of real numbers are exact
(`ExactSum`), and what is kept of each image is ranked or sorted by its index. What is summed up is worked out batch by batch,
in floating point; so the *same batches* give the same bytes in any order, any partition and any number of processes. Batches
are always the same rows of a set for the same `batch_size`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from numbers import Integral
from typing import Any, Protocol, TypedDict, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from convscope.base.console import progress_bar
from convscope.compute import Executor, LocalProcesses, check_executor, executor_in_use, own_random_state, value_of
from convscope.data import Batch, ImageSet, ImagesLike, batches
from convscope.errors import (
    NetworkError,
    RequestError,
    SettingError,
    UnknownNameError,
    WorkerError,
    shortened,
)
from convscope.graph import INPUT, ReceptiveField, TracedGraph, check_finite, check_weights, evaluate, left_as_found
from convscope.nets import Task
from convscope.scans.room import batch_that_fits

Images = ImageSet | Float[Tensor, "N C H W"]
"""What scans are shown: a set, or images in [0, 1], which then have no targets."""


AnyImages = ImageSet | ImagesLike
"""What the methods of a scope take as `images`: tensors, NumPy arrays, PIL images, image files by their path, a list of any of
these (see `convscope.data.as_images`), or a set.
"""


class PassSettings(TypedDict, total=False):
    """How a pass over the images is made; `scan` explains each."""

    batch_size: int | None
    max_memory: int | None
    workers: int
    progress: bool
    executor: Executor | None


@dataclass(frozen=True, eq=False)
class BatchOutputs:
    """What scans are shown of a batch.

    Attributes:
        index: of each image in its set, (N,), on the CPU.
        outputs: the network's, (N, K), on the CPU; (N, 0) where no scan asked for them.
        targets: class indices by target, (N,) each, on the CPU; none where the images came without.
        activations: the results of the layers that scans asked for, by name, on the network's device; where there are any,
            also the images as the network takes them, by the name "input".
    """

    index: Int[Tensor, " N"]
    outputs: Float[Tensor, "N K"]
    targets: dict[str, Tensor]
    activations: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Scan(Protocol):
    """A reducer over the batches of a data set.

    A scan that looks inside the network has an attribute `layers`, the names of the operations whose results it needs. It
    then is not given the network's outputs, unless it has an attribute `needs_outputs` that is true.
    """

    def update(self, seen: BatchOutputs) -> None:
        """Takes a batch in."""

    def merge(self, other: Any) -> None:
        """Takes in all that another scan of the same kind has seen; the images must be others."""

    def result(self) -> Any:
        """What the data seen so far comes to; may be asked at any time."""


@runtime_checkable
class Untraced(Protocol):
    """A network with its images, which need not be traceable."""

    net: nn.Module
    input_shape: tuple[int, ...]
    """Channels, height and width of its images."""
    given_task: Task | None
    """What the outputs mean, where the run or the user says so."""

    def prepare(self, images: Tensor) -> Tensor:
        """The images as the network takes them, on its device."""

    def images(self, images: Any) -> Tensor:
        """Images of any kind as a batch in [0, 1]."""


@runtime_checkable
class Subject(Untraced, Protocol):
    """The network to scan; a `convscope.Scope` is one."""

    run: Any
    """The run that the network is from, in whose folder results are kept; None without one."""

    @property
    def graph(self) -> TracedGraph:
        """Needed only where scans look at layers."""

    def receptive_field(self, layer: str) -> ReceptiveField:
        """What part of the image a layer's units see."""

    def n_units(self, layer: str) -> int:
        """How many units a layer has."""

    def ablate(self, layers: Any, how: str, images: Any = None) -> Subject:
        """Another, over an edited copy of the network in which some units are ablated."""


def shown(scope: Subject, images: AnyImages) -> Images:
    """Images as scans take them: a set stays one, for it knows the classes and need not fit the memory."""
    return images if isinstance(images, ImageSet) else scope.images(images)


def scan(
    scope: Subject,
    images: Images,
    scans: Sequence[Scan],
    *,
    batch_size: int | None = None,
    max_memory: int | None = None,
    workers: int = 1,
    progress: bool = True,
    executor: Executor | None = None,
) -> list[Any]:
    """The results of any number of scans, all fed from one pass of the network over the images.

    The pass runs in evaluation mode and ends after the last layer that is needed. The network is left as it was found. After
    an error the scans hold part of the images: make new ones.

    Args:
        scope: the network, a `Scope`.
        images: a set, or a tensor (N, C, H, W) in [0, 1]; the latter has no targets.
        scans: new ones; see `Scan`.
        batch_size: images at once. By default as many as fit `max_memory`, see `batch_that_fits`. It can change the last bits
            of sums, never what is counted or ranked, as far as the network's own arithmetic does not depend on it.
        max_memory: bytes that the pass may take above the network; 512 MiB by default.
        workers: processes that share the images, each with its share of the threads. The result has the same bytes as with
            one. On the CPU only; starting takes some seconds, for each loads PyTorch and traces the network.
        progress: show a bar on the terminal.
        executor: where the images are shared out, in place of `workers`, such as `convscope.Ray`; the bytes are the same.

    Returns:
        Each scan's result, in their order. The scans may be merged with others, or asked again.

    Raises:
        RequestError: there are no images, or they do not fit the network.
        SettingError: batch_size, max_memory or workers is no whole number above 0, or there are workers for a GPU.
        NetworkError: the network cannot be traced, or not be sent to other processes.
        FailedError: the network's weights or answers are NaN or infinite, or a process was ended.

    Example:
        >>> predictions, loss = scan(scope, data.test, [Predictions(task), Loss(task.heads)])
    """
    for name, value in (("batch_size", batch_size), ("max_memory", max_memory), ("workers", workers)):
        if value is not None:
            check_count(name, value)
    if not hasattr(scope, "prepare"):
        raise RequestError(f"scope: {shortened(scope)}; expected a scope, such as convscope.Scope('runs/lines')")
    if not len(images):
        raise RequestError("there are no images to scan; give one at least")
    if not scans:
        return []
    check_weights(scope.net)
    names = names_wanted(scope, scans)
    size = batch_size or batch_that_fits(scope.graph if names else None, names, images, max_memory)
    bar = progress_bar("scanning", len(images)) if progress else nullcontext(lambda n: None)
    with bar as advance, _executor(scope, scans, min(workers, -(-len(images) // size)), executor) as where:
        try:
            if where.is_remote:
                work = partial(_fed_steps, where.put(images), where.put(scope), list(scans), size)
                steps = range(-(-len(images) // size))
                parts = where.map_partitions(work, steps, lambda n: advance(min(size, len(images) - n * size)))
            else:
                source = cut(images, size, _device(scope.net))
                fed = partial(_fed, scope, scans)
                parts = where.map_partitions(fed, source, lambda batch: advance(len(batch.index)))
        except WorkerError as error:
            raise WorkerError(
                f"a process that shared the scan ended before its time: {error}; give workers=1"
            ) from None
    merge_parts(scans, parts)
    return [each.result() for each in scans]


def merge_parts(scans: Sequence[Scan], parts: Iterable[Sequence[Scan]]) -> None:
    """Merges what the scans have become in the parts of a pass."""
    for part in parts:
        for each, other in zip(scans, part, strict=True):
            if other is not each:  # from another process
                each.merge(other)


def _executor(
    scope: Subject, scans: Sequence[Scan], workers: int, executor: Executor | None
) -> AbstractContextManager[Executor]:
    """So many processes, if they can share this work; for one, this process. What is given, or in use, comes first."""
    check_executor(executor)
    executor = executor or executor_in_use()
    if executor is None and workers == 1:
        return Executor()
    if _device(scope.net).type != "cpu":
        raise SettingError(f"workers: {workers} processes share the CPU, and the network is on a GPU; give workers=1")
    try:  # refuses hooks that are closures, too, whose notes would be lost in another process
        pickle.dumps((scope, list(scans)))
    except Exception as error:  # a module may hold anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise NetworkError(f"the network cannot be sent to other processes; give workers=1; {reason}") from error
    return nullcontext(executor) if executor else LocalProcesses(workers)


def _fed(scope: Subject, scans: Sequence[Scan], source: Iterator[Batch]) -> Sequence[Scan]:
    """The scans after they have seen these batches."""
    feed(scope.net, look_through(scope, scans), source, scans, lambda n: None)
    return scans


def _fed_steps(images: Any, scope: Any, scans: Sequence[Scan], size: int, steps: Iterator[int]) -> Sequence[Scan]:
    """The same, of the batches of these numbers, which follow one another; on a node of a cluster."""
    numbers = list(steps)
    source = cut(value_of(images), size, first=numbers[0])
    return _fed(value_of(scope), scans, islice(source, len(numbers)))


Look = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]
"""From images in [0, 1] to the network's outputs and the results of the layers that scans asked for."""


def look_through(scope: Subject, scans: Sequence[Scan]) -> Look:
    """How to look at images: by the network itself, which need not be traceable, or by its graph where layers are asked for."""
    names, answers = names_wanted(scope, scans), any(map(_needs_outputs, scans))
    inside = any(getattr(each, "layers", ()) for each in scans)

    def look(images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        prepared = scope.prepare(images)
        if not inside:
            return scope.net(prepared), {}
        results = scope.graph.run(prepared, names) if names else {}
        outputs = results[scope.graph.outputs[0]] if answers else prepared.new_empty(len(prepared), 0)
        return outputs, results | {INPUT: prepared}

    return look


@torch.no_grad()
def feed(
    net: nn.Module, look: Look, source: Iterable[Batch], scans: Sequence[Scan], advance: Callable[[int], None]
) -> None:
    """Shows batches to all scans, in one pass of the network, in evaluation mode.

    Raises:
        FailedError: the network's outputs are no numbers.
    """
    with left_as_found(net), own_random_state(_device(net)):
        evaluate(net)
        for batch in source:
            outputs, activations = look(batch.images)
            targets = {name: target.cpu() for name, target in batch.targets.items()}
            seen = checked(BatchOutputs(batch.index.cpu(), outputs.float().cpu(), targets, activations))
            for each in scans:
                each.update(seen)
            advance(len(batch.index))


def feed_stored(seen: BatchOutputs, scans: Iterable[Scan]) -> None:
    """Shows predictions that were made before to all scans."""
    for each in scans:
        each.update(seen)


def checked(seen: BatchOutputs) -> BatchOutputs:
    """The same, if every output is a finite number.

    Raises:
        FailedError: there is one that is not; figures of such a network would be nonsense.
    """
    check_outputs(seen.outputs)
    return seen


def check_outputs(outputs: Tensor) -> None:
    """Raises FailedError where an output of a network is no finite number."""
    check_finite(outputs, "the network answers with NaN or infinity; its weights are broken: train it again")


def cut(images: Images, size: int, device: torch.device | str = "cpu", first: int = 0) -> Iterator[Batch]:
    """The batches of a set or of a tensor of images, in order, from the one of number `first` on; those of a set on the
    device."""
    if isinstance(images, ImageSet):
        yield from batches(images, size, device=device, first_step=first)
        return
    for start in range(first * size, len(images), size):
        part = images[start : start + size]
        yield Batch(part, {}, torch.arange(start, start + len(part)))


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raises SettingError where the value of a setting is no whole number from `least` up."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise SettingError(f"{name}: {shortened(value)}; expected a whole number from {least} up")
    if value < least:
        raise SettingError(f"{name}: {value} is out of range; give {least} or more")


def sizes(how: PassSettings, own: Iterable[str]) -> dict[str, int | None]:
    """Of the settings of `scan` those on which the last bits of a result may depend.

    Args:
        how: the settings of `scan`, and what was misspelt.
        own: the names of the scan's own settings, any of which may be meant by what was misspelt.
    Raises:
        UnknownNameError: there is no such setting. `scan` would say so itself, but is not run where a result was kept.
    """
    for name in how.keys() - PassSettings.__annotations__.keys():
        raise UnknownNameError("setting", name, (*own, *PassSettings.__annotations__), "one of this scan's")
    return {"batch_size": how.get("batch_size"), "max_memory": how.get("max_memory")}


def names_wanted(scope: Subject, scans: Sequence[Scan]) -> list[str]:
    """The operations that scans look at, in the network's order; none where the outputs are all they need."""
    names = {name for each in scans for name in getattr(each, "layers", ())}
    if not names:
        return []
    if any(map(_needs_outputs, scans)):
        names.add(scope.graph.outputs[0])
    return [op.name for op in scope.graph.operations if op.name in names]


def _needs_outputs(each: Scan) -> bool:
    return getattr(each, "needs_outputs", not getattr(each, "layers", ()))


def _device(net: nn.Module) -> torch.device:
    return next((p.device for p in net.parameters()), torch.device("cpu"))
