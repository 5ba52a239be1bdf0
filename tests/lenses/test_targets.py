from typing import Any

import pytest
import torch

from convscope.errors import RequestError
from convscope.lenses import choose_targets, portions

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
