"""A Ray cluster of a head and two nodes of one core each, on this machine: results as of local processes, to the byte."""

from __future__ import annotations

import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convscope.compute import Executor, Ray, cluster, using
from convscope.data import ImageSet, load_data
from convscope.errors import MissingPackageError, SettingError, WorkerError
from convscope.runs import open_run, predict_parts
from convscope.scans import evaluate
from convscope.scope import Scope
from convscope.study import Study, open_study, sweep
from convscope.study.folder import read_files, write_files
from convscope.study.live import Silent, Standing
from tests.conftest import write_spots
from tests.study.sweeps import command_line, in_the_middle, results, study_text, worked

pytest.importorskip("ray")
EPOCHS = 60


class Nodes:
    """The cluster; a second node of it can be lost and replaced."""

    def __init__(self) -> None:
        for name, setting in cluster._QUIET.items():
            os.environ.setdefault(name, setting)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
            from ray.cluster_utils import Cluster

            head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20}
            self.cluster = Cluster(initialize_head=True, head_node_args=head)
            self.first, self.second = self.add("one"), self.add("two")
            ray.init(self.cluster.address, log_to_driver=False, logging_level="ERROR")  # whose processes tests share

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self, name: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.cluster.add_node(num_cpus=1, object_store_memory=100 << 20, node_name=name)

    def lose_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)

    def ray(self, **settings: Any) -> Ray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Ray(self.address, **settings)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    import ray

    ray.shutdown()
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return study_text(tmp_path_factory.mktemp("asked"), "recipe.rate: [0.001, 0.01]", epochs=EPOCHS, seeds=[0, 3])


@pytest.fixture(scope="module")
def undisturbed(text: str, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study, store = worked(tmp_path_factory.mktemp("whole") / "study", text)
    store.close()
    return study


class Looking(Silent):
    """Remembers what it is shown, and does something once."""

    def __init__(self, act: Callable[[], bool] = lambda: True) -> None:
        self.act, self.acted, self.lines, self.nodes = act, False, [], set()

    def show(self, standing: Standing) -> None:
        super().show(standing)
        self.nodes |= {going.node for going in standing.going}
        self.acted = self.acted or self.act()

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_an_address_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(SettingError, match=rf"no cluster answers at 127\.0\.0\.1:{port} .*ray start --head"):
        Ray(f"127.0.0.1:{port}")
    with pytest.raises(SettingError, match=r"expected auto, local or HOST:PORT"):
        Ray("ray://somewhere")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("name", "least"), [("cpus", 1), ("gpus", 0), ("tasks", 1)])
def test_a_number_that_is_too_small_is_refused_before_anything_is_begun(name: str, least: int) -> None:
    with pytest.raises(SettingError, match=f"^{name}: {least - 1} is out of range; give {least} or more$"):
        Ray("nowhere", **{name: least - 1})


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: object) -> None:
        raise MissingPackageError("ray", "a cluster (--ray)", "ray")

    monkeypatch.setattr(cluster, "import_optional", gone)
    with pytest.raises(MissingPackageError, match=r"pip install 'convscope\[ray\]'"):
        Ray("auto")


def test_a_sweep_without_a_shared_disk_of_which_a_node_is_lost_comes_to_the_same_bits(
    nodes: Nodes, text: str, undisturbed: Study, tmp_path: Path
) -> None:
    asked, folder = tmp_path / "asked.yaml", tmp_path / "study"
    asked.write_text(text)

    def lose_a_node() -> bool:
        if not in_the_middle(folder):  # a checkpoint has come back
            return False
        nodes.lose_second()
        return True

    looking = Looking(lose_a_node)
    with nodes.ray(shared_disk=False, checkpoint_s=0.2) as executor:
        assert executor.count == 2
        study = sweep(asked, folder, executor=executor, view=looking)
    assert looking.acted
    nodes.second = nodes.add("three")
    assert {"one", "two"} <= looking.nodes
    assert [line for line in looking.lines if "node two was lost" in line]
    assert results(study) == results(undisturbed)
    assert not list(folder.rglob("checkpoint*"))
    assert {run.state for run in study.runs} == {"done"}


