from typing import Any

import pytest
import torch

from convscope.errors import RequestError, UnknownNameError
from convscope.lenses import choose_targets, named_target, portions
from convscope.nets import make_task

LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, 1.0, 2.0]])
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("target", "expected"), [(None, [1, 0]), (2, [2, 2]), ([0, 2], [0, 2]), (torch.tensor([1, 1]), [1, 1])]
)
def test_targets(target: Any, expected: list[int]) -> None:
    assert choose_targets(LOGITS, target).tolist() == expected


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize(
    ("target", "expected"),
    [(3, "3 is not a class of this network; it has 0 to 2"), (-1, "-1 is not a class"), ([0], "1 targets for 2 images"),
     (1.5, "is no class index"), ([[0, 1]], "is no class index")],
)  # fmt: skip
def test_wrong_targets(target: Any, expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        choose_targets(LOGITS, torch.tensor(target) if target in (1.5, [[0, 1]]) else target)


def test_portions_cover_everything_within_the_budget() -> None:
    found = list(portions(10, 300, CPU, max_memory=1000))
    assert [range(10)[part] for part in found] == [range(3), range(3, 6), range(6, 9), range(9, 10)]
    assert len(list(portions(3, 10**6, CPU, max_memory=1))) == 3
    assert list(portions(5, 1, CPU)) == [slice(0, 5)]
    with pytest.raises(RequestError, match="max_memory: 0 bytes"):
        list(portions(5, 1, CPU, max_memory=0))


FACTORS = {"width": ("thin", "thick"), "cap": ("thin", "none"), "angle": ("0°", "45°", "90°")}
HEADS = make_task({"width": "sigmoid", "cap": "sigmoid", "angle": "softmax"}, FACTORS)
OUTPUTS = torch.tensor([[-1.0, 2.0, 0.0, 3.0, 1.0], [1.0, -2.0, 0.0, 1.0, 3.0]])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, [0, 1]),  # the most probable class of the first head
        ("angle", [5, 6]),  # of another
        ("angle=45°", [5, 5]),
        (("angle", "0°"), [4, 4]),
        ("90°", [6, 6]),
        (["90°", "width=thick"], [6, 1]),
        ([6, 0], [6, 0]),
        (3, [3, 3]),
    ],
)
def test_classes_of_several_heads_by_name(target: Any, expected: list[int]) -> None:
    assert choose_targets(OUTPUTS, named_target(HEADS, target)).tolist() == expected


@pytest.mark.parametrize(
    ("target", "error", "expected"),
    [
        ("thin", RequestError, "'thin' is a class of several heads; write one of width=thin, cap=thin"),
        ("angle=30°", UnknownNameError, "class 'angle=30°' is not one of this network's"),
        (("angle", "30°"), UnknownNameError, "class 'angle=30°' is not one of this network's"),
        (7, RequestError, "target: 7 is not a class of this network; it has 0 to 6"),
    ],
)
def test_names_that_no_head_has(target: Any, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        choose_targets(OUTPUTS, named_target(HEADS, target))


def test_a_name_of_one_head_needs_no_head() -> None:
    task = make_task("sigmoid", {"class": ("cat", "dog")})
    assert [named_target(task, name).classes for name in ("dog", "class=dog", ("class", "cat"))] == [1, 1, 0]


def test_a_task_for_other_outputs_is_refused() -> None:
    with pytest.raises(RequestError, match="the task is for 5 outputs, and the network has 3"):
        choose_targets(LOGITS, named_target(HEADS, 0))
