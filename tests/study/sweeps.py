"""Small studies for tests, and what they came to."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from convscope.runs import HISTORY, METRICS, MODEL
from convscope.study import Study, dump_study, open_study, read_study
from convscope.study.folder import STUDY
from convscope.study.store import Store
from convscope.study.worker import Job, Worker
from tests.conftest import write_spots


def study_text(folder: Path, sweep: str, epochs: int = 2, **keys: object) -> str:
    """A study of the bright spots, whose images it writes into the folder."""
    source = folder / "spots.npz"
    if not source.exists():
        write_spots(source, 180)
    more = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
    return f"data: {source}\nnet: c8b M f8\nrecipe: {{epochs: {epochs}, batch: 24}}\nsweep: {{{sweep}}}\n{more}"


def worked(folder: Path, text: str, **job: Any) -> tuple[Study, Store]:
    """The study after one worker, in this process, has done what there was to do."""
    folder.mkdir(exist_ok=True)
    spec = read_study(text, "study.yaml")
    (folder / STUDY).write_text(dump_study(spec))
    worker = Worker(Job(str(folder), None, "cpu", **job))
    worker.store.fill()
    worker.work()
    return open_study(folder), worker.store


def command_line(*arguments: object) -> subprocess.Popen[str]:
    """convscope in a process of its own."""
    code = "import sys; from convscope.cli import run; sys.exit(run(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def workers_of(process: int | None = None) -> list[psutil.Process]:
    """The workers that a process has started; this one by default."""
    return [child for child in psutil.Process(process).children() if "convscope.compute.worker" in child.cmdline()]


def going(folder: Path) -> dict[int, str]:
    """Trial → name of the worker that has it, read from the file as any other program could."""
    if not (folder / "study.db").exists():
        return {}
    asked = (
        "select number, value_json from trials natural join trial_user_attributes "
        "where state = 'RUNNING' and key = 'owner' and value_json != 'null'"
    )
    connection = sqlite3.connect(folder / "study.db", timeout=30)
    try:
        return {number: json.loads(owner) for number, owner in connection.execute(asked)}
    except sqlite3.OperationalError:  # its tables are not made yet
        return {}
    finally:
        connection.close()


def in_the_middle(folder: Path) -> bool:
    """Whether some run has a first epoch and is not done."""
    runs = (folder / "runs").glob("*")
    return any((run / HISTORY).exists() and not (run / MODEL).exists() for run in runs)


def results(study: Study) -> dict[str, tuple[bytes, str]]:
    """Weights and metrics of every run, to the bit."""
    return {run.path.name: ((run.path / MODEL).read_bytes(), (run.path / METRICS).read_text()) for run in study.runs}
