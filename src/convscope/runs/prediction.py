"""A run's answers to new images: files of any number, decoded in threads, a table of rows for each batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from convscope.compute import choose_device, chunks, evaluation_batch, in_order
from convscope.data import (
    DTYPES,
    ImagesLike,
    Item,
    NamedItems,
    Normalizer,
    UnreadableError,
    as_images,
    image_files,
    in_text,
    in_unit_range,
    pixels_of,
)
from convscope.errors import DataError, FailedError, SettingError, UnknownNameError
from convscope.graph import evaluate, left_as_found
from convscope.nets import Head

if TYPE_CHECKING:
    from convscope.runs.run import Run, RunOrFolder

View = Literal["mirror", "shifts"]
"""What test-time augmentation adds: the mirror image; or the image moved by a sixteenth of its side, left, right, up, down."""

PROBLEM = "problem"
"""The column that says why an image could not be read; empty where it could."""


def class_columns(heads: Sequence[Head]) -> dict[str, str]:
    """Target → the column of its classes: "class" of a single head; else the target's name, with "class" behind it where
    another column is called so."""
    if len(heads) == 1:
        return {heads[0].target: "class"}
    return {head.target: f"{head.target} class" if head.target in ("file", PROBLEM) else head.target for head in heads}


def predict_batches(
    run: Run,
    images: ImagesLike | Sequence[str | os.PathLike[str]] | NamedItems,
    *,
    top: int = 1,
    probabilities: bool = False,
    views: Sequence[str] = (),
    device: str = "auto",
    batch: int | None = None,
    decoders: int | None = None,
) -> Iterator[pd.DataFrame]:
    """Answers to images, a table for each batch; see `Run.predict`. `decoders` threads decode files, by default one a core."""
    heads = run.task.heads
    if top < 1:
        raise SettingError(f"top: {top}; expected 1 or more")
    for view in views:
        if view not in get_args(View):
            raise UnknownNameError("view", view, get_args(View), "one of test-time augmentation's")
    where = choose_device(device)
    size = batch or evaluation_batch(run.input_shape, where)
    normalize = Normalizer(*run.normalization, where)
    with moved(run.net, where) as net:
        for names, pixels, problems in _decoded(images, run.input_shape, size, run.bits, decoders):
            readable = [place for place, problem in enumerate(problems) if not problem]
            by_head = [torch.zeros(0, len(head.classes)) for head in heads]
            if readable:
                by_head = _probabilities(net, normalize, heads, pixels[readable].to(where), views)
            answers = pd.DataFrame(_columns(heads, by_head, top, probabilities), index=readable)
            rows = pd.DataFrame({"file": names}).join(answers)
            rows[PROBLEM] = problems
            yield rows


@contextmanager
def moved(net: torch.nn.Module, device: torch.device) -> Iterator[torch.nn.Module]:
    """The network on a device; afterwards, also after an error, it is where it was."""
    before = next((parameter.device for parameter in net.parameters()), device)
    try:
        yield net.to(device)
    finally:
        net.to(before)


@torch.no_grad()
def _probabilities(
    net: torch.nn.Module, normalize: Normalizer, heads: Sequence[Head], images: Tensor, views: Sequence[str]
) -> list[Float[Tensor, "N K"]]:
    """Of each head; the mean over the views."""
    inputs = _views(images, views)
    with left_as_found(net):
        evaluate(net)
        outputs = [net(normalize(one)).float() for one in inputs]
    if not all(bool(each.isfinite().all()) for each in outputs):
        raise FailedError("the network answers with NaN or infinity; its weights are broken: train it again")
    return [torch.stack([head.probabilities(each) for each in outputs]).mean(0).cpu() for head in heads]


def _views(images: Float[Tensor, "N C H W"], views: Sequence[str]) -> list[Float[Tensor, "N C H W"]]:
    variants = [images]
    if "shifts" in views:
        height, width = images.shape[2:]
        down, across = max(1, height // 16), max(1, width // 16)
        around = pad(images, (across, across, down, down), mode="replicate")
        places = ((0, across), (2 * down, across), (down, 0), (down, 2 * across))
        variants += [around[..., top : top + height, left : left + width] for top, left in places]
    return variants + [one.flip(-1) for one in variants] if "mirror" in views else variants


def _columns(heads: Sequence[Head], by_head: Sequence[Float[Tensor, "N K"]], top: int, every: bool) -> dict[str, Any]:
    """The columns of the heads' answers; of several heads they begin with its target."""
    columns: dict[str, Any] = {}
    for head, probabilities in zip(heads, by_head, strict=True):
        name, before = class_columns(heads)[head.target], "" if len(heads) == 1 else f"{head.target} "
        values, classes = probabilities.topk(min(top, probabilities.shape[1]))
        own: dict[str, Any] = {}
        for place in range(values.shape[1]):
            rank = f" {place + 1}" if place else ""
            own[f"{name}{rank}"] = pd.array([head.classes[k] for k in classes[:, place].tolist()], "string")
            own[f"{before}probability{rank}"] = values[:, place].numpy()
        if every:
            of_head = "" if len(heads) == 1 else f"{head.target}="
            own |= {f"p({of_head}{one})": probabilities[:, k].numpy() for k, one in enumerate(head.classes)}
        if twice := sorted(columns.keys() & own.keys()):
            raise SettingError(
                f"two columns of the answers would be called {twice[0]!r}; give the targets of the data other names, "
                "and train again"
            )
        columns |= own
    return columns


