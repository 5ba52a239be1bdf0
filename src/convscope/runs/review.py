"""A review of a run's test images: where somebody looked at a mistake, and said whose it was."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, get_args

import pandas as pd

from convscope.errors import RunFolderError, UnknownNameError
from convscope.runs.lock import alone_in
from convscope.runs.names import REVIEW
from convscope.runs.run import RunOrFolder, open_run

Verdict = Literal["label", "ambiguous", "model"]
"""The label is wrong; more than one class fits the image; or the network is wrong."""

_COLUMNS = {"image": "int64", "name": "str", "verdict": "str", "time": "str"}
_PATIENCE_S = 10.0


def read_review(run: RunOrFolder) -> pd.DataFrame:
    """A row for each test image that was reviewed, by its number.

    Returns:
        Columns `image`, its number in the test set; `name`, what it is called there; `verdict`, see `Verdict`; `time` of the
        verdict, UTC, as ISO 8601. Empty before the first verdict.
    Raises:
        RunFolderError: the file is damaged.
    """
    path = open_run(run).path / REVIEW
    try:
        with open(path, "rb") as file:
            review = pd.read_parquet(file)
    except FileNotFoundError:
        return _table([])
    except (ValueError, OSError) as error:
        raise RunFolderError(f"{path} is damaged and cannot be read: {error}; remove it, or bring it back") from None
    if list(review.columns) != list(_COLUMNS) or not set(review["verdict"]) <= set(get_args(Verdict)):
        raise RunFolderError(f"{path} is no review: expected the columns {', '.join(_COLUMNS)}; remove it")
    return review


def write_verdict(run: RunOrFolder, image: int, name: str, verdict: Verdict) -> None:
    """Writes what was found of a test image, in place of what was written of it before; at once, and safe beside other writers.

    Args:
        run: the run, or its folder, which holds the review.
        image: its number in the test set.
        name: what it is called there, see `ImageSet.name`.
        verdict: see `Verdict`.
    Raises:
        UnknownNameError: there is no such verdict.
        FolderInUseError: another process keeps the folder to itself, and did not end within ten seconds.
        WriteError: the folder cannot be written.
    """
    if verdict not in get_args(Verdict):
        raise UnknownNameError("verdict", verdict, get_args(Verdict), "one of a review's")
    time = datetime.now(UTC).isoformat(timespec="seconds")
    _change(run, image, [{"image": image, "name": name, "verdict": verdict, "time": time}])


def remove_verdict(run: RunOrFolder, image: int) -> None:
    """Takes back what was written of a test image; nothing where there is none. Raises as `write_verdict`."""
    _change(run, image, [])


def _change(run: RunOrFolder, image: int, rows: list[dict[str, Any]]) -> None:
    run = open_run(run)
    with alone_in(run.path, _PATIENCE_S):
        before = read_review(run)
        others = before[before["image"] != image].to_dict("records")
        run.write_table(REVIEW, _table([*others, *rows]))


def _table(rows: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS).sort_values("image", ignore_index=True)
