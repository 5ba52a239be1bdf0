"""`convscope table` on a folder of many finished runs: seconds and peak memory of the whole command, interpreter included.

Run folders are made as a study leaves them: the files of a real run, copied with other settings, seeds and histories. Then
the command is run as a user would: the first time, which reads every folder; again, with the index; grouped; at one epoch;
and after some of the runs have changed.

    python bench/table.py [--runs 10000] [--epochs 30] [--folder DIR]
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from convscope.data import DataSpec
from convscope.nets import NetSpec
from convscope.runs import ENVIRONMENT, HISTORY, METRICS, MODEL, SPEC, Recipe, RunSpec, describe_environment, dump_spec
from convscope.scans import Estimate, difference, mean_over_classes, proportion
from machine import describe

WIDTHS, KERNELS, RATES, DROPOUTS = (
    range(4, 44, 4),
    (3, 5, 7, 9, 11),
    (0.001, 0.003, 0.01, 0.03),
    (0.0, 0.1, 0.3, 0.5, 0.7),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=10_000)
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--folder", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        start = time.perf_counter()
        make(folder / "runs", given.runs, given.epochs)
        print(f"{describe()}; load {os.getloadavg()[0]:.1f}")
        print(f"{given.runs:,} runs of {given.epochs} epochs made in {time.perf_counter() - start:.0f} s\n")
        measure(folder, given.runs)


def make(folder: Path, n: int, epochs: int) -> None:
    """Folders of finished runs: a grid of settings, over and over with other seeds."""
    generator = np.random.default_rng(0)
    settings = itertools.cycle(itertools.product(WIDTHS, KERNELS, RATES, DROPOUTS))
    environment = describe_environment()
    size = len(WIDTHS) * len(KERNELS) * len(RATES) * len(DROPOUTS)
    for number, (width, kernel, rate, dropout) in zip(range(n), settings, strict=False):
        run = folder / f"{number % size:04d}-s{number // size}"
        if run.exists():
            continue
        run.mkdir(parents=True)
        net = NetSpec(name="net1", width=width, kernel=kernel, dropout=dropout)
        recipe = Recipe(rate=rate, epochs=epochs, seed=number // size)
        (run / SPEC).write_text(dump_spec(RunSpec(data=DataSpec(source="mnist"), net=net, recipe=recipe)))
        about = {**environment, "parameters": 1000 * width, "data": {"name": "mnist", "digest": "0" * 64}}
        (run / ENVIRONMENT).write_text(json.dumps(about, indent=1))
        (run / HISTORY).write_bytes(history(epochs, generator))
        (run / METRICS).write_text(json.dumps(metrics(int(generator.integers(9_000, 9_950))), indent=1))
        (run / MODEL).touch()


def history(epochs: int, generator: np.random.Generator) -> bytes:
    columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "rate", "seconds", "images_per_s")
    frame = pd.DataFrame(generator.random((epochs, len(columns))), columns=list(columns))
    frame.insert(0, "epoch", np.arange(1, epochs + 1))
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def metrics(right: int) -> dict[str, object]:
    """As large as those of ten classes are."""
    figure = proportion(right, 10_000)
    share = figure.to_json()
    row = {"class": "one", "images": 1000, **dict.fromkeys(("precision", "recall", "f1"), share)}
    summary = {"loss": Estimate(0.1, 0.09, 0.11).to_json(), "accuracy": share, "train_accuracy": share}
    summary |= {key: mean_over_classes([figure] * 10).to_json() for key in ("top5", "precision", "recall", "f1")}
    overfit = {part: 100 * (value or 0) for part, value in difference(proportion(990, 1000), figure).to_json().items()}
    summary |= {"overfit_percent": overfit, "calibration_error": share}
    reliability = [{"images": 500, "accuracy": 0.5, "confidence": 0.5}] * 15
    head = {**summary, "per_class": [row] * 10, "confusion": [[100] * 10] * 10, "reliability": reliability}
    return {"split": "test", "images": 10_000, **summary, "heads": {"class": head}}


def measure(folder: Path, n: int) -> None:
    """The command in several ways, each in a process of its own."""
    print(f"{'convscope table':44}    wall, s   CPU, s   peak, MB")
    command("the first time", folder)
    for _ in range(3):
        command("again", folder)
    command("--by net.width,net.kernel", folder, "--by", "net.width,net.kernel")
    command(
        "--by net.width,net.kernel,net.dropout,rate", folder, "--by", "net.width,net.kernel,net.dropout,recipe.rate"
    )
    command("--epoch best", folder, "--epoch", "best")
    command("--importance", folder, "--importance")
    command("--format csv --out", folder, "--format", "csv", "--out", str(folder / "out.csv"))
    for run in sorted((folder / "runs").iterdir())[: n // 100]:
        os.utime(run / METRICS)
    command("one run in a hundred has changed", folder)


def command(name: str, folder: Path, *options: str) -> None:
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import resource, sys; from convscope.cli import run; status = run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(status)"
    )
    arguments = [sys.executable, "-c", code, "table", str(folder), *options]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = int(done.stderr.split()[-1]) / (1 if sys.platform == "linux" else 1024) / 1000
    print(f"{name:44} {seconds:10.2f} {cpu:8.2f} {peak:10.0f}", flush=True)


if __name__ == "__main__":
    main()
