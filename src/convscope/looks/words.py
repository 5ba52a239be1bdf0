"""`look_at_run`: a look as asked for in words, on a run in a folder, written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convscope.report.look import Look, look
from torch import Tensor

from convscope.data import read_image
from convscope.draw import png
from convscope.errors import SettingError, UnknownNameError
from convscope.runs import Run, open_run, write_tensors, write_whole
from convscope.scope import Scope


def look_at_run(
    folder: str | Path,
    lens: str,
    image: str | None = None,
    layer: str | None = None,
    unit: int | None = None,
    position: str | None = None,
    target: str | None = None,
    out: Path | None = None,
    raw: Path | None = None,
) -> tuple[Path, Look]:
    """The path of the picture that was written, and what it shows.

    Args:
        folder: a trained run's.
        lens, layer, unit: see `look`.
        image: a file, or the number of a test image.
        position: "3,5" or "max".
        target: a class by its name or number.
        out: of the picture; look-LENS.png in the run's folder by default.
        raw: of the tensors, where wanted.
    Raises:
        SettingError: image, position or target is not what it should be.
        UnknownNameError: there is no such class, layer or lens.
    """
    run = open_run(folder)
    scope = Scope(run)
    shown = None if image is None else _image(run, image)
    found = look(
        scope, lens, shown, layer=layer, unit=unit, position=_position(position), target=_target(scope.classes, target)
    )
    path = out or run.path / f"look-{lens}.png"
    write_whole(path, png(found.picture))
    if raw is not None:
        write_tensors(raw, found.tensors, {"lens": lens, "heading": found.heading})
    return path, found


def _image(run: Run, image: str) -> Tensor:
    if not image.isdigit():
        return read_image(image, run.input_shape)
    test = run.load_data().test
    if int(image) >= len(test):
        raise SettingError(f"--image {image}: there are test images 0 to {len(test) - 1}")
    return test[int(image)][0]


def _position(text: str | None) -> Any:
    if text is None or text == "max":
        return text
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise SettingError(f"--position {text}: expected row and column, such as 3,5, or max")
    return int(parts[0]), int(parts[1])


def _target(classes: tuple[str, ...], text: str | None) -> int | None:
    if text is None or text in classes:
        return None if text is None else classes.index(text)
    if text.isdigit():
        return int(text)
    raise UnknownNameError("class", text, classes, "one of this network's")
