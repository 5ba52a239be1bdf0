"""Sections for the report of a study that repeats a report: its figures beside the reported ones, and its ways of looking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convscope.courses.outcomes import read_reproduction
from convscope.courses.reproduce import has_picture, looks_of
from convscope.courses.reproduction import CLAIMS_EXPLAINED, EXPLAINED, claim_rows, reproduction_rows, state_in_words
from convscope.errors import ConvscopeError
from convscope.report import Section, fill
from convscope.study import open_study


def study_sections(folder: Path) -> list[Section]:
    """What the page of a study's folder shows of the report that it repeats; nothing where it repeats none."""
    try:
        study = open_study(folder)
        if study.spec.reproduces is None:
            return []
        reproduction = read_reproduction(study, study.name, study.spec)
    except ConvscopeError:
        return []
    report = reproduction.told
    figures = fill(
        "repeated.html",
        "convscope.courses",
        report=report.report,
        about=study.spec.about,
        budget=report.budget,
        state=state_in_words(reproduction),
        rows=reproduction_rows(reproduction),
        claims=claim_rows(reproduction),
        claims_explained=CLAIMS_EXPLAINED,
        otherwise=report.otherwise,
        disagrees=report.disagrees,
        explained=EXPLAINED,
    )
    sections = [Section("repeated", f"Report {report.report}", figures)]
    if looks := list(_looks(folder)):
        html = fill("looks.html", "convscope.courses", report=report.report, looks=looks)
        sections.append(Section("looks", "Looks", html))
    return sections


def _looks(folder: Path) -> Iterator[dict[str, Any]]:
    for each in looks_of(folder):
        content = (folder / each.picture).read_bytes() if has_picture(folder, each) else b""
        yield vars(each) | {
            "problem": each.problem or "its file is not in the study's folder",
            "content": content,
            "width": int.from_bytes(content[16:20], "big"),  # of a PNG, its header says it there
        }
