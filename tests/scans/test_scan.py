"""The driver: one pass for all scans, the same bytes however it is cut, and a network left as it was found."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from convscope.errors import FailedError, NetworkError, RequestError, SettingError
from convscope.nets import make_task
from convscope.scans import BatchOutputs, Predictions, Scan, Statistics, TopPatches, batch_that_fits, scan
from convscope.scope import Scope
from tests.gpus import CUDA, on_gpu
from tests.lenses.lens_networks import lived_in, state
from tests.scans.scan_networks import CLASSES, bytes_of, make_images, make_scope, network

pytestmark = pytest.mark.own_processes
TASK = make_task("softmax", {"class": CLASSES})


def layer_scans(scope: Scope, layers: tuple[str, ...] = ("conv", "fc")) -> list[Scan]:
    images = make_images()
    return [TopPatches.of(scope, images, layers, 4), Statistics.of(scope, images, layers)]


def plain(results: list) -> list:
    return [{layer: bytes_of(record) for layer, record in result.items()} for result in results]


def test_one_pass_serves_scans_of_outputs_and_of_layers() -> None:
    scope, images = make_scope(), make_images()
    predictions, top, statistics = scan(scope, images, [Predictions(TASK), *layer_scans(scope)], batch_size=8)
    logits = torch.cat([scope.logits(images.images(slice(i, i + 8))) for i in range(0, 50, 8)])
    assert torch.equal(predictions["logits"], logits)
    assert torch.equal(predictions["target.class"], images.targets_of())
    assert list(top) == list(statistics) == ["conv1", "conv2", "fc"]


class Counting:
    """Notes what it is shown."""

    def __init__(self, layers: tuple[str, ...] = ()) -> None:
        self.layers, self.seen = layers, []

    def update(self, seen: BatchOutputs) -> None:
        self.seen.append(seen)

    def merge(self, other: Counting) -> None:
        self.seen += other.seen

    def result(self) -> list[BatchOutputs]:
        return self.seen


def test_a_pass_ends_where_nothing_more_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scope, asked = make_scope(), []
    run = scope.graph.run
    monkeypatch.setattr(scope.graph, "run", lambda images, names: asked.append(list(names)) or run(images, names))
    [first] = scan(scope, make_images(), [Counting(("conv1",))], batch_size=25)
    assert asked == [["conv1"]] * 2
    assert [seen.outputs.shape for seen in first] == [(25, 0)] * 2
    assert torch.equal(torch.cat([seen.index for seen in first]), torch.arange(50))


def test_images_may_be_a_tensor_without_classes() -> None:
    scope, images = make_scope(), make_images()
    [seen] = scan(scope, images.images(), [Counting(("conv1",))], batch_size=64)
    assert seen[0].targets == {}
    assert torch.equal(seen[0].activations["conv1"], scope.activations(images.images(), ["conv1"])["conv1"])


def test_every_order_and_partition_of_the_batches_gives_the_same_bytes() -> None:
    scope, images = make_scope(), make_images(48)
    whole = plain(scan(scope, images, layer_scans(scope), batch_size=6))
    [batches] = scan(scope, images, [Counting(("conv1", "relu1", "conv2", "relu2", "fc"))], batch_size=6)
    rng = random.Random(0)
    for n_parts in (1, 2, 3, 8):
        shuffled = rng.sample(batches, len(batches))
        parts = []
        for part in range(n_parts):
            scans = layer_scans(scope)
            for seen in shuffled[part::n_parts]:
                for each in scans:
                    each.update(seen)
            parts.append(scans)
        first, *others = rng.sample(parts, n_parts)
        for other in others:
            for mine, theirs in zip(first, other, strict=True):
                mine.merge(theirs)
        assert plain([each.result() for each in first]) == whole


def test_rankings_do_not_depend_on_the_batch_either() -> None:
    """Maps worked out once and shown in batches of any size; the mean is exact, the ranks are whole numbers."""
    scope, images = make_scope(), make_images(48)
    [[seen]] = scan(scope, images, [Counting(("conv1",))], batch_size=48)
    found = []
    for size in (48, 7, 1):
        [top, _] = layer_scans(scope, ("conv1",))
        for rows in torch.randperm(48).split(size):
            targets = {"class": seen.targets["class"][rows]}
            top.update(
                BatchOutputs(seen.index[rows], seen.outputs[rows], targets, {"conv1": seen.activations["conv1"][rows]})
            )
        found.append(plain([top.result()]))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_one_process_equals_several(workers: int) -> None:
    scope, images = make_scope(), make_images()
    scans = [Predictions(TASK), *layer_scans(scope)]
    alone = scan(scope, images, scans, batch_size=8)
    shared = scan(scope, images, [Predictions(TASK), *layer_scans(scope)], batch_size=8, workers=workers)
    assert plain(shared[1:]) == plain(alone[1:])
    assert {k: v.tolist() for k, v in shared[0].items()} == {k: v.tolist() for k, v in alone[0].items()}


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_told_here() -> None:
    images = make_images()
    with torch.no_grad():
        (broken := network()).conv1.weight.fill_(3e38)
    with pytest.raises(FailedError, match=r"layer 'conv1' .*gives NaN or infinity"):
        scan(make_scope(broken), images, layer_scans(make_scope(), ("conv",)), batch_size=8, workers=2)
    hooked = network()
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(NetworkError, match="cannot be sent to other processes; give workers=1"):
        scan(make_scope(hooked), images, layer_scans(make_scope()), batch_size=8, workers=2)


class Deadly(Counting):
    """Ends the process that it is in."""

    def update(self, seen: BatchOutputs) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_told_in_one_line() -> None:
    expected = "a process that shared the scan ended before its time: it was ended by SIGKILL, .*; give workers=1"
    with pytest.raises(FailedError, match=expected):
        scan(make_scope(), make_images(), [Deadly()], batch_size=8, workers=2)


SCRIPT = """
import torch
from torch import nn
import convscope as cs

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.conv(x).relu().amax((2, 3)))

