"""A run is a folder: everything needed to reopen, resume, verify and share it; its files are listed in names.py."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd
from pydantic import ConfigDict, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from convscope.compute import write_whole
from convscope.data import DataBundle, ImagesLike, load_data, without_warnings
from convscope.errors import FailedError, NetworkError, RequestError, RunFolderError, UntrustedCodeError, shortened
from convscope.nets import Task, build_net, code_in, make_task
from convscope.runs.files import load_weights, read_tensors, write_tensors
from convscope.runs.names import (
    CHECKPOINT,
    ENVIRONMENT,
    GIVEN,
    HISTORY,
    HISTORY_FIGURES,
    METRICS,
    MODEL,
    PREDICTIONS,
    SPEC,
    read_object,
)
from convscope.runs.prediction import View, predict_batches
from convscope.runs.spec import RunSpec, dump_spec, load_spec


@dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))
class Card:
    """What one must know beside the weights to use a network: it travels in the header of model.safetensors.

    Attributes:
        input_shape: (C, H, W) of the images.
        mean, std: of each channel, to normalise images in [0, 1].
        classes: names of the classes of each target.
        task: each head by its target, as a spec writes it: its kind, or {"kind", "weight"}.
    """

    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    classes: dict[str, tuple[str, ...]]
    task: dict[str, Any]

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.input_shape[0]:
            raise ValueError(f"input_shape {self.input_shape}, mean {self.mean}, std {self.std}")


class Run:
    """A run folder, opened; its parts are read when first asked for.

    Example:
        >>> run = open_run("runs/lines")                      # doctest: +SKIP
        >>> run.metrics["accuracy"]["value"]                  # doctest: +SKIP
    """

    def __init__(self, path: Path, net: nn.Module | None = None, trust: bool = False) -> None:
        self.path = path
        self._given, self._trust = net, trust

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @cached_property
    def spec(self) -> RunSpec:
        """What was asked for."""
        return load_spec(self._file(SPEC))

    @property
    def is_trained(self) -> bool:
        """Whether the training came to its end."""
        return (self.path / MODEL).exists()

    @cached_property
    def card(self) -> Card:
        """Input shape, normalisation, classes and task."""
        try:
            return Card(**self._model[1])
        except (TypeError, ValueError):
            raise RunFolderError(
                f"{self.path / MODEL} lacks the card that convscope writes; take the run's own file"
            ) from None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the first head's classes."""
        return self.task.heads[0].classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.card.input_shape

    @property
    def bits(self) -> int:
        """Of the images: 8 or 16; see `DataSpec.bits`."""
        return self.spec.data.bits

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of each channel, for images in [0, 1]."""
        return self.card.mean, self.card.std

    @cached_property
    def task(self) -> Task:
        """What the network's outputs mean."""
        return make_task(self.card.task, self.card.classes)

    @cached_property
    def net(self) -> nn.Module:
        """The trained network in evaluation mode: on the CPU, or where the module is that was given to open_run.

        Raises:
            NetworkError: the run was made from a module that has no name to build it from; give it to open_run.
            UntrustedCodeError: its network is a callable that the folder names, which is not trusted; see open_run.
        """
        if self._given is None and self.spec.net.name == GIVEN:
            raise NetworkError(f"{self.path} was trained from a module: open it with open_run(path, net=that module)")
        if self._given is None:
            self.check_trust()
            net = build_from_spec(self.spec, self.card, trained_weights=False)
        else:
            net = _copy(self._given)
        load_weights(net, self._model[0], self.path / MODEL)
        return net.eval()

    def check_trust(self) -> None:
        """Raises UntrustedCodeError where building the network would run code, or read files, that only the folder names."""
        code = code_in(self.spec.net)
        if code is not None and not self._trust:
            raise UntrustedCodeError(
                f"{self.path}: its network would run code or read files that its spec names: {code}; if you trust whoever "
                "made this folder, add --trust-code, or open it with open_run(path, trust=True)"
            )

    def command(self, verb: str) -> str:
        """A command line about this run as a shell takes it, such as "convscope evaluate 'runs/a b' --trust-code"."""
        trust = "" if code_in(self.spec.net) is None else " --trust-code"
        return f"convscope {verb} {quote(str(self.path))}{trust}"

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch: losses in nats, accuracies as shares, seconds, learning rate; the stage, where there are any."""
        try:
            with open(self._file(HISTORY), "rb") as file:  # a name that is no UTF-8 is none for pyarrow
                history = pd.read_parquet(file)
        except (ValueError, OSError) as error:
            raise RunFolderError(f"{self.path / HISTORY} is damaged and cannot be read: {error}") from None
        numbers = history.select_dtypes("number").columns
        if missing := [name for name in HISTORY_FIGURES if name not in numbers]:
            raise RunFolderError(f"{self.path / HISTORY} is no history: it lacks numbers in the column {missing[0]!r}")
        return history

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What the test images come to, each figure with its interval; see convscope.scans.evaluate."""
        match metrics := self.read_json(METRICS):
            case {"accuracy": accuracy, "loss": loss, "heads": dict(), "images": _}:
                if _is_figure(accuracy) and _is_figure(loss):
                    return metrics
        raise RunFolderError(f"{self.path / METRICS} is damaged; {_CURES[METRICS]} anew")

    @cached_property
    def predictions(self) -> dict[str, Tensor]:
        """`logits` (N, outputs), and `target.NAME` (N,) for every head, of the test images in order."""
        return read_tensors(self._file(PREDICTIONS))[0]

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, hardware, date, and the digest of the data."""
        match environment := self.read_json(ENVIRONMENT):
            case {"packages": _, "data": {"digest": str(), "images": {"train": _, "val": _, "test": _}}}:
                return environment
        raise RunFolderError(f"{self.path / ENVIRONMENT} is damaged: it does not name data and packages")

    def load_data(self) -> DataBundle:
        """The run's data set, loaded again.

        Raises:
            RunFolderError: it is not where it was, or its content is not what the run was trained on.
        """
        source = self.spec.data.source
        if os.path.isabs(source) and not os.path.exists(source):
            raise RunFolderError(
                f"{self.path}: its data are not at {source} any more, or not on this machine; bring them there, or write "
                f"into {self.path / SPEC}, as data.source, where they are"
            )
        data = load_data(self.spec.data)
        digest = self.environment["data"]["digest"]
        if digest != data.digest:
            raise RunFolderError(
                f"{self.path}: its data set {data.name!r} has changed since the training "
                f"(digest {data.digest[:12]}, then {digest[:12]}); bring the old data back, or train again"
            )
        return data

    def predict(
        self,
        images: ImagesLike | Sequence[str | os.PathLike[str]],
        *,
        top: int = 1,
        probabilities: bool = False,
        views: Sequence[View] = (),
        device: str = "auto",
        batch: int | None = None,
    ) -> pd.DataFrame:
        """The class of each of new images, a row an image.

        Args:
            images: paths of image files and of folders that hold some, or pixels, see `convscope.data.as_images`. Files are
                resized and change their channels as in training.
            top: so many classes, the most probable first: columns `class`, `probability`, `class 2`, `probability 2`, …
            probabilities: with a column `p(NAME)` for each class.
            views: the probabilities are means over the image and these changes of it (test-time augmentation).
            device: see `convscope.compute.choose_device`.
            batch: how many at once.
        Returns:
            Columns `file` (of pixels their number, from 0); for each head its classes and probabilities, of several heads under
            the name of its target (`problem class` of a target `problem`); and `problem`, which says why a file could not be
            read.
        Raises:
            DataError: a path is not there, or a folder holds no image.
            RequestError: pixels are not as the network takes them.

        Example:
            >>> open_run("runs/mine").predict("photos")       # doctest: +SKIP
        """
        tables = predict_batches(
            self, images, top=top, probabilities=probabilities, views=views, device=device, batch=batch
        )
        with without_warnings():
            return pd.concat(list(tables), ignore_index=True)

    def has(self, part: str) -> bool:
        """Whether a file of the folder is there."""
        return (self.path / part).exists()

    def check_there(self) -> None:
        """Refuses to go on with a run whose folder was removed or renamed meanwhile.

        Raises:
            FailedError: it is not there any more.
        """
        if not self.has(SPEC):
            raise FailedError(
                f"{self.path} was removed or renamed during the training, which stops here; "
                "a renamed one goes on with convscope train --resume FOLDER"
            )

    def read_json(self, part: str) -> dict[str, Any]:
        """A JSON file of the folder, which holds an object.

        Raises:
            RunFolderError: it is missing or damaged.
        """
        try:
            return read_object(self._file(part))
        except (ValueError, OSError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunFolderError(f"{self.path / part} is damaged: {reason}") from None

    def write_json(self, part: str, values: Any) -> None:
        """Writes a JSON file of the folder, whole or not at all."""
        write_whole(self.path / part, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def write_tensors(self, part: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any] | None = None) -> None:
        """Writes tensors of the folder, whole or not at all."""
        write_tensors(self.path / part, tensors, card or {})

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Writes the history, a row an epoch."""
        self.write_table(HISTORY, pd.DataFrame(rows))

    def write_table(self, part: str, table: pd.DataFrame) -> None:
        """Writes a parquet file of the folder, whole or not at all."""
        write_whole(self.path / part, table.to_parquet(index=False))

    def write_model(self, net: nn.Module, card: Card) -> None:
        """Writes the trained weights with their card."""
        self.write_tensors(MODEL, net.state_dict(), asdict(card))

    def write_spec(self, spec: RunSpec) -> None:
        """Writes what was asked for."""
        write_whole(self.path / SPEC, dump_spec(spec))

    def _file(self, part: str) -> Path:
        path = self.path / part
        if not path.exists():
            raise RunFolderError(f"{path} is missing; {_CURES.get(part, 'the run is not complete')}")
        if not path.is_file():  # nor a pipe, which would be waited for
            raise RunFolderError(f"{path} is no file; take the run's own")
        return path

    @cached_property
    def _model(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return read_tensors(self._file(MODEL))


def _copy(net: nn.Module) -> nn.Module:
    """A network of the run's own, for its owner may train the module on, or open another run with it; if it can be copied."""
    # what a forward pass left on a module may hang on gradients, and such tensors cannot be copied
    values = (value for module in net.modules() for value in vars(module).values())
    with suppress(Exception):  # a module may hold anything
        return deepcopy(net, {id(t): t.detach().clone() for t in values if isinstance(t, Tensor) and not t.is_leaf})
    return net


def _is_figure(value: Any) -> bool:
    """Whether it is {"value", "low", "high"}, each a number or null."""
    keys = ("value", "low", "high")
    return isinstance(value, dict) and all(isinstance(value.get(key, ""), int | float | None) for key in keys)


RunOrFolder = Run | str | os.PathLike[str]
"""What functions take that look at a run; see `open_run`."""

_CURES = {
    MODEL: "the training has not come to its end: convscope train --resume takes it there",
    PREDICTIONS: "convscope evaluate makes it",
    METRICS: "convscope evaluate makes it",
}


def open_run(path: RunOrFolder, net: nn.Module | None = None, *, trust: bool = False) -> Run:
    """The run in a folder.

    Args:
        path: the folder; an opened run is given back as it is.
        net: the network to load the weights into, where the spec does not say how to build it; the run takes a copy of it.
        trust: whether to import and run a callable that the folder names as its network (`package.module:callable`). Networks
            of the catalogue, of timm and of torchvision need no trust: a run folder is made to be shared, and opening it
            runs no code of whoever made it.
    Raises:
        RunFolderError: there is no run, or one that this convscope is too old to read.
        RequestError: it is neither a path nor a run.
    """
    if isinstance(path, Run):
        return path
    if not isinstance(path, str | os.PathLike):
        raise RequestError(f"run: {shortened(path)}; expected a run, or its folder, such as runs/lines")
    folder = Path(path)
    if not os.path.isdir(folder):
        raise RunFolderError(f"{folder} is no folder; expected a run, such as runs/lines")
    if not os.path.exists(folder / SPEC):
        raise RunFolderError(f"{folder} holds no run: {SPEC} is missing")
    run = Run(folder, net, trust)
    run.spec  # noqa: B018 (refuses here what cannot be read)
    if run.is_trained and run.has(CHECKPOINT):  # a kill came between the last two steps of the training
        with suppress(OSError):
            (folder / CHECKPOINT).unlink()
    return run


def build_from_spec(spec: RunSpec, card: Card, trained_weights: bool = True) -> nn.Module:
    """The network as the spec names it before its training, fitted to the data's shape and the task's outputs.

    Args:
        spec, card: of the run.
        trained_weights: False leaves out those that the spec asks for (`net.pretrained`), where others will be loaded.
    """
    if spec.net.name == GIVEN:
        raise NetworkError(
            "this run is trained from a module of your own: go on with cs.train(net, data, recipe, out=…, resume=True)"
        )
    channels, height, width = card.input_shape
    if height != width and ":" not in spec.net.name:
        raise NetworkError(
            f"{spec.net.name} takes square images; these are {height}×{width}: set data.image_size, or use module:callable"
        )
    shape = {"classes": make_task(card.task, card.classes).outputs, "channels": channels, "image_size": height}
    options = shape | spec.net.options
    if not trained_weights and "pretrained" in options:
        options["pretrained"] = False
    net = spec.net
    return build_net(net.name, init=net.init, head=net.head, replaces=net.replaces, **options)
