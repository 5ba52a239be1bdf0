"""What a sweep costs beside its runs: the time of the whole study against the sum of what its runs take, with one worker.

The runs train a small network on generated lines, for about as long as asked. What is left is told apart: the start, until
the first run is begun (the worker's process, loading PyTorch, the data), and the end, which a study has once; and what each
run costs besides.

    python bench/sweep.py [--runs 4] [--seconds 30]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from convscope.data import load_data
from convscope.runs import make_spec
from convscope.study import load_study, sweep
from convscope.study.folder import STUDY
from convscope.study.store import Store, seconds_of
from convscope.training import measure_step
from machine import describe

BASE: dict[str, Any] = {"data": {"source": "lines", "limit": 9600}, "net": "lines-net", "recipe": {"batch": 64}}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=4)
    options.add_argument("--seconds", type=float, default=30.0)
    given = options.parse_args()
    print(describe())
    study = BASE | {"seeds": list(range(given.runs)), "recipe": BASE["recipe"] | length_of(given.seconds)}
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        sweep(study, Path(folder) / "study", device="cpu")
        _report(Path(folder) / "study", began, time.time())


def length_of(seconds: float) -> dict[str, int]:
    """As many epochs as take about so long; validation and evaluation take part of it."""
    spec = make_spec(BASE)
    cost = measure_step(spec, load_data(spec.data), "cpu")
    return {"epochs": max(1, round(0.9 * seconds / (cost.seconds * cost.steps)))}


def _report(folder: Path, began: float, ended: float) -> None:
    store = Store(folder, load_study(folder / STUDY))
    trials = store.trials()
    store.close()
    took = [seconds_of(trial) or 0.0 for trial in trials]
    starts = [trial.datetime_start.timestamp() for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]
    whole, runs, n = ended - began, sum(took), len(trials)
    start, end = min(starts) - began, ended - max(ends)
    each = (max(ends) - min(starts) - runs) / n
    print(f"{n} runs of {runs / n:.1f} s on average, one worker: study {whole:.1f} s, runs {runs:.1f} s")
    print(f"above the runs: {100 * (whole - runs) / runs:.2f} %")
    print(
        f"start {start:.2f} s and end {end:.2f} s, once a study; {1000 * each:.0f} ms a run, {100 * each * n / runs:.3f} %"
    )
    print(f"so of 24 runs of 30 s: {100 * (start + end + 24 * each) / (24 * 30):.2f} %")


if __name__ == "__main__":
    main()
