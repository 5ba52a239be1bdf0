"""Of a study that repeats a report: its figures beside the reported ones, and the report's ways of looking."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convscope.errors import ConvscopeError
from convscope.report.reproduction import EXPLAINED, reproduction_rows, state_in_words
from convscope.study import looks_of, open_study, read_reproduction


def repeated(folder: Path) -> dict[str, Any] | None:
    """What the page shows of it; None of a folder that repeats no report."""
    try:
        study = open_study(folder)
    except ConvscopeError:
        return None
    if study.spec.reproduces is None:
        return None
    each = read_reproduction(study, study.name, study.spec)
    return {
        "report": each.report,
        "about": each.spec.about,
        "budget": each.budget,
        "state": state_in_words(each),
        "rows": reproduction_rows(each),
        "otherwise": each.told.otherwise,
        "disagrees": each.told.disagrees,
        "explained": EXPLAINED,
        "looks": list(_looks(folder)),
    }


def _looks(folder: Path) -> Iterator[dict[str, Any]]:
    for each in looks_of(folder):
        picture = folder / each.picture
        shown = bool(each.picture) and picture.is_file()
        content = picture.read_bytes() if shown else b""
        yield {
            "about": each.about,
            "lens": each.lens,
            "heading": each.heading,
            "command": each.command,
            "problem": each.problem or "the file is gone",
            "uri": f"data:image/png;base64,{b64encode(content).decode()}" if shown else "",
            "width": int.from_bytes(content[16:20], "big"),  # of a PNG, its header says it there
        }