@pytest.mark.slow  # two sweeps of twelve runs
def test_a_driver_that_is_killed_is_begun_again(nodes: Nodes, text: str, undisturbed: Study, tmp_path: Path) -> None:
    asked, folder = tmp_path / "asked.yaml", tmp_path / "study"
    asked.write_text(text)
    command = ("sweep", asked, "--out", folder, "--ray", nodes.address)
    with command_line(*command) as first:
        _wait(lambda: in_the_middle(folder), first)
        first.kill()
    with command_line(*command, "--json") as second:
        words = second.communicate(timeout=120)[1]
        assert second.returncode == 0, words
    assert [line for line in words.splitlines() if "val_accuracy" not in line] == []  # nothing of Ray's
    assert results(open_study(folder)) == results(undisturbed)


@pytest.mark.slow
def test_twelve_settings_of_two_seeds_on_three_nodes_after_a_node_and_the_driver_were_lost(
    nodes: Nodes, tmp_path: Path
) -> None:
    rates = ", ".join(f"{0.001 * n:.3f}" for n in range(1, 13))
    text = study_text(tmp_path, f"recipe.rate: [{rates}]", epochs=30, seeds=[0, 3])
    whole, store = worked(tmp_path / "whole", text)
    store.close()
    asked, folder, third = tmp_path / "asked.yaml", tmp_path / "study", nodes.add("more")
    asked.write_text(text)
    command = ("sweep", asked, "--out", folder, "--ray", nodes.address)

    def n_done() -> int:
        return sum(run.state == "done" for run in open_study(folder).runs) if (folder / "study.yaml").exists() else 0

    with command_line(*command) as first:
        _wait(lambda: n_done() >= 4, first)
        nodes.cluster.remove_node(third, allow_graceful=False)
        _wait(lambda: n_done() >= 11, first)
        first.kill()
    assert n_done() < 24
    with command_line(*command) as second:
        words = second.communicate(timeout=300)[1]
        assert second.returncode == 0, words
    assert len(results(open_study(folder))) == 24
    assert results(open_study(folder)) == results(whole)
    assert open_study(folder).ranking() == whole.ranking()


@pytest.mark.slow
def test_ctrl_c_saves_every_run(nodes: Nodes, text: str, undisturbed: Study, tmp_path: Path) -> None:
    asked, folder = tmp_path / "asked.yaml", tmp_path / "study"
    asked.write_text(text)
    command = ("sweep", asked, "--out", folder, "--ray", nodes.address)
    with command_line(*command) as second:
        _wait(lambda: in_the_middle(folder), second)
        second.send_signal(signal.SIGINT)
        words = second.communicate(timeout=60)[1]
        assert "all is saved" in words
        assert second.returncode == 1
    with nodes.ray(shared_disk=False) as executor:
        assert results(sweep(asked, folder, executor=executor, view=Silent())) == results(undisturbed)


@pytest.mark.slow
def test_runs_are_pruned_after_the_epochs_that_a_local_sweep_prunes_after(nodes: Nodes, tmp_path: Path) -> None:
    rates = "recipe.rate: [0.01, 0.02, 0.005, 0.004, 0.006, 0.007, 0.00001, 0.00002]"
    asked = study_text(tmp_path, rates, epochs=5, prune="median", sampler="random", budget={"runs": 8})
    local, store = worked(tmp_path / "local", asked)
    store.close()
    (tmp_path / "asked.yaml").write_text(asked)
    with nodes.ray(shared_disk=False, tasks=1) as executor:
        shared = sweep(tmp_path / "asked.yaml", tmp_path / "shared", executor=executor, view=Silent())
    states = [(run.settings, run.state, run.message) for run in local.runs]
    assert "pruned" in {run.state for run in local.runs}
    assert [(run.settings, run.state, run.message) for run in shared.runs] == states


@pytest.mark.slow
def test_a_node_without_the_data_is_named(nodes: Nodes, tmp_path: Path) -> None:
    """The node sees the folder, and looks for the data where this machine has it; as where only the folder is shared."""
    (tmp_path / "asked.yaml").write_text(study_text(tmp_path, "recipe.rate: [0.01]", epochs=1))
    hidden = tmp_path / "hidden.npz"

    def hide(*arguments: object) -> None:
        (tmp_path / "spots.npz").rename(hidden)

    looking = Silent()
    looking.begin = hide  # type: ignore[method-assign]
    with nodes.ray() as executor, pytest.raises(SettingError, match=r"node \w+ lacks the data: .*spots\.npz"):
        sweep(tmp_path / "asked.yaml", tmp_path / "study", executor=executor, view=looking)


