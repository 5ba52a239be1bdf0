"""The rate that a range test finds against a sweep: six networks, each trained with rates a factor of 3 apart, and with it.

The best rate of the sweep is that of the least validation loss after the last epoch, the mean of the seeds. The rate found
should be within a factor of 3 of it.

    CONVSCOPE_DATA=… OMP_NUM_THREADS=1 python bench/rates.py [--seeds 2] [--images 2000]
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from convscope.data import DataBundle, load_data
from convscope.errors import DivergedError
from convscope.runs import RunSpec, make_spec
from convscope.training import Silent, find_rate, train_spec
from machine import describe

CASES: dict[str, dict[str, Any]] = {
    "net1, CIFAR-10, sgd": {"data": "cifar10", "net": "net1", "recipe": {"optimizer": "sgd"}},
    "lean-cifar of width 12, CIFAR-10, adamw": {"data": "cifar10", "net": {"name": "lean-cifar", "width": 12}},
    "mnist-net, MNIST, sgd": {"data": "mnist", "net": "mnist-net", "recipe": {"optimizer": "sgd"}},
    "lines-net, Lines, adam": {"data": "lines", "net": "lines-net", "recipe": {"optimizer": "adam"}},
    "c8 M c16 M f64, MNIST, adamw": {"data": "mnist", "net": "c8 M c16 M f64"},
    "c16 M c32 M f64, CIFAR-10, rmsprop": {
        "data": "cifar10",
        "net": "c16 M c32 M f64",
        "recipe": {"optimizer": "rmsprop"},
    },
}
RATES = {"sgd": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), "adaptive": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--images", type=int, default=2000, help="of train, validation (30 %%) and test together")
    given = options.parse_args()
    print(describe())
    print(
        "\n| network, data, optimizer | loss by rate of the sweep | best | found | factor | loss, found |\n"
        + "| --- " * 6
        + "|"
    )
    began, good = time.process_time(), 0
    for name, case in CASES.items():
        line, close = _line(name, case, given.images, given.seeds)
        good += close
        print(line, flush=True)
    print(f"\nwithin a factor of 3: {good} of {len(CASES)}; {time.process_time() - began:.0f} s of processor time")


def _line(name: str, case: dict[str, Any], images: int, seeds: int) -> tuple[str, bool]:
    data = {"source": case["data"], "limit": images, "split": "60/30/10"}
    spec = make_spec({**case, "data": data, "recipe": {"batch": 32, "epochs": 3, **case.get("recipe", {})}})
    bundle = load_data(spec.data)
    spec = spec.model_copy(update={"data": bundle.spec})
    found, _ = find_rate(spec, bundle, "cpu")
    rates = RATES["sgd" if spec.recipe.optimizer == "sgd" else "adaptive"]
    losses = {rate: _loss(spec, bundle, rate, seeds) for rate in (*rates, found)}
    best = min(rates, key=losses.__getitem__)
    factor = max(found / best, best / found)
    swept = ", ".join(f"{rate:g}: {losses[rate]:.3g}" for rate in rates)
    return f"| {name} | {swept} | {best:g} | {found:g} | {factor:.1f} | {losses[found]:.3g} |", factor <= 3


def _loss(spec: RunSpec, data: DataBundle, rate: float, seeds: int) -> float:
    """Validation loss after the last epoch, the mean over seeds; infinite where one diverged."""
    total = 0.0
    for seed in range(seeds):
        recipe = spec.recipe.model_copy(update={"rate": rate, "seed": seed})
        with tempfile.TemporaryDirectory() as folder:
            try:
                run = train_spec(
                    spec.model_copy(update={"recipe": recipe}),
                    data,
                    Path(folder) / "run",
                    device="cpu",
                    watcher=Silent(),
                )
            except DivergedError:
                return math.inf
            total += float(run.history["val_loss"].iloc[-1])
    return total / seeds


if __name__ == "__main__":
    main()
