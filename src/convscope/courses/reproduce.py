"""`reproduce`: a shipped study at one of its budgets, with the report's ways of looking at its best run as pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    folder = folder_of(Path(out), reproduces(spec, name).budget, name)
    study = sweep(spec, folder, workers=workers, device=device, view=view, executor=executor)
    look_again(study)
    measure_networks(study, reproduces(spec, name))
    return study


def look_again(study: Study) -> list[LookedAt]:
    """The ways of looking that the study names, on its runs; those that are there already are kept."""
    told = reproduces(study.spec, str(study.path))
    known = {each.command: each for each in looks_of(study.path) if (study.path / each.picture).is_file()}
    found = []
    for number, asked in enumerate(told.looks, 1):
        seen = _looked_at(study, asked, f"{LOOKS}/{number:02d}-{asked.lens}.png", known)
        found.append(seen)
        write_whole(study.path / LOOKS / _INDEX, json.dumps([asdict(each) for each in found], indent=1))
    return found


def looks_of(folder: Path) -> list[LookedAt]:
    """The ways of looking that a study's folder has; none where it has no such list, or a damaged one."""
    try:
        return [LookedAt(**each) for each in json.loads((folder / LOOKS / _INDEX).read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _looked_at(study: Study, asked: ReportedLook, picture: str, known: Mapping[str, LookedAt]) -> LookedAt:
    try:
        run = _chosen(study, asked)
    except RequestError as error:
        return LookedAt(asked.lens, asked.about, "", {}, problem=str(error))
    command = asked.command(str(run.path))
    seen = known.get(command)
    if seen is not None and seen.picture == picture:
        return seen
    (study.path / LOOKS).mkdir(exist_ok=True)
    told = LookedAt(asked.lens, asked.about, command, dict(run.settings))
    try:
        image = None if asked.image is None else str(asked.image)
        _, found = look_at(open_subject(run.path), asked.lens, image, out=study.path / picture, **asked.settings)
    except ConvscopeError as error:
        return LookedAt(**{**asdict(told), "problem": str(error)})
    return LookedAt(**{**asdict(told), "picture": picture, "heading": found.heading})


def _chosen(study: Study, asked: ReportedLook) -> StudyRun:
    """The first finished run of the best setting among those that the look belongs to."""
    done = [run for run in study.runs if run.state == "done"]
    mine = {run.number: run for run in reversed(done) if matches(run.open().spec, asked.at)}
    best = next((mine[each.number] for each in study.ranking() if each.number in mine), None)
    if best is None:
        which = ", ".join(f"{key} {value}" for key, value in asked.at.items())
        raise RequestError(f"no finished run {f'with {which} ' if which else ''}is there to look at")
    return best
