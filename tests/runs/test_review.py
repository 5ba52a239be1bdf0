"""The review of a run's test images: verdicts one at a time, by several writers at once."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest

from convscope.errors import FolderInUseError, RunFolderError, UnknownNameError, WriteError
from convscope.runs import REVIEW, Run, alone_in, read_review, remove_verdict, write_verdict

COLUMNS = ["image", "name", "verdict", "time"]


def rows_of(run: Run) -> list[tuple[int, str, str]]:
    found = read_review(run)
    return list(zip(found["image"], found["name"], found["verdict"], strict=True))


def test_verdicts_are_written_replaced_and_removed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    empty = read_review(run)
    assert list(empty.columns) == COLUMNS
    assert empty.empty
    write_verdict(run, 7, "cats/é.jpg", "label")
    write_verdict(run, 3, "image 3", "model")
    assert rows_of(run) == [(3, "image 3", "model"), (7, "cats/é.jpg", "label")]
    write_verdict(run, 7, "cats/é.jpg", "ambiguous")
    assert rows_of(run) == [(3, "image 3", "model"), (7, "cats/é.jpg", "ambiguous")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", time) for time in read_review(run)["time"])
    assert (
        abs(datetime.fromisoformat(read_review(run)["time"][0]).timestamp() - (tmp_path / REVIEW).stat().st_mtime) < 60
    )
    remove_verdict(run, 3)
    remove_verdict(run, 99)
    assert rows_of(run) == [(7, "cats/é.jpg", "ambiguous")]
    remove_verdict(run, 7)
    assert read_review(run).empty
    write_verdict(run, 1, "b", "model")
    assert read_review(run).dtypes["image"] == "int64"
    assert [file.name for file in tmp_path.iterdir()] == [REVIEW]


def _write(folder: Path, images: range) -> None:
    for image in images:
        write_verdict(Run(folder), image, f"image {image}", "label")


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """Threads of one process, and two processes."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(_write, [tmp_path] * 4, [range(start, 40, 4) for start in range(4)]))
    assert read_review(Run(tmp_path))["image"].tolist() == list(range(40))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        list(processes.map(_write, [tmp_path] * 2, [range(40, 60), range(60, 80)]))
    assert read_review(Run(tmp_path))["image"].tolist() == list(range(80))


def test_a_folder_in_use_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.runs.review._PATIENCE_S", 0.05)
    with alone_in(tmp_path), pytest.raises(FolderInUseError, match="is in use"):
        write_verdict(Run(tmp_path), 1, "a", "label")
    assert not (tmp_path / REVIEW).exists()
    write_verdict(Run(tmp_path), 1, "a", "label")


@pytest.mark.usefixtures("annotations_unchecked")
def test_wrong_verdicts_and_files(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(UnknownNameError, match="verdict 'labels' is not one of a review's; did you mean 'label'"):
        write_verdict(run, 1, "a", "labels")  # type: ignore[arg-type]
    assert not (tmp_path / REVIEW).exists()
    (tmp_path / REVIEW).write_bytes(b"PAR1 no")
    with pytest.raises(RunFolderError, match="damaged and cannot be read"):
        read_review(run)
    with pytest.raises(RunFolderError, match="damaged"):  # and is not written over
        write_verdict(run, 1, "a", "label")
    pd.DataFrame({"image": [1], "name": ["a"], "verdict": ["no"], "time": [""]}).to_parquet(tmp_path / REVIEW)
    with pytest.raises(RunFolderError, match="is no review"):
        read_review(run)
    with pytest.raises(WriteError):
        write_verdict(Run(tmp_path / "absent" / ("n" * 300)), 1, "a", "label")
