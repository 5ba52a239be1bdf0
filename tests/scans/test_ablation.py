"""A chosen set of units ablated together, against evaluation of the edited weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import nn

from convscope.errors import RequestError, SettingError, UnknownNameError
from convscope.lenses import interventions
from convscope.nets import make_task
from convscope.scans import (
    Answering,
    BatchOutputs,
    Confusion,
    IntervenedNet,
    paired_difference,
    proportion,
    scan,
)  # fmt: skip
from convscope.scope import Scope
from tests.lenses.lens_networks import ByFunctions, ByModules, Mixed, lived_in, state
from tests.scans.scan_networks import bytes_of, make_images, make_scope
from tests.scans.test_filter_effects import images_of, routed, undecided

UNITS = {"residual.conv1": [1], "dilated": [0, 2]}


@pytest.mark.parametrize("how", ["zero_weights", "zero_activation", "mean_activation"])
def test_exactly_as_the_edited_network_evaluated(how: str) -> None:
    images = images_of(9, 60, classes=5)
    scope = undecided(Mixed(), images)
    found = scope.ablation(UNITS, images, how, batch_size=16, progress=False)
    edited = scope.ablate(UNITS, how, images.images())
    labels = images.targets_of()
    head = make_task("softmax", images.classes).heads[0]
    for answering, confusion, predicted in (
        (scope, found.confusion_before, found.before),
        (edited, found.confusion_after, found.after),
    ):
        logits = torch.cat([answering.logits(images.images(slice(i, i + 16))) for i in range(0, 60, 16)])
        assert torch.equal(predicted, logits.argmax(1))
        [expected] = scan(answering, images, [Confusion(head)], batch_size=16, progress=False)
        assert torch.equal(confusion, expected)
        assert confusion.tolist() == confusion_matrix(labels, predicted, labels=range(5)).tolist()
    assert torch.equal(found.confusion_change, found.confusion_after - found.confusion_before)
    was, now = found.before == labels, found.after == labels
    assert found.lost.tolist() == [i for i in range(60) if was[i] and not now[i]]
    assert found.gained.tolist() == [i for i in range(60) if now[i] and not was[i]]
    assert len(found.lost) > 2
    assert len(found.gained) > 0
    assert (found.units, found.how, found.classes) == (UNITS, how, list("abcde"))


@pytest.mark.parametrize("how", ["zero_activation", "mean_activation"])
def test_functions_and_a_module_that_is_used_again(how: str) -> None:
    """Against the same network with a module for each ReLU, and hooks on these."""
    images = images_of(9, 60, classes=5)
    modules, functions = ByModules(), ByFunctions()
    for net in (modules, functions):
        net.fc1 = nn.Linear(16, 8)
    scope = undecided(modules, images)
    functions.load_state_dict(modules.state_dict())
    same = Scope(functions.eval(), images.images([0]), normalize=((0.5,) * 3, (0.3,) * 3))
    expected = scope.ablation({"relu1": [1, 4], "relu4": [0, 3]}, images, how, progress=False)
    found = same.ablation({"relu": [1, 4], "relu3_2": [3, 0]}, images, how, batch_size=16, progress=False)
    assert torch.equal(found.before, expected.before)
    assert torch.equal(found.after, expected.after)
    assert found.probability_after.tolist() == pytest.approx(expected.probability_after.tolist(), abs=1e-6)
    assert len(found.lost) + len(found.gained) > 2
    with pytest.raises(SettingError, match="how: 'off'; expected one of"):
        same.ablation({"relu3_2": [0]}, images, "off")


def test_a_network_without_units_can_be_sent_to_another_process() -> None:
    scope = undecided(ByFunctions(), images_of(9, classes=5))
    layers = interventions(scope.graph, {"relu3_2": [0, 3]}, "zero_activation")
    edited, images = IntervenedNet(scope, layers), scope.prepare(images_of(9).images())
    sent = pickle.loads(pickle.dumps(edited))  # noqa: S301
    assert torch.equal(sent(images), edited(images))
    assert not torch.equal(edited(images), scope.net(images))


def test_the_table_by_hand() -> None:
    """Without filter 0, class a is taken for c: all four of its images are lost, of twelve."""
    scope, images = routed()
    found = scope.ablation({"0": 0}, images, progress=False)
    table = found.table()
    assert table["class"].tolist() == ["a", "b", "c", "all"]
    assert table["images"].tolist() == [4, 4, 4, 12]
    assert table["before"].tolist() == [1, 1, 1, 1]
    assert table["after"].tolist() == [0, 1, 1, 8 / 12]
    assert table["difference"].tolist() == [-1, 0, 0, -4 / 12]
    assert table["lost"].tolist() == [4, 0, 0, 4]
    assert table["gained"].tolist() == [0, 0, 0, 0]
    assert found.confusion_change.tolist() == [[-4, 0, 4], [0, 0, 0], [0, 0, 0]]
    assert found.accuracy_after() == proportion(8, 12)
    assert found.change() == paired_difference(8, 0, 4, 0)
    assert found.change(of_class=0) == paired_difference(0, 0, 4, 0)
    assert table.loc[3, "difference_low"] == found.change().low
    assert found.probability_change(of_class=1).value == 0


@pytest.mark.parametrize("units", [None, [0, 1, 2, 3], torch.tensor([3, 2, 1, 0]), 2])
def test_units_are_named_as_for_the_lens(units: object) -> None:
    scope, images = routed()
    found = scope.ablation({"0": units}, images, progress=False)
    assert (
        found.accuracy_after().value == (1 if units == 2 else 1 / 3) if not isinstance(units, torch.Tensor) else 1 / 3
    )
    assert sorted(found.units["0"]) == ([2] if isinstance(units, int) else [0, 1, 2, 3])


def test_a_class_without_images_is_not_defined() -> None:
    scope, images = routed()
    found = scope.ablation({"0": 0}, images.subset([0, 1]), progress=False)
    assert found.accuracy_before(2).value is None
    assert found.change(2).value is None
    assert found.table()["after"].isna().tolist() == [False, False, True, False]


def test_merging_answers() -> None:
    images, head = make_images(), make_task("softmax", make_images().classes).heads[0]
    outputs, labels = torch.randn(50, 3), images.targets_of()
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        parts = [Answering(head) for _ in range(3)]
        for part, rows in zip(parts, torch.arange(50).split(20), strict=True):
            part.update(BatchOutputs(rows, outputs[rows], {"class": labels[rows]}))
        first, *others = (parts[i] for i in order)
        for other in others:
            first.merge(other)
        found.append({name: value.tolist() for name, value in first.result().items()})
    assert found[0] == found[1]
    assert found[0]["predicted"] == outputs.argmax(1).tolist()


def test_kept_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope, images = routed()
    run = SimpleNamespace(
        net=scope.net, classes=scope.classes, normalization=None, input_shape=(3, 4, 5), path=tmp_path / "run",
        task=make_task("softmax", {"class": scope.classes}),
    )  # fmt: skip
    first = Scope(run).ablation({"0": [0]}, images, progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(Answering, "update", None)
        second = Scope(run).ablation({"0": [0]}, images, progress=False)
    assert bytes_of(second) == bytes_of(first)
    other = Scope(run).ablation({"0": [1]}, images, progress=False)
    assert not torch.equal(other.after, first.after)
    [path, _] = sorted((tmp_path / "run" / "scans").glob("ablation-*.parquet"))
    assert list(pd.read_parquet(path)["class"]) == ["a", "b", "c", "all"]


def test_the_network_is_left_as_it_was_found() -> None:
    images = images_of(9, 8, classes=5)
    scope = undecided(Mixed(), images)
    lived_in(scope.net)
    before = state(scope.net)
    scope.ablation(UNITS, images, "mean_activation", progress=False)
    assert state(scope.net) == before


@pytest.mark.parametrize(
    ("layers", "how", "error", "message"),
    [
        ({"conv9": 0}, "zero_weights", UnknownNameError, "'conv9' is not in this network"),
        ({"conv1": 6}, "zero_weights", RequestError, "unit 6 is not in layer 'conv1'; it has 0 to 5"),
        ({"conv1": 0}, "none", SettingError, "^how: 'none'; expected one of"),
    ],
)
def test_bad_requests(layers: dict, how: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_scope().ablation(layers, make_images(), how)


def test_images_without_classes_are_refused() -> None:
    with pytest.raises(
        RequestError, match="the images came without classes, and accuracy needs them; give an ImageSet"
    ):
        make_scope().ablation({"conv1": 0}, make_images().images())