torch.manual_seed(0)
images = torch.rand(24, 1, 6, 6)
scope = cs.Scope(Net(), example=images[:1])
one, two = (scope.statistics(images, ["conv"], batch_size=4, workers=n)["conv"].mean for n in (1, 2))
print(torch.equal(one, two))
"""


@pytest.mark.slow
def test_a_script_may_share_the_network_that_it_defines_among_processes(tmp_path: Path) -> None:
    """Though it lacks `if __name__ == "__main__":`."""
    (tmp_path / "script.py").write_text(SCRIPT)
    ran = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("True\n", 0), ran.stderr


def test_the_network_is_left_as_it_was_found() -> None:
    net = lived_in(network())
    scope, images = make_scope(net), make_images()
    scans = layer_scans(scope)
    before = state(net)
    scan(scope, images, [Predictions(TASK), *scans], batch_size=8)
    assert state(net) == before

    class Failing(Counting):
        def update(self, seen: BatchOutputs) -> None:
            if int(seen.index[0]) > 8:
                raise KeyboardInterrupt

    for layers in ((), ("conv1",)):
        with pytest.raises(KeyboardInterrupt):
            scan(scope, images, [Failing(layers)], batch_size=8)
        assert state(net) == before


def test_a_batch_is_what_fits_the_memory() -> None:
    scope = make_scope()
    sizes = []
    for memory in (1, 100_000, None):
        [seen] = scan(scope, make_images(), [Counting(("conv1",))], max_memory=memory)
        sizes.append(len(seen[0].index))
    assert sizes == [1, 4, 50]  # conv1 gives 1,944 bytes an image; held once and six times: 7 images, and so 4


def test_bad_requests() -> None:
    scope, images = make_scope(), make_images()
    with pytest.raises(RequestError, match="there are no images to scan"):
        scan(scope, images.subset([]), [Counting()])
    with pytest.raises(SettingError, match="workers: 0 is out of range"):
        scan(scope, images, [Counting()], workers=0)
    with pytest.raises(SettingError, match="batch_size: -1 is out of range"):
        scan(scope, images, [Counting()], batch_size=-1)
    with pytest.raises(RequestError, match="images have the shape 2×3×8×8"):
        scan(scope, torch.zeros(2, 3, 8, 8), [Counting()])
    assert scan(scope, images, []) == []


@on_gpu
def test_on_a_gpu_as_on_the_cpu() -> None:
    """In float64, but for what is ranked and counted by size, which is looked at in float32: 1e-6 of the largest."""
    scope, images = make_scope(network().double()), make_images()
    here = scan(scope, images, [Predictions(TASK), *layer_scans(scope)], batch_size=8)
    scope.net.to(CUDA)
    before = state(scope.net)
    there = scan(scope, images, [Predictions(TASK), *layer_scans(scope)], batch_size=8)
    assert state(scope.net) == before
    close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6, equal_nan=True)
    close(there[0], here[0])
    for layer in ("conv1", "conv2", "fc"):
        for name in ("response", "largest", "mean", "class_counts", "fired"):
            close(getattr(there[1][layer], name), getattr(here[1][layer], name))
        for name in ("mean", "deviation", "low", "high", "zeros", "peak", "class_means", "correlation"):
            close(getattr(there[2][layer], name), getattr(here[2][layer], name))
        # A value at the edge of a bin may fall to either side of it.
        moved = (there[2][layer].histogram - here[2][layer].histogram).cumsum(-1)
        assert (int(moved.abs().max()) <= 1, bool(moved[..., -1].any())) == (True, False)


@on_gpu
def test_all_that_a_scope_scans_runs_on_a_gpu() -> None:
    """The effects of filters, of a set of them, faithfulness, and invariance are the CPU's; the randomization check
    draws other weights there."""
    images = make_images(12)
    pixels, layers = images.images(), {"conv1": [0, 1], "conv2": [3]}
    asked: dict[str, Callable[[Scope], Any]] = {
        "effects": lambda scope: scope.filter_effects(images, screen=2)["conv1"],
        "ablation": lambda scope: scope.ablation(layers, images, "mean_activation").table(),
        "faithfulness": lambda scope: scope.faithfulness("saliency", pixels),
        "invariance": lambda scope: scope.invariance(pixels, ["conv1"], shift=[1], rotate=[30], scale=[0.8]),
    }
    cpu, gpu = (make_scope(network().double()) for _ in range(2))
    gpu.net.to(CUDA)
    before = state(gpu.net)
    for name, look in asked.items():
        here, there = look(cpu), look(gpu)
        if name == "ablation":
            pd.testing.assert_frame_equal(there, here, rtol=1e-6)
            continue
        for key, value in vars(here).items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(
                    vars(there)[key], value, rtol=1e-6, atol=1e-6, equal_nan=True, msg=f"{name}: {key}"
                )
    found = gpu.randomization_check("saliency", pixels).similarity
    assert found.shape == cpu.randomization_check("saliency", pixels).similarity.shape
    assert state(gpu.net) == before


@pytest.mark.parametrize(("max_memory", "n"), [(None, 8), (200, 8), (100, 4), (1, 1)])
def test_a_batch_of_large_maps_has_eight_images_where_the_memory_has_room(max_memory: int | None, n: int) -> None:
    """A map is 3.06 MiB, so that 5 lie within 16 MiB; an image takes seven of them, 21.4 MiB."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 2)
    )
    images = torch.zeros(9, 3, 224, 224)
    scope = Scope(net, images[:1], ("a", "b"))
    assert batch_that_fits(scope.graph, ["0"], images, max_memory and max_memory * 2**20) == n


@pytest.mark.usefixtures("annotations_unchecked")
def test_a_scan_of_what_is_no_scope_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"scope: .*; expected a scope, such as convscope.Scope"):
        scan(tmp_path, torch.zeros(1, 3, 2, 2), [])