def _wait(until: Callable[[], object], process: Any) -> None:
    for _ in range(1200):
        if until():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail("nothing happened for a minute")


def test_scans_on_a_cluster_have_the_same_bytes(nodes: Nodes, tmp_path: Path) -> None:
    data = load_data(str(write_spots(tmp_path / "spots.npz", 180)))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    scope, images = Scope(net, torch.zeros(1, 3, 8, 8)), data.train

    def looked(executor: Executor | None) -> list[bytes]:
        with using(executor):
            found = scope.statistics(images, ["0", "1"], batch_size=8, progress=False)
            return [one.table().to_json().encode() for one in found.values()]

    alone = looked(None)
    with nodes.ray() as executor:
        assert looked(executor) == alone
        kept = executor.put(images)
        shared = executor.submit(_digest, kept, images.index[:3]).result()
    assert shared == (images.pixels.sum().item(), images.index[:3].tolist())


def test_predictions_and_figures_have_the_same_bytes(nodes: Nodes, undisturbed: Study, tmp_path: Path) -> None:
    run, random = open_run(undisturbed.runs[0].path), np.random.default_rng(0)
    for n in range(40):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{n:02}.png")
    alone = predict_parts(run, [tmp_path], tmp_path / "alone", shard=7, probabilities=True)
    metrics = run.read_json("metrics.json")
    with nodes.ray(shared_disk=False) as executor, using(executor):
        shared = predict_parts(run, [tmp_path], tmp_path / "shared", executor, shard=7, probabilities=True)
        (run.path / "predictions.safetensors").unlink()
        assert evaluate(run) == metrics
    assert [file.read_bytes() for file in shared] == [file.read_bytes() for file in alone]


def _digest(images: ImageSet, index: torch.Tensor) -> tuple[float, list[int]]:
    return images.pixels.sum().item(), index.tolist()


def test_errors_and_deaths_of_tasks(nodes: Nodes) -> None:
    def refuse() -> None:
        raise SettingError("recipe.rate: no")

    with nodes.ray() as executor:
        with pytest.raises(SettingError, match=r"recipe\.rate: no"):
            executor.submit(refuse).result(timeout=60)
        with pytest.raises(WorkerError):
            executor.submit(os._exit, 3).result(timeout=60)
        assert sorted(executor.map(abs, [-3, 2, -1])) == [(-3, 3), (-1, 1), (2, 2)]
        assert executor.submit(torch.get_num_threads).result(timeout=60) == 1


def test_what_a_cluster_cannot_do_is_said_in_a_line(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, words in (
        ({"gpus": 2}, r"--gpus-per-run 2: the largest node of the cluster has 0 GPUs"),
        ({"cpus": 3}, r"--cpus-per-run 3: the largest node of the cluster has 1 CPUs"),
    ):
        with pytest.raises(SettingError, match=words):
            nodes.ray(**settings)
    monkeypatch.setattr(cluster, "versions", cluster.versions.__wrapped__)  # which is not cached
    monkeypatch.setattr(torch, "__version__", "2.9.0")  # of this process alone
    with pytest.raises(
        SettingError, match=r"node \S+ of the cluster has PyTorch .*, here 2\.9\.0: .*--allow-different"
    ):
        nodes.ray()
    with nodes.ray(allow_different=True) as executor:
        assert executor.submit(abs, -3).result(timeout=60) == 3


def test_the_files_of_a_run_are_written_so_that_it_can_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_files(folder, {"checkpoint.safetensors": b"1", "spec.yaml": b"2", "tensorboard/events": b"3"})
    assert set(read_files(folder)) == {"checkpoint.safetensors", "spec.yaml", "tensorboard/events"}
    write_files(folder, {"model.safetensors": b"4", "spec.yaml": b"2"})
    assert set(read_files(folder)) == {"model.safetensors", "spec.yaml", "tensorboard/events"}
