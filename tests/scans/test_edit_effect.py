"""The same edits of all images, against a loop over the images with the scope's own answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from convscope.edits import apply
from convscope.errors import RequestError, SettingError
from convscope.nets import make_task
from convscope.scans import Answering, EditEffect, edit_effect, mean_of, paired_difference, proportion
from convscope.scope import Scope
from tests.lenses.lens_networks import Mixed, lived_in, state
from tests.scans.scan_networks import bytes_of
from tests.scans.test_filter_effects import images_of, undecided

EDITS: list[Any] = [["rectangle", [0, 0, 5, 4], "black"], ["paste", 50, [2, 2, 3, 3], [4, 5]], ["contrast", 1.4]]


@pytest.mark.parametrize("workers", [1, 2])
def test_exactly_as_a_loop_over_edited_images(workers: int) -> None:
    images, labels = images_of(9, 60, classes=5), images_of(9, 60, classes=5).targets_of()
    scope = undecided(Mixed(), images)
    some = images.subset(range(40))
    found = scope.edit_effect(some, EDITS, images, batch_size=16, workers=workers, progress=False)
    before, after, was, now = [], [], [], []
    for i in range(40):
        edited = apply(images.images([i]), EDITS, images.images())
        for answers, probabilities, shown in ((before, was, images.images([i])), (after, now, edited)):
            [each] = scope.probabilities(shown)
            answers.append(int(each.argmax()))
            probabilities.append(float(each[labels[i]]))
    assert found.before.tolist() == before
    assert found.after.tolist() == after
    assert found.probability_before.tolist() == pytest.approx(was, abs=1e-6)
    assert found.probability_after.tolist() == pytest.approx(now, abs=1e-6)
    assert found.target.tolist() == labels[:40].tolist()
    truth = labels[:40].tolist()
    right = [(b == t, a == t) for b, a, t in zip(before, after, truth, strict=True)]
    ways = [right.count(way) for way in ((True, True), (False, True), (True, False), (False, False))]
    assert ways[1] + ways[2] > 2
    assert found.change() == paired_difference(*ways)
    assert found.accuracy_before() == proportion(ways[0] + ways[2], 40)
    assert found.accuracy_after() == proportion(ways[0] + ways[1], 40)
    changes = [n - w for n, w in zip(found.probability_after.tolist(), found.probability_before.tolist(), strict=True)]
    assert found.probability_change() == mean_of(changes, -1, 1)
    flipped = [i for i in range(40) if before[i] != after[i]]
    assert found.flipped.tolist() == flipped
    ranked = sorted(range(40), key=lambda i: (before[i] == after[i], -abs(changes[i])))
    assert found.most_changed(12).tolist() == ranked[:12]
    in_class = [way for way, t in zip(right, truth, strict=True) if t == 2]
    assert found.change(of_class=2) == paired_difference(
        *(in_class.count(way) for way in ((True, True), (False, True), (True, False), (False, False)))
    )
    assert found.edits == EDITS


def test_edits_take_from_the_images_themselves_by_default() -> None:
    images = images_of(9, 20, classes=5)
    scope = undecided(Mixed(), images)
    edit = [["blend", 3, 1.0]]
    found = scope.edit_effect(images, edit, progress=False)
    assert set(found.after.tolist()) == {int(scope.logits(images.images([3])).argmax())}


def test_no_edit_changes_nothing() -> None:
    images = images_of(9, 20, classes=5)
    found = undecided(Mixed(), images).edit_effect(images, [], progress=False)
    assert torch.equal(found.before, found.after)
    assert found.change().value == 0
    assert found.flipped.tolist() == []
    assert torch.equal(found.probability_before, found.probability_after)


def test_the_table_by_hand() -> None:
    """The network answers a where the first pixel is black, else b: of four images two of b are lost, one of a gained."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 9 * 8, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net[1].weight[1, 0], net[1].bias[0] = 9, 1
    images = images_of(9, 4, classes=2)
    images.pixels[:, 0, 0, 0] = torch.tensor([255, 255, 255, 0])
    images.targets["class"][:] = torch.tensor([0, 1, 1, 0])
    found = Scope(net.eval(), images.images([0])).edit_effect(
        images, [["rectangle", [0, 0, 1, 1], "black"]], progress=False
    )
    assert (
        found.table().to_dict("list").items()
        >= {
            "class": ["a", "b", "all"],
            "images": [2, 2, 4],
            "before": [0.5, 1, 0.75],
            "after": [1, 0, 0.5],
            "difference": [0.5, -1, -0.25],
            "lost": [0, 2, 2],
            "gained": [1, 0, 1],
        }.items()
    )
    assert found.flipped.tolist() == [0, 1, 2]


def test_kept_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_of(9, 30, classes=5)
    plain = undecided(Mixed(), images)
    run = SimpleNamespace(
        net=plain.net, classes=tuple("abcde"), normalization=None, input_shape=(3, 9, 8), path=tmp_path / "run",
        task=make_task("softmax", images.classes),
    )  # fmt: skip
    first = Scope(run).edit_effect(images, EDITS[:1], progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(Answering, "update", None)
        second = Scope(run).edit_effect(images, EDITS[:1], progress=False)
    assert isinstance(second, EditEffect)
    assert bytes_of(second) == bytes_of(first)
    assert second.edits == first.edits
    pasted = [[["blend", 3, 0.5]], [["blend", 4, 0.5]]]
    one, other = (Scope(run).edit_effect(images, edit, progress=False) for edit in pasted)
    assert not torch.equal(one.probability_after, other.probability_after)
    moved = images.subset(images.index.roll(1))  # image 4 is image 3 there
    again = Scope(run).edit_effect(images, pasted[1], moved, progress=False)
    assert torch.equal(again.after, one.after)
    tables = sorted((tmp_path / "run" / "scans").glob("edit_effect-*.parquet"))
    assert len(tables) == 4
    assert list(pd.read_parquet(tables[0])["class"]) == [*"abcde", "all"]


def test_the_network_and_the_scope_stay() -> None:
    images = images_of(9, 8, classes=5)
    scope = undecided(Mixed(), images)
    lived_in(scope.net)
    before, logits = state(scope.net), scope.logits(images.images())
    scope.edit_effect(images, EDITS, images_of(9, 60), progress=False)
    assert state(scope.net) == before
    assert torch.equal(scope.logits(images.images()), logits)


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([["rotate", 500]], r"^edit 1 \(rotate\): degrees"),
        ([["blend", 40, 0.5]], r"^edit 1 \(blend\): index: 40; there are images 0 to 39"),
        ("rotate", "^edits: 'rotate' is no JSON"),
    ],
)
def test_wrong_edits(edits: Any, expected: str) -> None:
    images = images_of(9, 40, classes=5)
    with pytest.raises(SettingError, match=expected):
        undecided(Mixed(), images).edit_effect(images, edits, progress=False)


def test_images_without_classes_are_refused() -> None:
    images = images_of(9, 40, classes=5)
    with pytest.raises(RequestError, match="the images came without classes, and accuracy needs them"):
        edit_effect(undecided(Mixed(), images), images.images(), [["rotate", 5]])
