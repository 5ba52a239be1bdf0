"""`reproduce`: a shipped study at one of its budgets, with the report's ways of looking at its best run as pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from convscope.analyses import look_at, open_subject
from convscope.compute import Executor
from convscope.courses.claims import measure_networks
from convscope.courses.figures import matches
from convscope.courses.outcomes import folder_of
from convscope.courses.reported import FULL, ReportedLook, find_reproduction, reproduces
from convscope.errors import ConvscopeError, RequestError
from convscope.runs import write_whole
from convscope.study import Study, StudyRun, View, sweep

LOOKS = "looks"
_INDEX = "looks.json"


@dataclass(frozen=True)
class LookedAt:
    """One of a report's ways of looking, on a run of ours.

    Attributes:
        lens: that was asked.
        about: what the report shows by it.
        command: that does it again.
        settings: of the run that was looked at.
        picture: its file, below the study's folder; '' where there is none.
        heading: what it shows, in a line.
        problem: why there is no picture; '' for others.
    """

    lens: str
    about: str
    command: str
    settings: Mapping[str, Any]
    picture: str = ""
    heading: str = ""
    problem: str = ""


def reproduce(
    name: str,
    budget: str = FULL,
    out: str | Path = "runs/reproduce",
    *,
    workers: int = 1,
    device: str = "auto",
    view: View | None = None,
    executor: Executor | None = None,
) -> Study:
    """A shipped study that repeats a report, with all its runs, in `out`/budget/name; what is there already is kept.

    The ways of looking are pictures in its folder `looks`, and `looks.json` says what they are.

    Args:
        name: one of `convscope.courses.reproductions()`.
        budget: "full" is as reported; smaller ones are in the study's file. One without "laptop" is then run in full.
        out: folder of all reproductions.
        workers, device, view, executor: see convscope.sweep.
    Raises:
        UnknownNameError: no such study or budget.
        RunFolderError: the folder holds something else.
        SettingError, StoppedError, FailedError: see convscope.sweep.

    Example:
        >>> study = cs.courses.reproduce("net1-grid", "smoke")              # doctest: +SKIP
    """
    spec = find_reproduction(name, budget)
    told = reproduces(spec, name)
    folder = folder_of(Path(out), told.budget, name)
    study = sweep(spec, folder, workers=workers, device=device, view=view, executor=executor)
    look_again(study)
    measure_networks(study, told)
    return study


def look_again(study: Study) -> list[LookedAt]:
    """The ways of looking that the study names, on its runs; those that are there already are kept."""
    report = reproduces(study.spec, str(study.path))
    earlier = {each.command: each for each in looks_of(study.path) if has_picture(study.path, each)}
    looks = []
    for number, look in enumerate(report.looks, 1):
        looked_at = _looked_at(study, look, f"{LOOKS}/{number:02d}-{look.lens}.png", earlier)
        looks.append(looked_at)
        write_whole(study.path / LOOKS / _INDEX, json.dumps([asdict(each) for each in looks], indent=1))
    return looks


def looks_of(folder: Path) -> list[LookedAt]:
    """The ways of looking that a study's folder has; none where it has no such list, or a damaged one."""
    try:
        return TypeAdapter(list[LookedAt]).validate_json((folder / LOOKS / _INDEX).read_bytes())
    except (OSError, ValueError):
        return []


def has_picture(folder: Path, look: LookedAt) -> bool:
    """Whether a look's picture is a file within the study's folder, which may be somebody else's."""
    picture = folder / look.picture
    return os.path.isfile(picture) and picture.resolve().is_relative_to(folder.resolve())


def _looked_at(study: Study, look: ReportedLook, picture: str, earlier: Mapping[str, LookedAt]) -> LookedAt:
    try:
        run = _chosen(study, look)
    except RequestError as error:
        return LookedAt(look.lens, look.about, "", {}, problem=str(error))
    command = look.command(str(run.path))
    previous = earlier.get(command)
    if previous is not None and previous.picture == picture:
        return previous
    (study.path / LOOKS).mkdir(exist_ok=True)
    entry = LookedAt(look.lens, look.about, command, dict(run.settings))
    try:
        image = None if look.image is None else str(look.image)
        _, view = look_at(open_subject(run.path), look.lens, image, out=study.path / picture, **look.settings)
    except ConvscopeError as error:
        return replace(entry, problem=str(error))
    return replace(entry, picture=picture, heading=view.heading)


def _chosen(study: Study, look: ReportedLook) -> StudyRun:
    """The first finished run of the best setting among those that the look belongs to."""
    done = [run for run in study.runs if run.state == "done"]
    matching = {run.number: run for run in reversed(done) if matches(run.open().spec, look.at)}
    best = next((matching[each.number] for each in study.ranking() if each.number in matching), None)
    if best is None:
        which = ", ".join(f"{key} {value}" for key, value in look.at.items())
        raise RequestError(f"no finished run {f'with {which} ' if which else ''}is there to look at")
    return best
