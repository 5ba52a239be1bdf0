"""`look_at`: a look as asked for in words, on a run in a folder or on any network, written to files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from convscope.data import ImageSet, read_image
from convscope.draw import png, remarked
from convscope.errors import SettingError
from convscope.lenses import Position, Size, TaskTarget
from convscope.looks.look import OF_IMAGES, SCANS, look
from convscope.looks.records import Asked, Look
from convscope.nets import NaturalInput, build_natural, random_weights_in_words
from convscope.runs import Run, check_writable, load_weights, open_run, read_tensors, write_tensors, write_whole
from convscope.scope import Scope


@dataclass(frozen=True)
class Subject:
    """What is looked at: a scope, its run where it has one, the folder where pictures go, and which weights are random."""

    scope: Scope
    folder: Path
    run: Run | None = None
    random_weights: str | None = None


def open_subject(
    run: Run | str | Path | None = None,
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
) -> Subject:
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
        if given := [name for name, value in of_net.items() if value is not None]:
            raise SettingError(f"--{given[0]}: a run knows its own; leave it out, or give --net in place of the run")
        opened = run if isinstance(run, Run) else open_run(run)
        return Subject(Scope(opened), opened.path, opened)
    if net is None:
        raise SettingError("there is nothing to look at; give a run's folder, or --net package.module:callable")
    if pretrained and weights is not None:
        raise SettingError(f"--pretrained: the weights come from {weights}; leave out one of the two")
    built_with = (options or {}) | ({"pretrained": True} if pretrained else {})
    module, made_for = build_natural(net, input, built_with, seed or 0)
    if weights is not None:
        load_weights(module, read_tensors(weights)[0], weights)
        random_weights = None
    else:
        other, _ = build_natural(net, input, built_with, (seed or 0) + 1)
        random_weights = random_weights_in_words(module, other)
    names = _lines(classes) if classes else made_for.class_names if random_weights is None else None
    normalize = _normalization(mean, deviation, made_for)
    answer = int(output) if output is not None and output.isdecimal() else output
    scope = Scope(module.eval(), made_for.example(), names, normalize, output=answer)
    return Subject(scope, Path(), None, random_weights)


def look_at(
    subject: Subject,
    lens: str,
    image: str | None = None,
    layer: str | None = None,
    unit: int | str | None = None,
    position: str | None = None,
    target: str | None = None,
    size: str | None = None,
    stride: int | None = None,
    fill: str | None = None,
    method: str | None = None,
    n: int | None = None,
    top: int | None = None,
    units: str | None = None,
    how: str | None = None,
    screen: int | None = None,
    out: Path | None = None,
    raw: Path | None = None,
) -> tuple[Path, Look]:
    """The path of the picture that was written, and what it shows.

    Args:
        subject: see `open_subject`.
        lens, layer, stride, method, n, top, how, screen: see `look`.
        image: a file, or the number of one of the run's test images.
        unit: a number, or "max" for the one of the layer that answers the image most.
        position: "3,5" or "max".
        target: a class by its name or number; of several heads "angle=45°", or "angle" for the most probable of one.
        size: of an occluding square: "5", "4x8", or several, "3,5,9".
        fill: of the square: "grey", "mean", "zero", "blur" or a number in [0, 1].
        units: to be switched off together, "conv1:0,1 conv3:7".
        out: of the picture; look-LENS.png in the run's folder, or here, by default.
        raw: of the tensors, where wanted.
    Raises:
        SettingError: image, unit, position, size, fill or target is not what it should be.
        UnknownNameError: there is no such class, layer or lens.
        ReadOnlyError: nothing may be written where the picture is to go.
    """
    _check_ending("--out", out, ".png", "the picture is a PNG")
    _check_ending("--raw", raw, ".safetensors", "the tensors are written as safetensors")
    path = out or subject.folder / f"look-{lens.replace('-', '_')}.png"
    check_writable(path.parent)
    pixels = None if image is None else _image(subject, image)
    for_unit_alone = unit == "max" and lens.replace("-", "_") not in OF_IMAGES
    asked = Asked(
        image=None if for_unit_alone else pixels,
        layer=layer,
        unit=_unit(subject.scope, unit, pixels, layer),
        position=_position(position),
        target=_target(subject.scope, target),
        size=_sizes(size),
        stride=stride,
        fill=_fill(fill),
        test=_test(subject, lens),
        method=None if method is None else method.replace("-", "_"),
        n=n,
        top=top,
        units=_units(units),
        how=how,
        screen=screen,
    )
    found = _remarked(look(subject.scope, lens, asked), subject.random_weights)
    write_whole(path, png(found.picture))
    if raw is not None:
        write_tensors(raw, found.tensors, {"lens": lens, "heading": found.heading})
    return path, found


def _check_ending(option: str, path: Path | None, ending: str, what: str) -> None:
    """Before any work is done for a file whose name says something else."""
    if path is not None and path.suffix.lower() not in ("", ending):
        raise SettingError(f"{option} {path}: {what}; give a name that ends with {ending}")


def _image(subject: Subject, image: str) -> Tensor:
    shape = subject.scope.input_shape
    if not image.isdigit():
        return read_image(image, (shape[0], shape[1], shape[2]))
    if subject.run is None:
        raise SettingError(f"--image {image}: a network that is no run has no test images; give a file")
    test = subject.run.load_data().test
    if int(image) >= len(test):
        raise SettingError(f"--image {image}: there are test images 0 to {len(test) - 1}")
    return test[int(image)][0]


def _test(subject: Subject, lens: str) -> ImageSet | None:
    """The test images, for those that look at all of them."""
    if lens.replace("-", "_") not in SCANS:
        return None
    if subject.run is None:
        raise SettingError(f"{lens} looks at the test images of a run; give a run's folder")
    return subject.run.load_data().test


def _unit(scope: Scope, given: int | str | None, image: Tensor | None, layer: str | None) -> int | None:
    if given is None or str(given).isdecimal():
        return None if given is None else int(given)
    if given != "max":
        raise SettingError(f"--unit {given}: expected a number, or max")
    if image is None or layer is None:
        raise SettingError("--unit max: the unit that answers an image most; give --image and --layer too")
    [answers] = scope.activations(image, [layer])[layer]  # (units, …)
    return int(answers.flatten(1).amax(1).argmax())


def _position(text: str | None) -> Position:
    if text is None or text == "max":
        return "max" if text else None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise SettingError(f"--position {text}: expected row and column, such as 3,5, or max")
    return int(parts[0]), int(parts[1])


def _target(scope: Scope, text: str | None) -> TaskTarget | None:
    """A class by its name, or by its number where no class is called so."""
    if text is None:
        return None
    named = text in scope.classes or not text.isdigit()
    return scope.target(text if named else int(text))


def _sizes(text: str | None) -> list[Size] | None:
    if text is None:
        return None
    found: list[Any] = []
    for part in text.split(","):
        sides = part.strip().replace("×", "x").split("x")
        if len(sides) > 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
            raise SettingError(f"--size {text}: expected pixels, such as 5, 4x8 (down, across), or several: 3,5,9")
        found.append(int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1])))
    return found


def _units(text: str | None) -> dict[str, list[int]] | None:
    if text is None:
        return None
    found: dict[str, list[int]] = {}
    for part in text.split():
        layer, colon, numbers = part.rpartition(":")
        if not colon or not layer or not all(number.isdigit() for number in numbers.split(",")):
            raise SettingError(f"--units {text}: expected layers with their units, such as 'conv1:0,1 conv3:7'")
        found.setdefault(layer, []).extend(int(number) for number in numbers.split(","))
    return found


def _fill(text: str | None) -> Any:
    try:
        return text if text is None else float(text)
    except ValueError:
        return text  # a name, which the lens knows


def _remarked(found: Look, remark: str | None) -> Look:
    """With the remark in the heading and in the picture, above all else."""
    if remark is None:
        return found
    return replace(found, heading=f"{remark}: {found.heading}", picture=remarked(found.picture, remark))


def _normalization(mean: str | None, deviation: str | None, made_for: NaturalInput) -> Any:
    if mean is None and deviation is None:
        return made_for.normalize
    own = made_for.normalize or ((0.0,) * made_for.channels, (1.0,) * made_for.channels)
    found = []
    for name, text, by_default in (("mean", mean, own[0]), ("deviation", deviation, own[1])):
        try:
            found.append([float(part) for part in text.split(",")] if text else list(by_default))
        except ValueError:
            raise SettingError(f"--{name} {text}: expected a number for each channel, such as 0.5,0.5,0.5") from None
    return found[0], found[1]


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--classes {path}: {error}; expected a text file with a name in each line") from None
