"""Results that are kept in a run folder and found again by what they were made from."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import pandas as pd
import torch
from torch import Tensor, nn

from convscope.data import ImageSet
from convscope.errors import FailedError, RunFolderError
from convscope.runs import read_tensors, write_tensors, write_whole
from convscope.scans.scan import Subject

SCANS = "scans"
"""The folder of kept results within a run."""
FORMAT = 2
"""Of the records in it; raised when they come to mean something else."""


@runtime_checkable
class Record(Protocol):
    """A frozen dataclass whose entries are tensors and JSON values."""

    def table(self) -> pd.DataFrame:
        """Its figures, for other programs."""


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Kept:
    """Tensors with the card of JSON values beside them."""

    tensors: dict[str, Tensor]
    card: dict[str, Any]


def find(path: Path, key: Mapping[str, Any]) -> Kept | None:
    """What was kept in a file under that key; None where it is missing, damaged, or was made from something else."""
    try:
        tensors, card = read_tensors(path)
    except RunFolderError:
        return None
    same = isinstance(card, dict) and all(name in card and card[name] == key[name] for name in key)
    return Kept(tensors, card) if same else None


def keep(path: Path, kept: Kept, table: pd.DataFrame) -> None:
    """Writes tensors, and beside them a table for other programs (parquet).

    A folder that cannot be written costs nothing but the time of the next scan, so it is no error.
    """
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    try:
        write_whole(path.with_suffix(".parquet"), buffer.getvalue())
        write_tensors(path, kept.tensors, kept.card)  # last, for by this file the result is found again
    except FailedError:
        with suppress(OSError):  # no table without its tensors
            path.with_suffix(".parquet").unlink()


def kept_or_made(
    scope: Subject,
    name: str,
    images: ImageSet | Tensor,
    settings: Mapping[str, Any],
    kind: type[R],
    make: Callable[[], dict[str, R]],
) -> dict[str, R]:
    """Records by layer: from the scope's run folder, where the same were made before, else made and kept there.

    Args:
        scope: of a run; results of other scopes are not kept.
        name: of the scan, with which the file's name begins.
        images: those that are scanned.
        settings: all else that the result depends on. Where it does not fit JSON (a function, pixels), there is nothing to
            find the result by: it is not kept.
        kind: of the records: a frozen dataclass of tensors and JSON values, with a method `table`.
        make: makes them.
    """
    folder = getattr(scope.run, "path", None)
    plain = _in_json(settings)
    if folder is None or plain is None:
        return make()
    key = {
        "format": FORMAT,
        "weights": digest_of_weights(scope.net),
        "scope": digest_of_scope(scope),
        "data": digest_of_images(images),
        "settings": plain,
    }
    path = (
        folder
        / SCANS
        / f"{name}-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.safetensors"
    )
    kept = find(path, key)
    known = _unpacked(kept, kind) if kept else None
    if known is not None:
        return known
    made = make()
    keep(path, _packed(made, key), pd.concat([record.table() for record in made.values()]))
    return made


def _in_json(settings: Mapping[str, Any]) -> Any:
    """As they will be when read, tuples as lists; None where they do not fit."""
    try:
        return json.loads(json.dumps(settings))
    except TypeError:
        return None


def _packed(records: Mapping[str, Any], key: Mapping[str, Any]) -> Kept:
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {layer: {} for layer in records}
    for layer, record in records.items():
        for entry in fields(record):
            value = getattr(record, entry.name)
            if isinstance(value, Tensor):
                tensors[f"{layer}/{entry.name}"] = value
            else:
                values[layer][entry.name] = value
    return Kept(tensors, {**key, "records": values})


def _unpacked(kept: Kept, kind: type[R]) -> dict[str, R] | None:
    """The records; None where the file holds others."""
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    found = {}
    try:
        for layer, values in kept.card["records"].items():
            tensors = {name: kept.tensors[f"{layer}/{name}"] for name in names if name not in values}
            found[layer] = kind(**values, **tensors)
    except (KeyError, TypeError, AttributeError):
        return None
    return found


def digest_of_weights(net: nn.Module) -> str:
    """Of all parameters and buffers, with their names."""
    found = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        _add(found, tensor)
    return found.hexdigest()


def digest_of_scope(scope: Subject) -> str:
    """Of all but the weights that a result depends on: the settings of the modules, as they print them; what black and white
    become before the network, which is the normalisation; and what the outputs mean."""
    layout = re.sub(r" at 0x[0-9a-f]+", "", repr(scope.net))  # the address of a function, another in each process
    heads = scope.given_task.heads if scope.given_task else ()
    found = hashlib.sha256(f"{layout}\n{[(head.target, head.kind, head.classes) for head in heads]}\n".encode())
    _add(found, scope.prepare(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, *scope.input_shape)))
    return found.hexdigest()


def digest_of_images(images: ImageSet | Tensor) -> str:
    """Of pixels and targets, in portions: the pixels may be mapped from a file larger than the memory."""
    found = hashlib.sha256()
    pixels = images.pixels if isinstance(images, ImageSet) else images
    rows = images.index if isinstance(images, ImageSet) else torch.arange(len(images))
    found.update(f"{pixels.dtype} {len(rows)} {tuple(pixels.shape[1:])}\n".encode())
    for part in rows.split(1024):
        _add(found, pixels[part])
    if isinstance(images, ImageSet):
        for name, classes in sorted(images.classes.items()):
            found.update(f"{name} {json.dumps(classes)}\n".encode())
            _add(found, images.targets_of(name))
    return found.hexdigest()


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
