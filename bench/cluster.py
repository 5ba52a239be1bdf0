"""What the driver of a sweep on a cluster takes for each run: store, folder and messages, measured with tasks that sleep.

python bench/cluster.py [--runs 1000] [--tasks 8] [--sleep 0] [--no-ray]
python bench/cluster.py --local [--runs 8] [--sleep 30]     (runs of so many seconds on two nodes, and in two processes)
python bench/cluster.py --scan     (images a second of a scan on one, two and four nodes; its network only waits)

The tasks are on a Ray cluster of this machine alone, or, with --no-ray, threads that only wait; so one can see what 1,000 runs
at a time cost the driver on a machine of two cores. Each task tells three epochs and gives back the files of a run: those of a
first run, which is trained, so that the driver reads and writes what it always does.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import torch
from tests.conftest import write_spots

from convscope.compute import Executor, LocalProcesses, Ray
from convscope.scans import BatchOutputs, scan
from convscope.study import cluster, read_study, sweep
from convscope.study.cluster import ClusterEngine, Order, Reply
from convscope.study.folder import read_files
from convscope.study.live import Silent
from convscope.study.store import Store
from convscope.study.worker import Job
from sweep import BASE, length_of

_EPOCHS = 3


class Waiting(Executor):
    """Stands for a cluster: each task is a timer of this process."""

    is_remote, gpus, checkpoint_s = True, 0.0, 30.0

    def __init__(self, tasks: int, sleep: float) -> None:
        self.count, self.sleep = tasks, sleep
        self.told: list[tuple[str, Any, bool]] = []

    def shares(self, folder: Path) -> bool:
        return False

    def line(self, key: str) -> str:
        return key

    def messages(self) -> list[tuple[str, Any, bool]]:
        found, self.told = self.told, []
        return found

    def submit(self, work: Callable[..., Any], order: Order, data: Any, key: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def end() -> None:
            self.told += [(key, message, False) for message in _messages()]
            future.set_result(_reply(self.files))

        Timer(self.sleep, end).start() if self.sleep else end()
        return future


def _messages() -> list[dict[str, Any]]:
    rows = [{"epoch": n + 1, "val_accuracy": 0.5, "train_loss": 1.0} for n in range(_EPOCHS)]
    return [{"node": "sleeper"}, *({"row": row} for row in rows)]


def _reply(files: Any) -> Reply:
    return Reply("done", "", 0.5, files, ())


def _sleeping(sleep: float, files: Any) -> Callable[..., Reply]:
    def work(order: Order, data: Any, line: Any) -> Reply:
        for message in _messages():
            line.tell(message)
        time.sleep(sleep)
        return _reply(files)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--scan", action="store_true")
    given = parser.parse_args()
    if given.scan:
        _scan()
        return
    if given.local:
        _against_processes(given.runs, given.sleep)
        return
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), given.runs, given.tasks, given.sleep, given.no_ray)


def _measure(folder: Path, runs: int, tasks: int, sleep: float, no_ray: bool) -> None:
    write_spots(folder / "spots.npz", 180)
    rates, seeds = ", ".join(f"{0.001 + n / 1e4:.4f}" for n in range(runs // 100)), list(range(100))
    asked = f"data: {folder / 'spots.npz'}\nnet: c8b M f8\nrecipe: {{epochs: {_EPOCHS}, batch: 24}}\n"
    first = sweep(read_study(asked + "sweep: {recipe.rate: [0.01]}\n", "one"), folder / "first", view=Silent())
    files = read_files(first.runs[0].path)
    spec = read_study(asked + f"sweep: {{recipe.rate: [{rates}]}}\nseeds: {seeds}\n", "many")
    if no_ray:
        executor: Any = Waiting(tasks, sleep)
        executor.files = files
    else:
        import ray

        ray.init(address="local", num_cpus=tasks, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        executor = Ray("auto", tasks=tasks, shared_disk=False)
        cluster.train_on_node = _sleeping(sleep, files)  # type: ignore[assignment]
    (folder / "many").mkdir()
    began = time.perf_counter()
    with closing(Store(folder / "many", spec)) as store, executor:
        store.drive()
        store.fill()
        filled, used = time.perf_counter(), time.process_time()
        (folder / "many" / "study.yaml").write_text("")
        ClusterEngine(store, executor, Job(str(folder / "many"), None, "cpu"), Silent()).run()
    wall, used = time.perf_counter() - filled, time.process_time() - used
    done = len(list((folder / "many" / "runs").glob("*/metrics.json")))
    assert done == runs, f"{done} of {runs}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    where = "timers" if no_ray else "Ray"
    print(
        f"{runs:,} runs, {tasks:,} at a time on {where}, of {sleep:g} s: {wall:.1f} s, {1000 * wall / runs:.2f} ms a run; "
        f"driver's processor {1000 * used / runs:.2f} ms a run, peak {peak:.2f} GiB; store filled in {filled - began:.1f} s"
    )


def _against_processes(runs: int, seconds: float) -> None:
    """The same runs, really trained, in two processes of this machine and on two nodes of it, one core each."""
    from ray.cluster_utils import Cluster

    torch.set_num_threads(1)
    length = length_of(seconds)
    study = BASE | {"seeds": list(range(runs)), "recipe": BASE["recipe"] | length}
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        for where in ("processes", "nodes", "processes again"):
            if where == "nodes":
                here.add_node(num_cpus=1)
                here.add_node(num_cpus=1)
            began = time.perf_counter()
            with Ray(here.address, shared_disk=False) if where == "nodes" else LocalProcesses(2) as executor:
                done = sweep(study, Path(folder) / where.replace(" ", "-"), executor=executor, view=Silent()).runs
            took[where] = time.perf_counter() - began
            assert {run.state for run in done} == {"done"}
            print(f"{runs} runs of {length['epochs']} epochs in two {where}: {took[where]:.1f} s", flush=True)
    local = (took["processes"] + took["processes again"]) / 2
    print(f"nodes against processes: {took['nodes'] / local - 1:+.1%}")
    here.shutdown()


class Pausing(torch.nn.Module):
    """Waits so long for each batch: a network's time without its processor, which the nodes of one machine would share."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.weight = seconds, torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.weight * images.flatten(1)[:, :3]


@dataclass
class Network:
    """What a scan of outputs needs of a network."""

    net: torch.nn.Module
    run: None = None

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        return images


def _scan() -> None:
    from ray.cluster_utils import Cluster

    network, images = Network(Pausing(0.1)), torch.rand(40_000, 3, 8, 8)
    here = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    rates: list[float] = []
    for nodes in (1, 2, 4):
        for _ in range(nodes - len(rates) if nodes < 4 else 2):
            here.add_node(num_cpus=1)
        with Ray(here.address) as executor:
            for part in (images[:2000], images):  # the first loads PyTorch
                began = time.perf_counter()
                scan(network, part, [Histogram()], batch_size=100, progress=False, executor=executor)  # type: ignore[list-item]
            rates.append(len(images) / (time.perf_counter() - began))
        print(f"{nodes} nodes: {rates[-1]:,.0f} images/s, {rates[-1] / rates[0] / nodes:.0%} of {nodes} times one")
    here.shutdown()


class Histogram:
    """Counts outputs by their tenth."""

    def __init__(self) -> None:
        self.counts = torch.zeros(10, dtype=torch.int64)

    def update(self, seen: BatchOutputs) -> None:
        self.counts += torch.histc(seen.outputs, 10, 0, 1).long()

    def merge(self, other: Histogram) -> None:
        self.counts += other.counts

    def result(self) -> torch.Tensor:
        return self.counts


if __name__ == "__main__":
    main()