def _decoded(
    images: Any, input_shape: tuple[int, int, int], size: int, bits: int, decoders: int | None
) -> Iterator[tuple[list[str], Float[Tensor, "N C H W"], list[str]]]:
    """Names, pixels in [0, 1], and problems of each batch; an image with a problem is black."""
    items: Iterable[tuple[str, Item]]
    if isinstance(images, NamedItems):
        items = zip(images.names, images.items, strict=True)
    elif (paths := _as_paths(images)) is not None:
        items = ((in_text(path), path) for path in paths)
    else:
        batch = as_images(images, input_shape, bits)
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            yield [str(start + n) for n in range(len(part))], part, [""] * len(part)
        return
    channels, *sides = input_shape

    def decode(chunk: list[tuple[str, Item]]) -> tuple[list[str], Tensor, list[str]]:
        pixels, problems = np.zeros((len(chunk), *input_shape), DTYPES[bits]), [""] * len(chunk)
        for place, (_, item) in enumerate(chunk):
            try:
                pixels[place] = pixels_of(item, channels, (sides[0], sides[1]), bits)
            except UnreadableError as error:
                problems[place] = str(error)
        return [name for name, _ in chunk], in_unit_range(torch.from_numpy(pixels)), problems

    yield from in_order(decode, chunks(items, size), decoders or os.cpu_count() or 1)


def _as_paths(images: Any) -> Iterable[Path] | None:
    """The image files where paths are given; None for pixels."""
    paths = [images] if isinstance(images, str | os.PathLike) else images
    if not isinstance(paths, Sequence) or not all(isinstance(one, str | os.PathLike) for one in paths):
        return None
    if not paths:
        raise DataError("no images are given; give image files, folders, or arrays")
    return image_files(paths)


def load_images(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], like: RunOrFolder | tuple[int, int, int]
) -> Float[Tensor, "N C H W"]:
    """Image files, and those in folders, as a run takes them: resized as in training, floats in [0, 1], before normalisation.

    Args:
        paths: files and folders.
        like: a run, its folder, or the shape (C, H, W) that is wanted, with 8 bits.
    Raises:
        DataError: a path is not there, a folder holds no image, or a file cannot be read.
    """
    files = list(_as_paths(paths) or ())
    if isinstance(like, tuple):
        return as_images(files, like)
    from convscope.runs.run import open_run

    run = open_run(like)
    return as_images(files, run.input_shape, run.bits)
