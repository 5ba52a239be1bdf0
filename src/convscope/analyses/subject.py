"""`look_at`: an analysis of a run in a folder, or of any network, as asked for in text and written to files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from convscope.analyses.analysis import find, look
from convscope.analyses.view import View
from convscope.draw import png, remarked
from convscope.errors import DataError, SettingError
from convscope.nets import NaturalInput, build_natural, random_weights_in_words
from convscope.runs import (
    Run,
    RunOrFolder,
    check_writable,
    load_weights,
    open_run,
    read_tensors,
    write_tensors,
    write_whole,
)
from convscope.scope import Scope


@dataclass(frozen=True)
class OpenedNetwork:
    """What is looked at: a scope, its run where it has one, the folder where pictures go, and which weights are random."""

    scope: Scope
    folder: Path
    run: Run | None = None
    random_weights: str | None = None


def open_subject(
    run: RunOrFolder | None = None,
    net: str | None = None,
    weights: Path | None = None,
    input: str | None = None,
    mean: str | None = None,
    deviation: str | None = None,
    classes: Path | None = None,
    *,
    pretrained: bool = False,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    output: str | None = None,
) -> OpenedNetwork:
    """A run, or a network that is no run.

    Args:
        run: a trained run or its folder; it knows the rest.
        net: a network by its name, see `convscope.nets.build_net`, such as "package.module:callable".
        weights: a .safetensors file for it; without one it keeps those that it was built with.
        input: the shape of its images, "3x224x224"; by default what the network was made for, see
            `convscope.nets.natural_input`.
        mean, deviation: by which it wants pixels normalised, "0.485,0.456,0.406"; by default as the network was made for.
        classes: a text file with the name of a class in each line; by default those of the trained weights, if known.
        pretrained: with the weights that its library has for it.
        seed: of random weights, 0 by default.
        options: of its builder.
        output: which of its several results is the answer, by name or index; see `Scope`.
    Raises:
        SettingError: neither or both of run and net are given, or what belongs to a network comes with a run.
        RunFolderError: the file of weights is missing or damaged, or does not fit the network.
    """
    of_net = {"weights": weights, "input": input, "mean": mean, "deviation": deviation, "classes": classes,
              "pretrained": pretrained or None, "seed": seed, "set": options or None, "output": output}  # fmt: skip
    if run is not None and net is not None:
        raise SettingError(f"--net {net}: a run has its own network; give either a run's folder or --net")
    if run is not None:
        if extra := [name for name, value in of_net.items() if value is not None]:
            raise SettingError(f"--{extra[0]}: a run knows its own; leave it out, or give --net in place of the run")
        opened = open_run(run)
        return OpenedNetwork(Scope(opened), opened.path, opened)
    if net is None:
        raise SettingError("there is nothing to look at; give a run's folder, or --net package.module:callable")
    if pretrained and weights is not None:
        raise SettingError(f"--pretrained: the weights come from {weights}; leave out one of the two")
    build_options = (options or {}) | ({"pretrained": True} if pretrained else {})
    module, natural = build_natural(net, input, build_options, seed or 0)
    if weights is not None:
        load_weights(module, read_tensors(weights)[0], weights)
        random_weights = None
    else:
        other, _ = build_natural(net, input, build_options, (seed or 0) + 1)
        random_weights = random_weights_in_words(module, other)
    names = _lines(classes) if classes else natural.class_names if random_weights is None else None
    normalize = _normalization(mean, deviation, natural)
    answer = int(output) if output is not None and output.isdecimal() else output
    scope = Scope(module.eval(), natural.example(), names, normalize, output=answer)
    return OpenedNetwork(scope, Path(), None, random_weights)


def look_at(
    subject: OpenedNetwork,
    lens: str,
    image: str | None = None,
    *,
    edit: str | Sequence[Any] | None = None,
    out: Path | None = None,
    raw: Path | None = None,
    **settings: Any,
) -> tuple[Path, View]:
    """The path of the picture that was written, and what it shows.

    Args:
        subject: see `open_subject`.
        lens: name of the analysis, see `look`.
        image: a file, or one of the run's test images: its number, or its name in the data set.
        edit: of the image, see `convscope.edits`, as a list or its JSON text; of a run it may take from the test images.
        out: of the picture; look-LENS.png in the run's folder, or here, by default.
        raw: of the tensors, where wanted.
        settings: see `look`.
    Raises:
        SettingError: image or a setting is not what it should be.
        UnknownNameError: there is no such class, layer or analysis.
        ReadOnlyError: nothing may be written where the picture is to go.
    """
    _check_ending("--out", out, ".png", "the picture is a PNG")
    _check_ending("--raw", raw, ".safetensors", "the tensors are written as safetensors")
    analysis = find(lens)
    path = out or subject.folder / f"look-{analysis.name}.png"
    check_writable(path.parent)
    inputs: dict[str, Any] = {"image": None if image is None else _image(subject, image)}
    if subject.run is not None and (analysis.reads == "test images" or edit is not None):
        inputs["test"] = subject.run.load_data().test
    view = look(subject.scope, lens, edit=edit, **inputs, **settings)
    picture = view.picture
    if subject.random_weights is not None:  # in the heading and in the picture, above all else
        view = replace(view, heading=f"{subject.random_weights}: {view.heading}")
        picture = remarked(picture, subject.random_weights)
    write_whole(path, png(picture))
    if raw is not None:
        write_tensors(raw, dict(view.tensors), {"lens": lens, "heading": view.heading})
    return path, view


def _check_ending(option: str, path: Path | None, ending: str, reason: str) -> None:
    """Before any work is done for a file whose name says something else."""
    if path is not None and path.suffix.lower() not in ("", ending):
        raise SettingError(f"{option} {path}: {reason}; give a name that ends with {ending}")


def _image(subject: OpenedNetwork, image: str) -> Tensor:
    number = int(image) if image.isdecimal() and len(image) < 10 else None
    if number is None and (subject.run is None or os.path.exists(image)):
        return subject.scope.images(image)[0]
    if subject.run is None:
        raise SettingError(f"--image {image}: a network that is no run has no test images; give a file")
    test = subject.run.load_data().test
    if number is not None and number >= len(test):
        raise SettingError(f"--image {image}: there are test images 0 to {len(test) - 1}")
    place = test.find(image) if number is None else number
    if place is None:
        raise DataError(f"{image}: there is no such file, nor a test image of that name or number; check --image")
    return test[place][0]


def _normalization(mean: str | None, deviation: str | None, natural: NaturalInput) -> Any:
    if mean is None and deviation is None:
        return natural.normalize
    defaults = natural.normalize or ((0.0,) * natural.channels, (1.0,) * natural.channels)
    normalization = []
    for name, text, default in (("mean", mean, defaults[0]), ("deviation", deviation, defaults[1])):
        try:
            normalization.append([float(part) for part in text.split(",")] if text else list(default))
        except ValueError:
            raise SettingError(f"--{name} {text}: expected a number for each channel, such as 0.5,0.5,0.5") from None
    return normalization[0], normalization[1]


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise SettingError(f"--classes {path}: {reason}; expected a text file with a name in each line") from None
