"""The page of predictions: new images, what a run answers, and a map of where it sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convscope import __version__, lenses
from convscope.analyses import small_picture
from convscope.draw import enlarge_to, picture
from convscope.errors import SettingError
from convscope.report.page import Photo, fill, static
from convscope.runs import Run, load_images, write_whole
from convscope.scope import Scope

_MOST, _AT_ONCE, _TOP = 200, 16, 3
_SIDE_PX = 160


def check_predictions_page(lens: str, path: Path) -> None:
    """Refuses before any work what `write_predictions_page` would.

    Raises:
        SettingError: the path does not end in .html.
        UnknownNameError: the lens is no attribution.
    """
    if path.suffix != ".html":
        raise SettingError(f"--page {path}: expected a page, such as predictions.html")
    if lens != "occlusion":  # which `Scope.attribute` knows too
        lenses.check_settings(lens, {})


def write_predictions_page(run: Run, files: Sequence[str], lens: str, path: Path) -> Path:
    """The path of the page that was written: each image, the first 200, its answers, and the map of its most probable class.

    Args:
        run: that answers.
        files: images that can be read.
        lens: an attribution, such as grad_cam.
        path: of the page, which ends in .html.
    Raises:
        SettingError: the path ends otherwise.
        UnknownNameError: there is no such lens.
    """
    check_predictions_page(lens, path)
    scope, page_files, cards = Scope(run), list(files[:_MOST]), list[dict[str, Any]]()
    answers = run.predict(page_files, top=_TOP).to_dict("records")
    name = "class" if len(run.task.heads) == 1 else run.task.heads[0].target
    probability = "probability" if name == "class" else f"{name} probability"
    ranks = ["", *(f" {n}" for n in range(2, _TOP + 1))]
    for start in range(0, len(page_files), _AT_ONCE):
        images = load_images(page_files[start : start + _AT_ONCE], run)
        for image, answer in zip(images, answers[start : start + _AT_ONCE], strict=True):
            attribution = scope.attribute(lens, image)
            cards.append({
                "file": answer["file"],
                "image": Photo(enlarge_to(picture(image), _SIDE_PX)),
                "map": enlarge_to(small_picture(attribution, image), _SIDE_PX),
                "note": attribution.note,
                "answers": [(answer[name + r], answer[probability + r]) for r in ranks if name + r in answer],
            })  # fmt: skip
    text = fill("predictions.html", run=run, lens=lens.replace("_", " "), layer=attribution.layer, cards=cards,
                total=len(files), version=__version__, style=static("report.css"))  # fmt: skip
    write_whole(path, text)
    return path
