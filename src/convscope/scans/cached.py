"""Results of scans, cached in the run folder: found again by weights, images, settings and the version of the scan."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from convscope.compute import Entry, cached, entry_path
from convscope.data import ImageSet, rows_of
from convscope.scans.scan import Images, PassSettings, Scan, Subject, Untraced, scan, sizes

FORMAT = 3
"""Of the records in an entry; raised when they are packed in another way."""

VERSIONS = dict.fromkeys(("statistics", "faithfulness", "invariance", "filter-effects", "ablation"), 2) | {
    "randomization": 3
}
"""Of each scan, 1 where none is stated; raised when the same request gives another result."""


R = TypeVar("R")
"""A record: a frozen dataclass of tensors and JSON values, with a method `table` of its figures, for other programs."""


def cached_scan(
    scope: Subject,
    name: str,
    images: Images,
    settings: Mapping[str, Any],
    kind: type[R],
    make: Callable[[], dict[str, R]],
) -> dict[str, R]:
    """Records by layer: from the cache of the scope's run, where the same were made before, else made and cached there.

    Args:
        scope: of a run; results of other scopes are not cached.
        name: of the scan.
        images: those that are scanned.
        settings: all else that the result depends on. Where it does not fit JSON (a function, pixels), there is nothing to
            find the result by: it is not cached.
        kind: of the records, see `R`.
        make: makes them.
    """
    folder: Path | None = getattr(scope.run, "path", None)
    try:
        plain = json.loads(json.dumps(settings))
    except TypeError:
        folder = None
    if folder is None:
        return make()
    key = {
        "format": FORMAT,
        "scan": name,
        "version": VERSIONS.get(name, 1),
        "weights": digest_of_weights(scope.net),
        "scope": digest_of_scope(scope),
        "data": digest_of_images(images),
        "settings": plain,
    }
    return cached(entry_path(folder, "scans", name, key), key, make, _pack, lambda entry: _unpack(entry, kind))


def cached_record(
    scope: Subject,
    name: str,
    images: Images,
    settings: Mapping[str, Any],
    kind: type[R],
    make: Callable[[], R],
) -> R:
    """The same of a scan that makes one record, not one for each layer."""
    return cached_scan(scope, name, images, settings, kind, lambda: {name: make()})[name]


@dataclass(frozen=True)
class ScanRequest:
    """What a scan is asked for: its name, the kind of its records, and how it is made of a network, images and its settings."""

    name: str
    kind: type[Any]
    of: Callable[..., Scan]
    settings: dict[str, Any]


def cached_scans(
    scope: Subject, images: Images, requests: Sequence[ScanRequest], how: PassSettings
) -> list[dict[str, Any]]:
    """Records by layer for each request; those that are not cached come from one pass."""

    @cache
    def made() -> list[Any]:
        return scan(scope, images, [each.of(scope, images, **each.settings) for each in requests], **how)

    of_pass = sizes(how, requests[0].settings)
    return [
        cached_scan(scope, each.name, images, each.settings | of_pass, each.kind, lambda k=k: made()[k])  # type: ignore[misc]
        for k, each in enumerate(requests)
    ]


def _pack(records: Mapping[str, Any]) -> Entry:
    """The records; beside them a table for other programs (parquet)."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {layer: {} for layer in records}
    for layer, record in records.items():
        for entry in fields(record):
            value = getattr(record, entry.name)
            if isinstance(value, Tensor):
                tensors[f"{layer}/{entry.name}"] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            else:
                values[layer][entry.name] = value
    table = pd.concat([record.table() for record in records.values()] or [pd.DataFrame()]).to_parquet(index=False)
    return Entry({"records": values}, {".parquet": table, ".safetensors": save(tensors)})


def _unpack(entry: Entry, kind: type[R]) -> dict[str, R]:
    tensors = load(entry.files[".safetensors"])
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    return {
        layer: kind(**values, **{name: tensors[f"{layer}/{name}"] for name in names if name not in values})
        for layer, values in entry.values["records"].items()
    }


def digest_of_weights(net: nn.Module) -> str:
    """Of all parameters and buffers, with their names."""
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            _add(digest, value)
        else:  # get_extra_state may give anything
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def digest_of_scope(scope: Untraced) -> str:
    """Of all but the weights that a result depends on: the settings of the modules, as they print them; what black and white
    become before the network, which is the normalisation; and what the outputs mean."""
    layout = re.sub(r" at 0x[0-9a-f]+", "", repr(scope.net))  # the address of a function, another in each process
    heads = scope.given_task.heads if scope.given_task else ()
    digest = hashlib.sha256(f"{layout}\n{[(head.target, head.kind, head.classes) for head in heads]}\n".encode())
    _add(digest, scope.prepare(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, *scope.input_shape)))
    return digest.hexdigest()


def digest_of_images(images: ImageSet | Tensor) -> str:
    """Of pixels and targets, in portions: the pixels may be mapped from a file larger than the memory."""
    digest = hashlib.sha256()
    pixels = images.pixels if isinstance(images, ImageSet) else images
    rows = images.index if isinstance(images, ImageSet) else torch.arange(len(images))
    digest.update(f"{pixels.dtype} {len(rows)} {tuple(pixels.shape[1:])}\n".encode())
    for part in rows.split(1024):
        _add(digest, rows_of(pixels, part))
    if isinstance(images, ImageSet):
        for name, classes in sorted(images.classes.items()):
            digest.update(f"{name} {json.dumps(classes)}\n".encode())
            _add(digest, images.targets_of(name))
    return digest.hexdigest()


def _add(digest: Any, tensor: Tensor) -> None:
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
