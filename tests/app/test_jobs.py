"""Jobs: what is left when they are cancelled, and when their process dies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from convscope.app import ExploredRun, questions
from convscope.app.jobs import Job, Jobs
from convscope.runs import Run
from tests.app.serving import run_async


@pytest.mark.own_processes
def test_a_job_that_is_cancelled_twice_harms_no_other(reported: Run) -> None:
    run_async(_cancel_twice(ExploredRun(reported)))


async def _cancel_twice(explored: ExploredRun) -> None:
    jobs = Jobs()
    first = jobs.ask(explored, "nearest", row=1)
    second = jobs.ask(explored, "nearest", row=2)
    third = jobs.ask(explored, "nearest", row=3)
    await asyncio.sleep(0.3)  # it starts its process
    for _ in range(3):
        jobs.cancel(first)
        jobs.cancel(third)  # it waits
        await asyncio.sleep(0)
    await _done(first, second, third)
    assert (first.error, second.error, third.error) == ("cancelled", None, "cancelled")
    assert second.result is not None
    await jobs.close()


@pytest.mark.own_processes
def test_after_its_process_was_killed_the_next_question_is_answered(reported: Run) -> None:
    run_async(_kill(ExploredRun(reported)))


async def _kill(explored: ExploredRun) -> None:
    jobs = Jobs()
    first = jobs.ask(explored, "nearest", row=4)
    while not jobs._executor._processes:
        await asyncio.sleep(0.01)
    for process in jobs._executor._processes:
        process.kill()
    second = jobs.ask(explored, "nearest", row=5)
    await _done(first, second)
    assert "SIGKILL" in str(first.error)
    assert second.result is not None
    await jobs.close()


def test_what_nobody_expected_is_said_and_is_no_answer(reported: Run) -> None:
    run_async(_fail(ExploredRun(reported)))


async def _fail(explored: ExploredRun) -> None:
    jobs = Jobs()
    job = jobs.ask(explored, "nearest", place=4)
    await _done(job)
    assert job.to_json()["state"] == "failed"
    assert "unexpected keyword argument 'place'" in str(job.error)
    await jobs.close()


def test_a_job_says_how_far_it_is(reported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*given: Any) -> int:
        """In place of a question: half of a scan, until the file that lets it go on is there."""
        import time

        from convscope.base.console import following_progress, progress_bar

        *_, progress = given
        with (
            following_progress(lambda label, share: progress.write_text(str(share))),
            progress_bar("scanning", 8) as advance,
        ):
            advance(4)
            while not progress.with_suffix(".on").exists():
                time.sleep(0.01)
            advance(4)
        return 1

    monkeypatch.setattr("convscope.app.jobs.answer", answer)
    run_async(_share(ExploredRun(reported)))


async def _share(explored: ExploredRun) -> None:
    jobs = Jobs()
    job = jobs.ask(explored, "nearest", row=1)
    assert job.to_json()["share"] is None
    while job.share is None:
        await asyncio.sleep(0.02)
    assert (job.to_json()["share"], job.to_json()["state"]) == (0.5, "waiting")
    job.progress.with_suffix(".on").touch()
    await _done(job)
    assert (job.share, job.result, job.progress.exists()) == (None, 1, False)
    await jobs.close()


def test_the_answer_of_a_scan_leaves_its_share(reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVSCOPE_CACHE", str(tmp_path / "cache"))
    questions.answer(str(reported.path), False, "strongest", {}, tmp_path / "share")
    assert float((tmp_path / "share").read_text()) == 1


async def _done(*jobs: Job) -> None:
    await asyncio.wait_for(asyncio.gather(*(job.task for job in jobs if job.task is not None)), 120)
