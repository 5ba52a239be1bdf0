"""Results kept in a run folder: found again, never another's, and made again where they are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from convscope.compute import Content, write_whole
from convscope.data import ImageSet
from convscope.errors import FailedError
from convscope.graph import TracedGraph
from convscope.nets import Head, Task, make_task
from convscope.scans import Images, patches_and_statistics
from convscope.scans.cached import VERSIONS
from convscope.scope import Scope
from tests.scans.scan_networks import CLASSES, HEIGHT, WIDTH, bytes_of, make_images, network


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    normalization = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    run = SimpleNamespace(
        net=network(), classes=CLASSES, normalization=normalization, input_shape=(3, HEIGHT, WIDTH), path=tmp_path / "run",
        task=make_task("softmax", {"class": CLASSES}),
    )  # fmt: skip
    return Scope(run)


def files(scope: Scope, suffix: str = "") -> list[Path]:
    return sorted((scope.run.path / "scans").glob(f"*{suffix}"))


@pytest.mark.parametrize("ask", ["top_patches", "statistics", "filter_effects"])
def test_found_again_without_running_the_network(scope: Scope, ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = getattr(scope, ask)(make_images(), ["conv*", "fc"], batch_size=16)
    assert [path.suffix for path in files(scope)] == [".json", ".parquet", ".safetensors"]
    again = Scope(scope.run)
    monkeypatch.setattr(TracedGraph, "run", None)
    second = getattr(again, ask)(make_images(), ["conv*", "fc"], batch_size=16)
    assert {k: bytes_of(v) for k, v in second.items()} == {k: bytes_of(v) for k, v in first.items()}
    table = pd.read_parquet(files(scope, ".parquet")[0])
    assert list(table["layer"].unique()) == ["conv1", "conv2", "fc"]


@pytest.mark.parametrize("ask", ["top_patches", "statistics", "filter_effects"])
def test_of_no_layers_there_are_no_records(scope: Scope, ask: str) -> None:
    assert [getattr(scope, ask)(make_images(), []) for _ in range(2)] == [{}, {}]


def test_patches_and_statistics_from_one_pass_are_those_of_two(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    passes, run = [], TracedGraph.run

    def counted(graph: TracedGraph, x: torch.Tensor, *more: Any, **given: Any) -> Any:
        passes.append(len(x))
        return run(graph, x, *more, **given)

    monkeypatch.setattr(TracedGraph, "run", counted)
    images = make_images()
    patches, statistics = patches_and_statistics(scope, images, ["conv*"], 5, "max", batch_size=50)
    assert passes == [50]
    alone = Scope(scope.net, torch.zeros(1, 3, HEIGHT, WIDTH), CLASSES, scope.run.normalization)  # keeps nothing
    for found, expected in (
        (patches, alone.top_patches(images, ["conv*"], 5, "max", batch_size=50)),
        (statistics, alone.statistics(images, ["conv*"], batch_size=50)),
    ):
        assert {k: bytes_of(v) for k, v in found.items()} == {k: bytes_of(v) for k, v in expected.items()}
    assert len(passes) == 3
    assert len(files(scope, ".json")) == 2
    scope.top_patches(images, ["conv*"], 5, "max", batch_size=50)
    scope.statistics(images, ["conv*"], batch_size=50)
    patches_and_statistics(scope, images, ["conv*"], 5, "max", batch_size=50)
    assert len(passes) == 3  # all are found again
    assert len(files(scope, ".json")) == 2


ASKED: dict[str, Callable[[Scope, Images], Any]] = {
    "faithfulness": lambda scope, images: scope.faithfulness("saliency", images, steps=3),
    "occlusion": lambda scope, images: scope.faithfulness("occlusion", images, steps=3, size=4, stride=3),
    "randomization": lambda scope, images: scope.randomization_check("saliency", images, torch.zeros(3).long()),
    "invariance": lambda scope, images: scope.invariance(images, ["conv"], shift=[1, (0, 2)], rotate=[30]),
}


@pytest.mark.parametrize("ask", ASKED)
def test_scans_of_each_image_are_found_again(scope: Scope, ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few = make_images().subset([4, 2, 9])
    first = ASKED[ask](scope, few)
    assert [path.suffix for path in files(scope)] == [".json", ".parquet", ".safetensors"]
    assert bytes_of(ASKED[ask](scope, few.images())) == bytes_of(first)
    assert len(files(scope, ".json")) == 2
    again = Scope(scope.run)
    monkeypatch.setattr(TracedGraph, "run", None)
    second = ASKED[ask](again, few)
    assert bytes_of(second) == bytes_of(first)
    assert len(pd.read_parquet(files(scope, ".parquet")[0])) == len(first.table()) > 0
    pd.testing.assert_frame_equal(second.table(), first.table())


def test_what_has_no_name_is_not_kept(scope: Scope) -> None:
    few = make_images().subset([4, 2])
    scope.faithfulness(Scope.saliency, few, steps=2)
    scope.faithfulness("saliency", few, steps=2, fill=few.images([0]))
    assert files(scope) == []


def test_other_weights_images_or_settings_are_another_result(scope: Scope) -> None:
    scope.statistics(make_images(), ["conv1"])
    scope.statistics(make_images(), ["conv1"], batch_size=5)
    scope.statistics(make_images(seed=2), ["conv1"])
    scope.statistics(make_images().images(), ["conv1"])
    before = scope.statistics(make_images(), ["conv1"])["conv1"]
    assert len(files(scope, ".json")) == 4
    with torch.no_grad():
        scope.net.conv1.weight.mul_(2)
    after = scope.statistics(make_images(), ["conv1"])["conv1"]
    assert len(files(scope, ".json")) == 5
    assert not torch.equal(before.high, after.high)


def test_the_same_images_with_other_classes_are_another_result(scope: Scope) -> None:
    images = make_images()
    labels = (images.targets_of() + 1) % 3
    relabelled = ImageSet(images.pixels, images.index, {"class": labels}, images.classes)
    before = scope.statistics(images, ["conv1"])["conv1"].class_means
    after = scope.statistics(relabelled, ["conv1"])["conv1"].class_means
    torch.testing.assert_close(after, before.roll(1, 1))


def test_another_normalisation_is_another_result(scope: Scope) -> None:
    plain = scope.statistics(make_images(), ["conv1"])["conv1"]
    other = Scope(scope.run, normalize=((0.1, 0.1, 0.1), (0.5, 0.5, 0.5)))
    found = other.statistics(make_images(), ["conv1"])["conv1"]
    alone = Scope(
        scope.net, torch.zeros(1, 3, HEIGHT, WIDTH), CLASSES, ((0.1, 0.1, 0.1), (0.5, 0.5, 0.5))
    )  # keeps nothing
    assert bytes_of(found) == bytes_of(alone.statistics(make_images(), ["conv1"])["conv1"])
    assert not torch.equal(found.mean, plain.mean)
    assert len(files(scope, ".json")) == 2


def test_other_names_of_the_answers_are_another_result(scope: Scope) -> None:
    turned = Scope(scope.run, task=Task((Head("class", "softmax", CLASSES[::-1]),)))
    first = scope.ablation({"conv1": [0]}, make_images())
    assert first.classes == list(CLASSES)
    assert turned.ablation({"conv1": [0]}, make_images()).classes == list(CLASSES[::-1])


def test_a_module_of_other_settings_and_equal_weights_is_another_result(scope: Scope) -> None:
    plain = scope.statistics(make_images(), ["conv1"])["conv1"]
    scope.net.conv1.padding_mode = "circular"
    scope.net.conv1.__setstate__(scope.net.conv1.__dict__)
    found = Scope(scope.run).statistics(make_images(), ["conv1"])["conv1"]
    assert len(files(scope, ".json")) == 2
    assert not torch.equal(found.mean, plain.mean)


def test_an_extra_state_that_is_no_tensor_is_part_of_the_key(scope: Scope) -> None:
    for steps in (1, 1, 2):
        noting = type("Noting", (torch.nn.Conv2d,), {"get_extra_state": lambda self, steps=steps: {"steps": steps}})
        scope.net.conv1.__class__ = noting
        scope.statistics(make_images(), ["conv1"])
    assert len(files(scope, ".json")) == 2


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".safetensors"])
@pytest.mark.parametrize("damage", ["garbage", "another's", "empty", "a byte", "missing"])
def test_a_damaged_or_foreign_file_is_made_again(scope: Scope, damage: str, suffix: str) -> None:
    first = scope.top_patches(make_images(), ["conv1"], 3)["conv1"]
    [path] = files(scope, suffix)
    whole = path.read_bytes()
    if damage == "another's":
        scope.statistics(make_images(), ["conv1"])
        [other] = [found for found in files(scope, suffix) if found != path]
        path.write_bytes(other.read_bytes())
    elif damage == "missing":
        path.unlink()
    else:
        changed = bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]])
        path.write_bytes({"garbage": b"garbage", "empty": b"", "a byte": changed}[damage])
    second = scope.top_patches(make_images(), ["conv1"], 3)["conv1"]
    assert bytes_of(second) == bytes_of(first)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".safetensors"])
def test_a_folder_that_cannot_be_written_costs_no_result(
    scope: Scope, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: Content) -> None:
        if path.suffix == suffix:
            raise FailedError("No space left on device")
        write_whole(path, content)

    monkeypatch.setattr("convscope.compute.cache.write_whole", full)
    assert scope.statistics(make_images(), ["conv1"])["conv1"].n_images == 50
    assert files(scope) == []


def test_a_scan_of_another_version_is_another_result(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    scope.statistics(make_images(), ["conv1"])
    monkeypatch.setitem(VERSIONS, "statistics", 99)
    scope.statistics(make_images(), ["conv1"])
    assert len(files(scope, ".json")) == 2


def test_a_run_folder_is_bounded(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    scope.statistics(make_images(), ["conv1"])
    [first] = files(scope, ".json")
    size = sum(path.stat().st_size for path in files(scope))
    monkeypatch.setattr("convscope.compute.cache.RUN_LIMIT", 5 * size // 2)
    promised = scope.run.path / "model.safetensors"
    promised.write_bytes(b"x" * 10 * size)
    for seed in (1, 2, 3):
        scope.statistics(make_images(), ["conv1"])  # used again, so never the one to go
        scope.statistics(make_images(seed=seed), ["conv1"])
    assert first in files(scope)
    assert len(files(scope, ".json")) == 2
    assert promised.stat().st_size == 10 * size
