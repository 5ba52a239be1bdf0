"""A run's answers to any number of images, in a folder of parquet files: a shard of the images in each.

The folder's predictions.json says what they answer. A file is written whole when its shard is done, so after a kill the shards
that lack one are what is left to do; no row is there twice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from convscope.compute import (
    Executor,
    check_executor,
    check_writable,
    choose_device,
    chunks,
    evaluation_batch,
    write_whole,
)
from convscope.data import ImageStream, Item, NamedItems, without_warnings
from convscope.errors import RunFolderError
from convscope.runs.names import MODEL, object_in
from convscope.runs.prediction import PROBLEM, predict_batches
from convscope.runs.run import Run, RunOrFolder, open_run

ABOUT = "predictions.json"
_BATCHES = 8  # in a shard


def predict_parts(
    run: RunOrFolder,
    images: ImageStream | Sequence[str | os.PathLike[str]],
    out: Path,
    executor: Executor | None = None,
    *,
    top: int = 1,
    probabilities: bool = False,
    views: Sequence[str] = (),
    device: str = "auto",
    shard: int | None = None,
    advance: Callable[[int], object] = id,
) -> list[Path]:
    """Writes the answers to images of any number into a folder, a parquet file for each shard, and gives the files in order.

    What is there already of the same run, images and settings is kept. The rows are those of `Run.predict`.

    Args:
        images: image files, folders, and parquet files with a column of images.
        out: the folder.
        executor: where the shards are worked at; this process by default. Nodes that do not see the image files are sent them.
        top, probabilities, views, device: see `Run.predict`.
        shard: images in a file; eight batches by default.
        advance: is given the number of images of each shard that is there.
    Raises:
        DataError: a path is not there, or holds no image.
        RunFolderError: the folder holds other answers, or something else.
    """
    run = open_run(run)
    stream = images if isinstance(images, ImageStream) else ImageStream(images)
    check_executor(executor)
    executor = executor or Executor()
    where = torch.device("cpu") if executor.is_remote else choose_device(device)
    size = shard or _BATCHES * evaluation_batch(run.input_shape, where)
    settings = {"top": top, "probabilities": probabilities, "views": list(views)}
    with open(run.path / MODEL, "rb") as file:
        weights = file_digest(file, "blake2b").hexdigest()[:32]
    about = {
        "weights": weights,
        "settings": settings,
        "images": len(stream),
        "digest": stream.digest,
        "shard": size,
    }
    _begin(out, about)
    files = [out / f"part-{n:06}.parquet" for n in range(-(-len(stream) // size))]
    done = {n for n, file in enumerate(files) if file.exists()}
    for n in done:
        advance(min(size, len(stream) - n * size))
    names_alone = not executor.is_remote or _seen(executor, stream.files)
    todo = ((n, _named(part, names_alone)) for n, part in enumerate(chunks(stream, size)) if n not in done)
    run.net, run.task  # noqa: B018 (so that they travel, and no folder is needed there)
    options = {**settings, "device": device}
    for (n, items), content in executor.map(_predicted, todo, executor.put(run), options):
        write_whole(files[n], content)
        advance(len(items.names))
    return files


def counts_of(files: Iterable[Path], columns: Sequence[str]) -> tuple[dict[str, Counter[str]], list[tuple[str, str]]]:
    """Of the answers in these files the images of each class, by column, and the name and problem of those without one."""
    counts: dict[str, Counter[str]] = {column: Counter() for column in columns}
    problems: list[tuple[str, str]] = []
    for file in files:
        rows = pd.read_parquet(file, columns=["file", PROBLEM, *columns])
        for column in columns:
            counts[column].update(rows[column].dropna())
        bad = rows[rows[PROBLEM] != ""]
        problems += zip(bad["file"], bad[PROBLEM], strict=True)
    return counts, problems


def _predicted(shard: tuple[int, NamedItems], run: Run, options: dict[str, Any]) -> bytes:
    """The parquet file of a shard."""
    with without_warnings():
        rows = pd.concat(
            list(predict_batches(run, shard[1], decoders=torch.get_num_threads(), **options)), ignore_index=True
        )
    return rows.to_parquet(index=False)


def _named(part: list[tuple[str, Item]], names_alone: bool) -> NamedItems:
    """A shard, as it travels."""
    items = []
    for _, item in part:
        if isinstance(item, Path):
            with suppress(OSError):  # what is wrong with it is said there
                item = item.absolute() if names_alone else item.read_bytes()
        items.append(item)
    return NamedItems([name for name, _ in part], items)


def _seen(executor: Executor, files: Sequence[Path]) -> bool:
    """Whether the nodes see the image files, as far as the first and the last tell."""
    paths = [str(file.absolute()) for file in (*files[:1], *files[-1:])]
    return all(stats == _stats(paths) for stats in executor.on_each_node(_stats, paths).values())


def _stats(files: list[str]) -> list[tuple[int, int] | None]:
    stats = [os.stat(file) if os.path.exists(file) else None for file in files]
    return [each and (each.st_size, each.st_mtime_ns) for each in stats]


def _begin(out: Path, about: dict[str, Any]) -> None:
    """Makes the folder, or finds that it holds answers to the same question."""
    path = out / ABOUT
    if path.exists():
        stored = object_in(path)
        if different := [key for key in about if stored.get(key) != about[key]]:
            raise RunFolderError(f"{out} holds other predictions ({', '.join(different)} differ); choose another --out")
        return
    if out.exists() and (not out.is_dir() or any(not file.name.startswith(".") for file in out.iterdir())):
        raise RunFolderError(f"{out} exists and holds no predictions; choose another --out")
    check_writable(out.parent)
    write_whole(path, json.dumps(about, indent=1) + "\n")
