"""Results kept in a run folder: found again, never another's, and made again where they are damaged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from convscope.errors import FailedError
from convscope.graph import TracedGraph
from convscope.scans.kept import SCANS
from convscope.scope import Scope
from tests.scans.scan_networks import CLASSES, bytes_of, make_images, network


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    normalization = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    run = SimpleNamespace(
        net=network(), classes=CLASSES, normalization=normalization, input_shape=(3, 9, 9), path=tmp_path / "run"
    )
    return Scope(run)


def files(scope: Scope) -> list[Path]:
    return sorted((scope.run.path / SCANS).glob("*"))


@pytest.mark.parametrize("ask", ["top_patches", "statistics", "filter_effects"])
def test_found_again_without_running_the_network(scope: Scope, ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = getattr(scope, ask)(make_images(), ["conv*", "fc"], batch_size=16)
    assert [path.suffix for path in files(scope)] == [".parquet", ".safetensors"]
    again = Scope(scope.run)
    monkeypatch.setattr(TracedGraph, "run", None)
    second = getattr(again, ask)(make_images(), ["conv*", "fc"], batch_size=16)
    assert {k: bytes_of(v) for k, v in second.items()} == {k: bytes_of(v) for k, v in first.items()}
    table = pd.read_parquet(files(scope)[0])
    assert list(table["layer"].unique()) == ["conv1", "conv2", "fc"]


def test_other_weights_images_or_settings_are_another_result(scope: Scope) -> None:
    scope.statistics(make_images(), ["conv1"])
    scope.statistics(make_images(), ["conv1"], batch_size=5)
    scope.statistics(make_images(seed=2), ["conv1"])
    scope.statistics(make_images().images(), ["conv1"])
    before = scope.statistics(make_images(), ["conv1"])["conv1"]
    assert len(files(scope)) == 2 * 4
    with torch.no_grad():
        scope.net.conv1.weight.mul_(2)
    after = scope.statistics(make_images(), ["conv1"])["conv1"]
    assert len(files(scope)) == 2 * 5
    assert not torch.equal(before.high, after.high)


@pytest.mark.parametrize("damage", ["garbage", "another's", "empty"])
def test_a_damaged_or_foreign_file_is_made_again(scope: Scope, damage: str) -> None:
    first = scope.top_patches(make_images(), ["conv1"], 3)["conv1"]
    [path] = [path for path in files(scope) if path.suffix == ".safetensors"]
    whole = path.read_bytes()
    if damage == "another's":
        scope.statistics(make_images(), ["conv1"])
        [other] = [found for found in files(scope) if found.suffix == ".safetensors" and found != path]
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(b"garbage" if damage == "garbage" else b"")
    second = scope.top_patches(make_images(), ["conv1"], 3)["conv1"]
    assert bytes_of(second) == bytes_of(first)
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_no_result(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise FailedError("No space left on device")

    monkeypatch.setattr("convscope.scans.kept.write_tensors", full)
    assert scope.statistics(make_images(), ["conv1"])["conv1"].n_images == 50
    assert files(scope) == []
